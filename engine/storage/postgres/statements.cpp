#include "engine/storage/postgres/statements.hpp"

#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statement_parts.hpp"

namespace heddle::storage::postgres {

// ---- a whole batch of writes: one statement, one transaction, one round trip. Only threads in
// `ok` are changed; what comes back are the others, and whether they exist at all.
namespace {

constexpr const char* kChangeThreads =
    "(UPDATE heddle.threads t SET updated_at = $2::int8, "
    "status = coalesce(i.status, t.status), "
    "metadata = coalesce(i.metadata::jsonb, t.metadata), "
    "interrupts = coalesce(i.interrupts, t.interrupts), "
    "head_seq = coalesce(i.head, t.head_seq), "
    "owner = CASE WHEN i.release THEN NULL ELSE t.owner END, batch = $39::int8, "
    // Moved on by a tenth of the time to live at least, or not at all: so it is seldom that a step
    // touches an index.
    "expires_at = CASE WHEN t.ttl IS NULL THEN NULL "
    "WHEN coalesce(t.expires_at, 0) < " HEDDLE_PG_BEGUN
    " + t.ttl - t.ttl / 10 "
    "THEN " HEDDLE_PG_BEGUN
    " + t.ttl ELSE t.expires_at END "
    "FROM unnest($3::int8[], $4::int8[], $5::int2[], $6::text[], $7::text[], $8::int8[], "
    "$9::bool[]) AS i (key, epoch, status, metadata, interrupts, head, release) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $39 RETURNING t.thread_key AS key)";

// One that exists already is left alone, whoever has it.
constexpr const char* kMakeThreads =
    "(INSERT INTO heddle.threads AS t (thread_key, thread_id, owner, epoch, status, head_seq, "
    "created_at, updated_at, batch, metadata, interrupts, ttl, ttl_strategy, expires_at) "
    "SELECT i.key, i.thread_id, CASE WHEN i.release THEN NULL ELSE $1::uuid END, 1, "
    "coalesce(i.status, 0), coalesce(i.head, -1), $2::int8, $2, $39::int8, i.metadata::jsonb, "
    "coalesce(i.interrupts, '{}'), i.ttl, i.strategy, " HEDDLE_PG_BEGUN
    " + i.ttl FROM unnest(${}::int8[], ${}::uuid[], ${}::int2[], ${}::text[], ${}::text[], "
    "${}::int8[], ${}::bool[], ${}::int8[], ${}::int2[]) "
    "AS i (key, thread_id, status, metadata, interrupts, head, release, ttl, strategy) "
    "ON CONFLICT (thread_id) DO NOTHING RETURNING t.thread_key AS key)";

constexpr const char* kInsertJournal =
    "(INSERT INTO heddle.journal (thread_key, seq, parent, base, checkpoint_id, run_id, step, "
    "created_at, head, data) SELECT * FROM unnest($10::int8[], $11::int8[], $12::int8[], "
    "$13::int8[], $14::uuid[], $15::uuid[], $16::int4[], $17::int8[], $18::text[], $19::bytea[]) "
    "AS i (key, seq, parent, base, checkpoint_id, run_id, step, created_at, head, data) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") ")";
constexpr const char* kInsertRuns =
    "(INSERT INTO heddle.runs (thread_key, run_id, assistant_id, status, is_open, attempt, "
    "created_at, updated_at, multitask_strategy, request_hash, error, metadata, kwargs) "
    "SELECT key, run_id, assistant_id, status, status < 2, attempt, created_at, updated_at, "
    "strategy, hash, error, metadata, kwargs FROM unnest($20::int8[], $21::uuid[], $22::uuid[], "
    "$23::int2[], $24::int4[], $25::int8[], $26::int8[], $27::text[], $28::bytea[], $29::text[], "
    "$30::text[], $31::text[]) AS i (key, run_id, assistant_id, status, attempt, created_at, "
    "updated_at, strategy, hash, error, metadata, kwargs) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") ")";
constexpr const char* kUpdateRuns =
    "(UPDATE heddle.runs r SET status = i.status, is_open = i.status < 2, "
    "attempt = i.attempt, error = i.error, updated_at = $2 "
    "FROM unnest($32::int8[], $33::uuid[], $34::int2[], $35::int4[], $36::text[]) "
    "AS i (key, run_id, status, attempt, error) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ")";
constexpr const char* kDeleteRuns =
    "(DELETE FROM heddle.runs r USING unnest($37::int8[], $38::uuid[]) AS i (key, run_id) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ")";

// What one part puts and the other takes away are never the same rows (batch_plan.hpp).
constexpr const char* kChangeToolCalls =
    ", c AS (INSERT INTO heddle.tool_calls AS t (thread_key, seq, task_id, number, run_id, answer) "
    "SELECT * FROM unnest(${}::int8[], ${}::int8[], ${}::uuid[], ${}::int4[], ${}::uuid[], "
    "${}::bytea[]) AS i (key, seq, task_id, number, run_id, answer) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") " ON CONFLICT (thread_key, seq, task_id, number) "
    "DO UPDATE SET run_id = excluded.run_id, answer = excluded.answer), "

    "e AS (DELETE FROM heddle.tool_calls t USING unnest(${}::int8[], ${}::int8[]) AS i (key, seq) "
    "WHERE t.thread_key = i.key AND t.seq <= i.seq AND " HEDDLE_PG_IN_OK("i.key") ")";

// Batches that make no thread, or touch no tool call, do not pay for parts that have nothing to do.
enum class Parts : std::uint8_t { rows = 0, threads = 1, tool_calls = 2, all = 3 };

// Gives the places "${}" of a part their numbers.
std::string numbered(std::string part, int& next) {
    constexpr std::string_view kPlace = "${}";
    for (auto at = part.find(kPlace); at != std::string::npos; at = part.find(kPlace, at)) {
        part.replace(at, kPlace.size(), fmt::format("${}", next++));
    }
    return part;
}

std::string write_sql(Parts parts) {
    const auto has = [parts](Parts part) {
        return (static_cast<unsigned>(parts) & static_cast<unsigned>(part)) != 0;
    };
    int next = 40;
    std::string sql = "WITH ";
    std::string keys = "$3::int8[]";
    if (has(Parts::threads)) {
        keys += fmt::format(" || ${}::int8[]", next);
        sql += fmt::format(
            "changed AS {}, made AS {}, ok AS (SELECT key FROM changed UNION ALL "
            "SELECT key FROM made)",
            kChangeThreads, numbered(kMakeThreads, next));
    } else {
        sql += fmt::format("ok AS {}", kChangeThreads);
    }
    sql += fmt::format(", j AS {}, r AS {}, u AS {}, d AS {}", kInsertJournal, kInsertRuns,
                       kUpdateRuns, kDeleteRuns);
    if (has(Parts::tool_calls)) {
        sql += numbered(kChangeToolCalls, next);
    }
    return sql + fmt::format(
                     " SELECT i.key, EXISTS (SELECT 1 FROM heddle.threads t "
                     "WHERE t.thread_key = i.key) FROM unnest({}) AS i (key) "
                     "WHERE (i.key IN (SELECT key FROM ok)) IS NOT TRUE",
                     keys);
}

const std::string kWriteSql = write_sql(Parts::rows);
const std::string kWriteCallsSql = write_sql(Parts::tool_calls);
const std::string kWriteNewSql = write_sql(Parts::threads);
const std::string kWriteNewCallsSql = write_sql(Parts::all);

}  // namespace

const Statement kWrite{"write", kWriteSql.c_str()};
const Statement kWriteCalls{"write_with_tool_calls", kWriteCallsSql.c_str()};
const Statement kWriteNew{"write_new_threads", kWriteNewSql.c_str()};
const Statement kWriteNewCalls{"write_new_threads_with_tool_calls", kWriteNewCallsSql.c_str()};
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
    "SELECT i.key, EXISTS (SELECT 1 FROM heddle.threads t WHERE t.thread_key = i.key) "
    "FROM unnest($2::int8[]) AS i (key) WHERE (i.key IN (SELECT key FROM ok)) IS NOT TRUE"};

const Statement kRollBack{
    "roll_back",
    "WITH ok AS (UPDATE heddle.threads t SET updated_at = $2::int8, head_seq = i.seq, "
    "first_seq = least(t.first_seq, i.seq + 1), batch = $8::int8 "
    "FROM unnest($3::int8[], $4::int8[], $5::int8[]) AS i (key, epoch, seq) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $8 RETURNING t.thread_key AS key, i.seq), "
    "j AS (DELETE FROM heddle.journal l USING ok WHERE l.thread_key = ok.key AND l.seq > ok.seq), "
    "c AS (DELETE FROM heddle.tool_calls l USING ok WHERE l.thread_key = ok.key "
    "AND l.seq > ok.seq), "
    "d AS (DELETE FROM heddle.runs r USING unnest($6::int8[], $7::uuid[]) AS i (key, run_id) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ") "
    "SELECT i.key, EXISTS (SELECT 1 FROM heddle.threads t WHERE t.thread_key = i.key) "
    "FROM unnest($3::int8[]) AS i (key) WHERE (i.key IN (SELECT key FROM ok)) IS NOT TRUE"};

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
    "ON e.engine_id = t.owner AND e.heartbeat_at >= " HEDDLE_PG_NOW
    " - $2::int8 WHERE t.thread_id = ANY ($1::uuid[])"};

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
    "WHERE heartbeat_at < " HEDDLE_PG_NOW
    " - 3600000000 AND engine_id <> $1::uuid FOR UPDATE SKIP LOCKED)) "
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
    "SELECT engine_id, endpoint, draining FROM heddle.engines WHERE heartbeat_at >= " HEDDLE_PG_NOW
    " - $1::int8 ORDER BY engine_id"};
const Statement kFindOrphans{
    "find_orphans",
    "SELECT t.thread_id FROM heddle.threads t WHERE t.thread_key IN (SELECT r.thread_key FROM "
    "heddle.runs r "
    "WHERE r.is_open) AND NOT EXISTS (SELECT 1 FROM heddle.engines e WHERE e.engine_id = t.owner "
    "AND e.heartbeat_at >= " HEDDLE_PG_NOW
    " - $1::int8) LIMIT $2::int8 FOR NO KEY UPDATE OF t SKIP LOCKED"};

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

void prepare_all(pqxx::connection& session) {
    for (const auto* statement :
         {&kPrune,       &kSetTtl,      &kFindExpired, &kClaimKey,     &kDeleteExpiredKeys,
          &kWrite,       &kDelete,      &kRollBack,    &kFence,        &kHasJournal,
          &kHasRun,      &kNextKeys,    &kClaim,       &kOpenRuns,     &kOwners,
          &kEvict,       &kRegister,    &kHeartbeat,   &kHasEngine,    &kUnregister,
          &kListEngines, &kFindOrphans, &kLoadThread,  &kLoadNewest,   &kLoadChain,
          &kLoadChainOf, &kListJournal, &kLoadRun,     &kFindRun,      &kListRuns,
          &kLoadCalls,   &kWriteCalls,  &kWriteNew,    &kWriteNewCalls}) {
        session.prepare(statement->name, statement->sql);
    }
}

}  // namespace heddle::storage::postgres
