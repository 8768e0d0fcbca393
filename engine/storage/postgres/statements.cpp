#include "engine/storage/postgres/statements.hpp"

#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statement_parts.hpp"

namespace heddle::storage::postgres {

const Statement kLoadCalls{
    "load_tool_calls",
    "SELECT c.seq, c.task_id, c.number, c.run_id, c.answer FROM heddle.threads t "
    "JOIN heddle.tool_calls c USING (thread_key) WHERE t.thread_id = $1::uuid "
    "AND c.seq = $2::int8 ORDER BY c.task_id, c.number"};

const Statement kDelete{
    "delete",
    "WITH ok AS (DELETE FROM heddle.threads t USING unnest($2::int8[], $3::int8[], $5::int8[]) "
    "AS i (key, epoch, expires_at) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $4::int8 AND (i.expires_at = 0 OR t.expires_at = i.expires_at) RETURNING "
    "t.thread_key AS key), "
    "j AS (DELETE FROM heddle.journal USING ok WHERE journal.thread_key = ok.key), "
    "r AS (DELETE FROM heddle.runs USING ok WHERE runs.thread_key = ok.key), "
    "c AS (DELETE FROM heddle.tool_calls USING ok WHERE tool_calls.thread_key = ok.key) "
    "SELECT key FROM ok"};

const Statement kRollBack{
    "roll_back",
    "WITH ok AS (UPDATE heddle.threads t SET updated_at = $2::int8, head_seq = i.seq, "
    "status = coalesce(i.status, t.status), "
    "first_seq = least(t.first_seq, i.seq + 1), batch = $8::int8 "
    "FROM unnest($3::int8[], $4::int8[], $5::int8[], $9::int2[]) AS i (key, epoch, seq, status) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $8 RETURNING t.thread_key AS key, i.seq), "
    "j AS (DELETE FROM heddle.journal l USING ok WHERE l.thread_key = ok.key AND l.seq > ok.seq), "
    "c AS (DELETE FROM heddle.tool_calls l USING ok WHERE l.thread_key = ok.key "
    "AND l.seq > ok.seq), "
    "d AS (DELETE FROM heddle.runs r USING unnest($6::int8[], $7::uuid[]) AS i (key, run_id) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ") "
    "SELECT key FROM ok"};

// What became of batch $3, and a fence against it: it waits for the rows that the lost statement
// may still hold, and gives those that it did not change a number ($4) behind which it comes too
// late. Always a transaction that writes, so its commit also waits until what it found is on disk
// and, if the server replicates synchronously, on the standby: the lost session may not have waited
// for it.
const Statement kFence{
    "fence",
    "WITH m AS MATERIALIZED (SELECT pg_logical_emit_message(true, 'heddle', '')), "
    "u AS (UPDATE heddle.threads t SET batch = CASE WHEN t.owner = $2::uuid AND t.batch < $3::int8 "
    "THEN $4::int8 ELSE t.batch END FROM unnest($1::int8[]) AS i (key) WHERE t.thread_key = i.key "
    "RETURNING t.thread_key, t.epoch, t.batch, t.owner) "
    "SELECT u.* FROM m LEFT JOIN u ON true"};
// Of threads whose rows were not changed: those that are there.
const Statement kExisting{
    "existing", "SELECT thread_key FROM heddle.threads WHERE thread_key = ANY ($1::int8[])"};
const Statement kHasJournal{
    "has_journal",
    "SELECT 1 FROM heddle.journal WHERE thread_key = $1::int8 AND seq = $2::int8 "
    "AND checkpoint_id = $3::uuid"};
const Statement kHasRun{
    "has_run", "SELECT 1 FROM heddle.runs WHERE thread_key = $1::int8 AND run_id = $2::uuid"};
const Statement kNextKeys{"next_keys", "SELECT nextval('heddle.thread_keys')"};

// The commit may skip the fsync if nobody needs these claims to survive a crash: a claim that is
// lost leaves another owner or none, so whoever believes in it writes nothing (ADR 0003).
const Statement kClaim{
    "claim",
    "WITH created AS (INSERT INTO heddle.threads AS t (thread_key, thread_id, owner, epoch, "
    "status, "
    "head_seq, created_at, updated_at, batch, metadata, interrupts, ttl, ttl_strategy, expires_at) "
    "SELECT i.key, i.thread_id, $1::uuid, 1, 0, -1, $2::int8, $2, $9::int8, i.metadata::jsonb, "
    "'{}', i.ttl, i.strategy, " HEDDLE_PG_BEGUN
    " + i.ttl "
    "FROM unnest($4::uuid[], $5::text[], $6::int8[], $10::int8[], $11::int2[]) "
    "AS i (thread_id, metadata, key, ttl, strategy) "
    "ON CONFLICT (thread_id) DO UPDATE SET owner = $1, epoch = t.epoch + 1, batch = $9 "
    "WHERE " HEDDLE_PG_IS_FREE(
        "$3::int8") " RETURNING " HEDDLE_PG_THREAD
                    ", t.epoch), "
                    "taken AS (UPDATE heddle.threads t SET owner = $1, epoch = t.epoch + 1, batch "
                    "= $9 "
                    "FROM unnest($7::uuid[]) AS i (thread_id) WHERE t.thread_id = i.thread_id "
                    "AND " HEDDLE_PG_IS_FREE(
                        "$3") " RETURNING " HEDDLE_PG_THREAD
                              ", t.epoch), "
                              "mode AS MATERIALIZED (SELECT CASE WHEN $8::bool THEN '' "
                              "ELSE " HEDDLE_PG_NO_FSYNC
                              " END AS mode) "
                              "SELECT t.*, (SELECT mode FROM mode) FROM (SELECT * FROM created "
                              "UNION ALL "
                              "SELECT * FROM taken) t"};
const Statement kOpenRuns{"open_runs",
                          "SELECT " HEDDLE_PG_RUN
                          ", r.thread_key FROM heddle.runs r WHERE r.thread_key = ANY ($1::int8[]) "
                          "AND r.is_open ORDER BY r.thread_key, r.created_at, r.run_id"};
// Of threads that could not be claimed: who has them now.
const Statement kOwners{
    "owners",
    "SELECT t.thread_id, t.owner, e.endpoint FROM heddle.threads t LEFT JOIN heddle.engines e "
    "ON e.engine_id = t.owner AND " HEDDLE_PG_IS_LIVE(
        "e.heartbeat_at", "$2::int8") " WHERE t.thread_id = ANY ($1::uuid[])"};

// Not only "idle in transaction", which the server can end by itself: a client may also be stopped
// after it asked for the statement and before it asked for the commit that libpq sends behind it,
// or while the server writes it an answer that fills the socket.
const Statement kEvict{
    "evict",
    "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a "
    "WHERE a.datname = current_database() AND a.usename = current_user "
    "AND a.pid <> pg_backend_pid() AND a.wait_event_type = 'Client' AND a.xact_start IS NOT NULL "
    "AND a.xact_start < clock_timestamp() - $1::int8 * interval '1 millisecond' "
    "AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.relation = "
    "'heddle.threads'::regclass "
    "AND l.mode IN ('RowShareLock', 'RowExclusiveLock'))"};

const Statement kRegister{
    "register",
    "WITH purged AS (DELETE FROM heddle.engines WHERE engine_id IN (SELECT engine_id FROM "
    "heddle.engines "
    "WHERE NOT " HEDDLE_PG_IS_LIVE("heartbeat_at", "3600000000")
    " AND engine_id <> $1::uuid FOR UPDATE SKIP LOCKED)) "
    "INSERT INTO heddle.engines (engine_id, endpoint, draining, heartbeat_at) "
    "VALUES ($1::uuid, $2::text, $3::bool, " HEDDLE_PG_NOW
    ") ON CONFLICT (engine_id) DO UPDATE SET endpoint = excluded.endpoint, "
    "draining = excluded.draining, heartbeat_at = excluded.heartbeat_at "
    "RETURNING " HEDDLE_PG_NO_FSYNC};
const Statement kHeartbeat{
    "heartbeat",
    "UPDATE heddle.engines SET heartbeat_at = " HEDDLE_PG_NOW
    ", draining = $2::bool WHERE engine_id = $1::uuid AND heartbeat_at >= " HEDDLE_PG_NOW
    " - $3::int8 RETURNING " HEDDLE_PG_NO_FSYNC};
const Statement kHasEngine{"has_engine", "SELECT 1 FROM heddle.engines WHERE engine_id = $1::uuid"};
const Statement kUnregister{
    "unregister",
    "DELETE FROM heddle.engines WHERE engine_id = $1::uuid RETURNING " HEDDLE_PG_NO_FSYNC};
const Statement kListEngines{
    "list_engines",
    "SELECT engine_id, endpoint, draining FROM heddle.engines "
    "WHERE " HEDDLE_PG_IS_LIVE("heartbeat_at", "$1::int8") " ORDER BY engine_id"};
// Each engine begins with its share: those who look at the same moment do not all claim the same.
const Statement kFindOrphans{
    "find_orphans",
    "WITH " HEDDLE_PG_SHARE("$2::int8")
    " SELECT t.thread_id FROM heddle.threads t, share s WHERE t.thread_key IN "
    "(SELECT r.thread_key FROM heddle.runs r WHERE r.is_open) "
    "AND (t.owner IS NULL OR t.owner NOT IN (SELECT engine_id FROM live)) "
    "ORDER BY t.thread_key % s.parts <> s.part, t.thread_key LIMIT $3::int8 "
    "FOR NO KEY UPDATE OF t SKIP LOCKED"};

const Statement kLoadThread{"load_thread", "SELECT " HEDDLE_PG_THREAD
                                           " FROM heddle.threads t WHERE t.thread_id = $1::uuid"};
// The thread comes even if the row does not: one round trip tells the two "not found" apart.
const Statement kLoadChain{
    "load_chain",
    "SELECT " HEDDLE_PG_JOURNAL
    ", j.data, t.head_seq FROM heddle.threads t LEFT JOIN LATERAL (SELECT greatest(h.base, "
    "t.first_seq) AS base, h.seq FROM heddle.journal h "
    "WHERE h.thread_key = t.thread_key AND h.seq = CASE WHEN $2::int8 < 0 THEN t.head_seq "
    "ELSE $2 END AND h.seq >= t.first_seq) h ON true LEFT JOIN heddle.journal j ON j.thread_key = "
    "t.thread_key "
    "AND j.seq BETWEEN h.base AND h.seq WHERE t.thread_id = $1::uuid ORDER BY j.seq"};
// One row, however long the chain: thousands cost more on their way than in the table. As text,
// because bytea is sent as two digits a byte.
const Statement kLoadNewest{
    "load_newest",
    "SELECT " HEDDLE_PG_JOURNAL
    ", p.checkpoint_id, convert_from(c.data, 'UTF8'), c.sizes FROM heddle.threads t "
    "LEFT JOIN heddle.journal j ON j.thread_key = t.thread_key AND j.seq = t.head_seq "
    "AND j.seq >= t.first_seq LEFT JOIN heddle.journal p ON p.thread_key = t.thread_key "
    "AND p.seq = j.parent AND p.seq >= t.first_seq LEFT JOIN LATERAL ("
    "SELECT string_agg(r.data, '') AS data, array_agg(octet_length(r.data)) AS sizes FROM ("
    "SELECT l.data FROM heddle.journal l WHERE l.thread_key = t.thread_key "
    "AND l.seq BETWEEN greatest(j.base, t.first_seq) AND j.seq ORDER BY l.seq) r) c ON true "
    "WHERE t.thread_id = $1::uuid"};
const Statement kLoadChainOf{
    "load_chain_of",
    "SELECT " HEDDLE_PG_JOURNAL
    ", j.data, 0 FROM heddle.threads t LEFT JOIN LATERAL (SELECT greatest(h.base, t.first_seq) "
    "AS base, h.seq FROM heddle.journal h WHERE h.thread_key = t.thread_key "
    "AND h.seq >= t.first_seq AND h.checkpoint_id = $2::uuid ORDER BY h.seq DESC "
    "LIMIT 1) h ON true LEFT JOIN heddle.journal j ON j.thread_key = t.thread_key "
    "AND j.seq BETWEEN h.base AND h.seq WHERE t.thread_id = $1::uuid ORDER BY j.seq"};
const Statement kListJournal{
    "list_journal",
    "SELECT " HEDDLE_PG_JOURNAL
    " FROM heddle.threads t LEFT JOIN LATERAL (SELECT * FROM "
    "heddle.journal l WHERE l.thread_key = t.thread_key "
    "AND l.seq < $2::int8 AND l.seq >= t.first_seq ORDER BY l.seq DESC LIMIT $3::int8) j ON true "
    "WHERE t.thread_id = $1::uuid ORDER BY j.seq DESC"};
const Statement kLoadRun{"load_run", "SELECT " HEDDLE_PG_RUN
                                     " FROM heddle.threads t LEFT JOIN heddle.runs r ON "
                                     "r.thread_key = t.thread_key AND r.run_id = $2::uuid "
                                     "WHERE t.thread_id = $1::uuid"};
const Statement kFindRun{"find_run", "SELECT " HEDDLE_PG_RUN
                                     ", t.thread_id FROM heddle.runs r JOIN heddle.threads t USING "
                                     "(thread_key) WHERE r.run_id = $1::uuid"};
const Statement kListRuns{
    "list_runs",
    "SELECT " HEDDLE_PG_RUN
    " FROM heddle.threads t LEFT JOIN LATERAL (SELECT * FROM heddle.runs l WHERE l.thread_key = "
    "t.thread_key "
    "AND ($2::int8 < 0 OR l.status = $2::int8) ORDER BY l.created_at DESC, l.run_id DESC "
    "LIMIT $3::int8 OFFSET $4::int8) r ON true WHERE t.thread_id = $1::uuid "
    "ORDER BY r.created_at DESC, r.run_id DESC"};

}  // namespace heddle::storage::postgres
