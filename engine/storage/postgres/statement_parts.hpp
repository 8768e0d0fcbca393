#pragma once

/// Pieces of SQL that several statements of the driver share.

// Of what need not survive a crash of the server.
#define HEDDLE_PG_NO_FSYNC "set_config('synchronous_commit', 'off', true)"
#define HEDDLE_PG_NOW "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
// The same for all rows of a statement, so that an index may be searched by it.
#define HEDDLE_PG_BEGUN "(extract(epoch FROM statement_timestamp()) * 1000000)::int8"
// Whether an engine that beat then is alive. A time far ahead of the clock is one of a server whose
// clock was ahead, before a failover: nobody could say when that lease is over.
#define HEDDLE_PG_IS_LIVE(heartbeat, lease) \
    "(" heartbeat " BETWEEN " HEDDLE_PG_NOW " - " lease " AND " HEDDLE_PG_NOW " + " lease ")"
// `share`: into how many parts engine `$1` and the others that are alive divide what is to be done,
// and which is its own.
#define HEDDLE_PG_SHARE(lease) \
    "live AS MATERIALIZED (SELECT e.engine_id, e.draining FROM heddle.engines e "           \
    "WHERE " HEDDLE_PG_IS_LIVE("e.heartbeat_at", lease) "), "                               \
    "share AS MATERIALIZED (SELECT greatest(count(*), 1) AS parts, "                        \
    "count(*) FILTER (WHERE engine_id < $1::uuid) AS part FROM live "                       \
    "WHERE NOT draining OR engine_id = $1)"
// Whether nobody alive but `$1` owns the thread; the lease is parameter `lease`. If it is $1's,
// this claim must not be one that was overtaken by a later one or by a write.
#define HEDDLE_PG_IS_FREE(lease)                                                          \
    "(t.owner IS NULL OR CASE WHEN t.owner = $1 THEN t.batch < $9::int8 ELSE NOT EXISTS " \
    "(SELECT 1 FROM heddle.engines e WHERE e.engine_id = t.owner "                        \
    "AND " HEDDLE_PG_IS_LIVE("e.heartbeat_at", lease) ") END)"
// "IS TRUE" keeps the planner from turning the test into a join, whose order and method would
// follow guesses about the arrays: so it is a hash that is made once and probed per row.
#define HEDDLE_PG_IN_OK(key) "(" key " IN (SELECT key FROM ok)) IS TRUE"
