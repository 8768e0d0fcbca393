#pragma once

/// Pieces of SQL that several statements of the driver share.

// Of what need not survive a crash of the server.
#define HEDDLE_PG_NO_FSYNC "set_config('synchronous_commit', 'off', true)"
#define HEDDLE_PG_NOW "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
// The same for all rows of a statement, so that an index may be searched by it.
#define HEDDLE_PG_BEGUN "(extract(epoch FROM statement_timestamp()) * 1000000)::int8"
// Whether nobody alive but `$1` owns the thread; the lease is parameter `lease`. If it is $1's,
// this claim must not be one that was overtaken by a later one or by a write.
#define HEDDLE_PG_IS_FREE(lease)                                                          \
    "(t.owner IS NULL OR CASE WHEN t.owner = $1 THEN t.batch < $9::int8 ELSE NOT EXISTS " \
    "(SELECT 1 FROM heddle.engines e WHERE e.engine_id = t.owner "                        \
    "AND e.heartbeat_at >= " HEDDLE_PG_NOW " - " lease ") END)"
// "IS TRUE" keeps the planner from turning the test into a join, whose order and method would
// follow guesses about the arrays: so it is a hash that is made once and probed per row.
#define HEDDLE_PG_IN_OK(key) "(" key " IN (SELECT key FROM ok)) IS TRUE"
