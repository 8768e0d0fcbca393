#include "engine/storage/postgres/statements.hpp"

#include "engine/storage/postgres/rows.hpp"

namespace heddle::storage::postgres {
namespace {

#define HEDDLE_PG_NOW "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
// Whether nobody alive but `$1` owns the thread; the lease is parameter `lease`.
#define HEDDLE_PG_IS_FREE(lease)                                               \
    "(t.owner IS NULL OR t.owner = $1 OR NOT EXISTS (SELECT 1 FROM engines e " \
    "WHERE e.engine_id = t.owner AND e.heartbeat_at >= " HEDDLE_PG_NOW " - " lease "))"
// "IS TRUE" keeps the planner from turning the test into a join, whose order and method would
// follow guesses about the arrays: so it is a hash that is made once and probed per row.
#define HEDDLE_PG_IN_OK(key) "(" key " IN (SELECT key FROM ok)) IS TRUE"

// A whole batch, one transaction, one round trip. Only threads in `ok` are changed; what comes back
// are the others, and whether they exist at all.
constexpr const char* kWriteSql =
    "WITH ok AS (UPDATE threads t SET updated_at = $2::int8, "
    "status = coalesce(i.status, t.status), "
    "metadata = coalesce(i.metadata::jsonb, t.metadata), "
    "interrupts = coalesce(i.interrupts, t.interrupts), "
    "head_seq = coalesce(i.head, t.head_seq), "
    "owner = CASE WHEN i.release THEN NULL ELSE t.owner END "
    "FROM unnest($3::int8[], $4::int8[], $5::int2[], $6::text[], $7::text[], $8::int8[], "
    "$9::bool[]) AS i (key, epoch, status, metadata, interrupts, head, release) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "RETURNING t.thread_key AS key), "

    "j AS (INSERT INTO journal (thread_key, seq, parent, base, checkpoint_id, run_id, step, "
    "created_at, head, data) SELECT * FROM unnest($10::int8[], $11::int8[], $12::int8[], "
    "$13::int8[], $14::uuid[], $15::uuid[], $16::int4[], $17::int8[], $18::text[], $19::bytea[]) "
    "AS i (key, seq, parent, base, checkpoint_id, run_id, step, created_at, head, data) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") "), "

    "r AS (INSERT INTO runs (thread_key, run_id, assistant_id, status, is_open, attempt, "
    "created_at, updated_at, multitask_strategy, request_hash, error, metadata, kwargs) "
    "SELECT key, run_id, assistant_id, status, status < 2, attempt, created_at, updated_at, "
    "strategy, hash, error, metadata, kwargs FROM unnest($20::int8[], $21::uuid[], $22::uuid[], "
    "$23::int2[], $24::int4[], $25::int8[], $26::int8[], $27::text[], $28::bytea[], $29::text[], "
    "$30::text[], $31::text[]) AS i (key, run_id, assistant_id, status, attempt, created_at, "
    "updated_at, strategy, hash, error, metadata, kwargs) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") "), "

    "u AS (UPDATE runs r SET status = i.status, is_open = i.status < 2, attempt = i.attempt, "
    "error = i.error, updated_at = $2 FROM unnest($32::int8[], $33::uuid[], $34::int2[], "
    "$35::int4[], $36::text[]) AS i (key, run_id, status, attempt, error) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") "), "

    "d AS (DELETE FROM runs r USING unnest($37::int8[], $38::uuid[]) AS i (key, run_id) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ") "

    "SELECT i.key, EXISTS (SELECT 1 FROM threads t WHERE t.thread_key = i.key) "
    "FROM unnest($3::int8[]) AS i (key) WHERE (i.key IN (SELECT key FROM ok)) IS NOT TRUE";

constexpr const char* kDeleteSql =
    "WITH ok AS (DELETE FROM threads t USING unnest($2::int8[], $3::int8[]) AS i (key, epoch) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "RETURNING t.thread_key AS key), "
    "j AS (DELETE FROM journal USING ok WHERE journal.thread_key = ok.key), "
    "r AS (DELETE FROM runs USING ok WHERE runs.thread_key = ok.key) "
    "SELECT i.key, EXISTS (SELECT 1 FROM threads t WHERE t.thread_key = i.key) "
    "FROM unnest($2::int8[]) AS i (key) WHERE (i.key IN (SELECT key FROM ok)) IS NOT TRUE";

constexpr const char* kReadBackSql =
    "SELECT t.thread_key, t.epoch, t.updated_at, t.owner FROM threads t WHERE t.thread_key = ANY "
    "($1::int8[])";
constexpr const char* kHasJournalSql =
    "SELECT 1 FROM journal WHERE thread_key = $1::int8 AND seq = $2::int8 "
    "AND checkpoint_id = $3::uuid";
constexpr const char* kHasRunSql =
    "SELECT 1 FROM runs WHERE thread_key = $1::int8 AND run_id = $2::uuid";
constexpr const char* kNextKeysSql = "SELECT nextval('thread_keys')";

// The commit may skip the fsync if nobody needs these claims to survive a crash: a claim that is
// lost leaves another owner or none, so whoever believes in it writes nothing (ADR 0003).
constexpr const char* kClaimSql =
    "WITH created AS (INSERT INTO threads AS t (thread_key, thread_id, owner, epoch, status, "
    "head_seq, created_at, updated_at, metadata, interrupts) "
    "SELECT i.key, i.thread_id, $1::uuid, 1, 0, -1, $2::int8, $2, i.metadata::jsonb, '{}' "
    "FROM unnest($4::uuid[], $5::text[], $6::int8[]) AS i (thread_id, metadata, key) "
    "ON CONFLICT (thread_id) DO UPDATE SET owner = $1, epoch = t.epoch + 1 "
    "WHERE " HEDDLE_PG_IS_FREE(
        "$3::int8") " RETURNING " HEDDLE_PG_THREAD
                    ", t.epoch), "
                    "taken AS (UPDATE threads t SET owner = $1, epoch = t.epoch + 1 "
                    "FROM unnest($7::uuid[]) AS i (thread_id) WHERE t.thread_id = i.thread_id "
                    "AND " HEDDLE_PG_IS_FREE(
                        "$3") " RETURNING " HEDDLE_PG_THREAD
                              ", t.epoch), "
                              "mode AS MATERIALIZED (SELECT CASE WHEN $8::bool THEN '' "
                              "ELSE set_config('synchronous_commit', 'off', true) END AS mode) "
                              "SELECT t.*, (SELECT mode FROM mode) FROM (SELECT * FROM created "
                              "UNION ALL "
                              "SELECT * FROM taken) t";
constexpr const char* kOpenRunsSql =
    "SELECT " HEDDLE_PG_RUN
    ", r.thread_key FROM runs r WHERE r.thread_key = ANY ($1::int8[]) "
    "AND r.is_open ORDER BY r.thread_key, r.created_at, r.run_id";
// Of threads that could not be claimed: who has them now.
constexpr const char* kOwnersSql =
    "SELECT t.thread_id, t.owner, e.endpoint FROM threads t LEFT JOIN engines e "
    "ON e.engine_id = t.owner AND e.heartbeat_at >= " HEDDLE_PG_NOW
    " - $2::int8 WHERE t.thread_id = ANY ($1::uuid[])";

// Not only "idle in transaction", which the server can end by itself: a client may also be stopped
// after it asked for the statement and before it asked for the commit that libpq sends behind it,
// or while the server writes it an answer that fills the socket.
constexpr const char* kEvictSql =
    "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a "
    "WHERE a.datname = current_database() AND a.usename = current_user "
    "AND a.pid <> pg_backend_pid() AND a.wait_event_type = 'Client' AND a.xact_start IS NOT NULL "
    "AND a.xact_start < clock_timestamp() - $1::int8 * interval '1 millisecond' "
    "AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'threads'::regclass "
    "AND l.mode IN ('RowShareLock', 'RowExclusiveLock'))";

constexpr const char* kRegisterSql =
    "WITH purged AS (DELETE FROM engines WHERE engine_id IN (SELECT engine_id FROM engines "
    "WHERE heartbeat_at < " HEDDLE_PG_NOW
    " - 3600000000 AND engine_id <> $1::uuid FOR UPDATE SKIP LOCKED)) "
    "INSERT INTO engines (engine_id, endpoint, draining, heartbeat_at) "
    "VALUES ($1::uuid, $2::text, $3::bool, " HEDDLE_PG_NOW
    ") ON CONFLICT (engine_id) DO UPDATE SET endpoint = excluded.endpoint, "
    "draining = excluded.draining, heartbeat_at = excluded.heartbeat_at";
constexpr const char* kHeartbeatSql =
    "UPDATE engines SET heartbeat_at = " HEDDLE_PG_NOW
    ", draining = $2::bool WHERE engine_id = $1::uuid AND heartbeat_at >= " HEDDLE_PG_NOW
    " - $3::int8 RETURNING 1";
constexpr const char* kHasEngineSql = "SELECT 1 FROM engines WHERE engine_id = $1::uuid";
constexpr const char* kUnregisterSql = "DELETE FROM engines WHERE engine_id = $1::uuid";
constexpr const char* kListEnginesSql =
    "SELECT engine_id, endpoint, draining FROM engines WHERE heartbeat_at >= " HEDDLE_PG_NOW
    " - $1::int8 ORDER BY engine_id";
constexpr const char* kFindOrphansSql =
    "SELECT t.thread_id FROM threads t WHERE t.thread_key IN (SELECT r.thread_key FROM runs r "
    "WHERE r.is_open) AND NOT EXISTS (SELECT 1 FROM engines e WHERE e.engine_id = t.owner "
    "AND e.heartbeat_at >= " HEDDLE_PG_NOW
    " - $1::int8) LIMIT $2::int8 FOR NO KEY UPDATE OF t SKIP LOCKED";

constexpr const char* kLoadThreadSql =
    "SELECT " HEDDLE_PG_THREAD " FROM threads t WHERE t.thread_id = $1::uuid";
// The thread is in the answer even if the row asked for is not: so the two kinds of "not found" can
// be told apart in one round trip.
constexpr const char* kLoadChainSql =
    "SELECT " HEDDLE_PG_JOURNAL
    ", j.data, t.head_seq FROM threads t LEFT JOIN LATERAL (SELECT h.base, h.seq FROM journal h "
    "WHERE h.thread_key = t.thread_key AND h.seq = CASE WHEN $2::int8 < 0 THEN t.head_seq "
    "ELSE $2 END) h ON true LEFT JOIN journal j ON j.thread_key = t.thread_key "
    "AND j.seq BETWEEN h.base AND h.seq WHERE t.thread_id = $1::uuid ORDER BY j.seq";
constexpr const char* kLoadChainOfSql =
    "SELECT " HEDDLE_PG_JOURNAL
    ", j.data, 0 FROM threads t LEFT JOIN LATERAL (SELECT h.base, h.seq FROM journal h "
    "WHERE h.thread_key = t.thread_key AND h.checkpoint_id = $2::uuid ORDER BY h.seq DESC "
    "LIMIT 1) h ON true LEFT JOIN journal j ON j.thread_key = t.thread_key "
    "AND j.seq BETWEEN h.base AND h.seq WHERE t.thread_id = $1::uuid ORDER BY j.seq";
constexpr const char* kListJournalSql =
    "SELECT " HEDDLE_PG_JOURNAL
    " FROM threads t LEFT JOIN LATERAL (SELECT * FROM journal l WHERE l.thread_key = t.thread_key "
    "AND l.seq < $2::int8 ORDER BY l.seq DESC LIMIT $3::int8) j ON true "
    "WHERE t.thread_id = $1::uuid ORDER BY j.seq DESC";
constexpr const char* kLoadRunSql =
    "SELECT " HEDDLE_PG_RUN
    " FROM threads t LEFT JOIN runs r ON r.thread_key = t.thread_key AND r.run_id = $2::uuid "
    "WHERE t.thread_id = $1::uuid";
constexpr const char* kFindRunSql =
    "SELECT " HEDDLE_PG_RUN
    ", t.thread_id FROM runs r JOIN threads t USING (thread_key) WHERE r.run_id = $1::uuid";
constexpr const char* kListRunsSql =
    "SELECT " HEDDLE_PG_RUN
    " FROM threads t LEFT JOIN LATERAL (SELECT * FROM runs l WHERE l.thread_key = t.thread_key "
    "AND ($2::int8 < 0 OR l.status = $2::int8) ORDER BY l.created_at DESC, l.run_id DESC "
    "LIMIT $3::int8 OFFSET $4::int8) r ON true WHERE t.thread_id = $1::uuid "
    "ORDER BY r.created_at DESC, r.run_id DESC";

}  // namespace

void prepare_all(pqxx::connection& session) {
    session.prepare(kWrite, kWriteSql);
    session.prepare(kDelete, kDeleteSql);
    session.prepare(kReadBack, kReadBackSql);
    session.prepare(kHasJournal, kHasJournalSql);
    session.prepare(kHasRun, kHasRunSql);
    session.prepare(kNextKeys, kNextKeysSql);
    session.prepare(kClaim, kClaimSql);
    session.prepare(kOpenRuns, kOpenRunsSql);
    session.prepare(kOwners, kOwnersSql);
    session.prepare(kEvict, kEvictSql);
    session.prepare(kRegister, kRegisterSql);
    session.prepare(kHeartbeat, kHeartbeatSql);
    session.prepare(kHasEngine, kHasEngineSql);
    session.prepare(kUnregister, kUnregisterSql);
    session.prepare(kListEngines, kListEnginesSql);
    session.prepare(kFindOrphans, kFindOrphansSql);
    session.prepare(kLoadThread, kLoadThreadSql);
    session.prepare(kLoadChain, kLoadChainSql);
    session.prepare(kLoadChainOf, kLoadChainOfSql);
    session.prepare(kListJournal, kListJournalSql);
    session.prepare(kLoadRun, kLoadRunSql);
    session.prepare(kFindRun, kFindRunSql);
    session.prepare(kListRuns, kListRunsSql);
}

}  // namespace heddle::storage::postgres
