#include "engine/storage/sqlite/tables.hpp"

#include <chrono>

#include "engine/storage/sqlite/rows.hpp"

namespace heddle::storage::sqlite {
namespace {

constexpr const char* kPurgeEngines = "DELETE FROM engines WHERE heartbeat_at < ?1";
constexpr const char* kRegisterEngine =
    "INSERT INTO engines (engine_id, endpoint, heartbeat_at, draining) VALUES (?1, ?2, ?3, ?4) "
    "ON CONFLICT (engine_id) DO UPDATE SET endpoint = excluded.endpoint, "
    "heartbeat_at = excluded.heartbeat_at, draining = excluded.draining";
constexpr const char* kHeartbeat =
    "UPDATE engines SET heartbeat_at = ?1, draining = ?2 "
    "WHERE engine_id = ?3 AND heartbeat_at BETWEEN ?4 AND ?5";
constexpr const char* kFindEngine = "SELECT 1 FROM engines WHERE engine_id = ?1";
constexpr const char* kUnregisterEngine = "DELETE FROM engines WHERE engine_id = ?1";
constexpr const char* kFindLiveEngine =
    "SELECT endpoint FROM engines WHERE engine_id = ?1 AND heartbeat_at BETWEEN ?2 AND ?3";

constexpr const char* kFindForClaim =
    "SELECT " HEDDLE_SQLITE_THREAD_COLUMNS ", epoch, owner FROM threads WHERE thread_id = ?1";
constexpr const char* kCreateThread =
    "INSERT INTO threads (thread_id, owner, epoch, status, head_seq, created_at, updated_at, "
    "metadata, interrupts, ttl, ttl_strategy, expires_at) "
    "VALUES (?1, ?2, 1, 0, -1, ?3, ?3, ?4, '{}', ?5, ?6, ?3 + ?5)";
constexpr const char* kTakeThread =
    "UPDATE threads SET owner = ?1, epoch = epoch + 1 WHERE thread_key = ?2";
constexpr const char* kOpenRuns = "SELECT " HEDDLE_SQLITE_RUN_COLUMNS
                                  " FROM runs WHERE thread_key = ?1 AND status < 2 "
                                  "ORDER BY created_at, run_id";

constexpr const char* kUpdateThread =
    "UPDATE threads SET updated_at = ?1, status = coalesce(?2, status), "
    "metadata = coalesce(?3, metadata), interrupts = coalesce(?4, interrupts), "
    "head_seq = coalesce(?5, head_seq), first_seq = min(first_seq, coalesce(?5, head_seq) + 1), "
    "owner = CASE ?6 WHEN 1 THEN NULL ELSE owner END, "
    // Moved on by a tenth of the time to live at least, or not at all: so it is seldom that a step
    // touches an index.
    "expires_at = CASE WHEN ttl IS NULL THEN NULL WHEN coalesce(expires_at, 0) < "
    "?1 + ttl - ttl / 10 THEN ?1 + ttl ELSE expires_at END "
    "WHERE thread_key = ?7 AND epoch = ?8 AND owner = ?9";
constexpr const char* kHasThread = "SELECT 1 FROM threads WHERE thread_key = ?1";
constexpr const char* kInsertJournal =
    "INSERT INTO journal (thread_key, seq, parent, base, checkpoint_id, run_id, step, created_at, "
    "head, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
constexpr const char* kInsertRun =
    "INSERT INTO runs (thread_key, run_id, assistant_id, status, attempt, created_at, updated_at, "
    "multitask_strategy, request_hash, error, metadata, kwargs) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
constexpr const char* kUpdateRun =
    "UPDATE runs SET status = ?1, attempt = ?2, error = ?3, updated_at = ?4 "
    "WHERE run_id = ?5 AND thread_key = ?6";
constexpr const char* kDeleteRun = "DELETE FROM runs WHERE run_id = ?1 AND thread_key = ?2";

constexpr const char* kPutToolCall =
    "INSERT OR REPLACE INTO tool_calls (thread_key, seq, task_id, number, run_id, answer) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
constexpr const char* kEndToolCalls = "DELETE FROM tool_calls WHERE thread_key = ?1 AND seq <= ?2";

constexpr const char* kDeleteThread =
    "DELETE FROM threads WHERE thread_key = ?1 AND epoch = ?2 AND owner = ?3 "
    "AND (?4 = 0 OR expires_at = ?4)";
constexpr const char* kDeleteJournal = "DELETE FROM journal WHERE thread_key = ?1";
constexpr const char* kRollBack = "DELETE FROM journal WHERE thread_key = ?1 AND seq > ?2";
constexpr const char* kDeleteRuns = "DELETE FROM runs WHERE thread_key = ?1";
constexpr const char* kDeleteToolCalls = "DELETE FROM tool_calls WHERE thread_key = ?1";
constexpr const char* kRollBackToolCalls =
    "DELETE FROM tool_calls WHERE thread_key = ?1 AND seq > ?2";

constexpr const char* kSetTtl =
    "UPDATE threads SET updated_at = ?1, ttl = ?2, ttl_strategy = ?3, "
    "expires_at = ?1 + max(?2, ?7) WHERE thread_key = ?4 AND epoch = ?5 AND owner = ?6";
constexpr const char* kSetFirst =
    "UPDATE threads SET first_seq = max(first_seq, ?1), "
    "expires_at = CASE ?2 WHEN 1 THEN NULL ELSE expires_at END "
    "WHERE thread_key = ?3 AND epoch = ?4 AND owner = ?5";
constexpr const char* kSetSnapshot =
    "UPDATE journal SET data = ?1 WHERE thread_key = ?2 AND seq = ?3";
constexpr const char* kPruneJournal = "DELETE FROM journal WHERE thread_key = ?1 AND seq < ?2";
constexpr const char* kPruneRuns =
    "DELETE FROM runs WHERE thread_key = ?1 AND status >= 2 AND updated_at < ?2 AND run_id NOT IN "
    "(SELECT run_id FROM journal WHERE thread_key = ?1 AND seq >= ?3)";

constexpr const char* kFindKeyHolder =
    "SELECT thread_id, run_id, expires_at <= ?2 AND NOT EXISTS (SELECT 1 FROM runs "
    "WHERE runs.run_id = k.run_id AND status < 2) FROM idempotency_keys k WHERE key = ?1";
constexpr const char* kPutKey =
    "INSERT OR REPLACE INTO idempotency_keys (key, expires_at, thread_id, run_id) "
    "VALUES (?1, ?2, ?3, ?4)";
constexpr const char* kDeleteKeys =
    "DELETE FROM idempotency_keys WHERE key IN (SELECT key FROM idempotency_keys k "
    "WHERE expires_at <= ?1 AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = k.run_id "
    "AND status < 2) ORDER BY expires_at LIMIT ?2)";

void bind_ttl(Query& query, const std::optional<ThreadTtl>& ttl) {
    if (ttl) {
        query.bind(base::microseconds(ttl->after)).bind(static_cast<std::int64_t>(ttl->strategy));
    } else {
        query.bind_null().bind_null();
    }
}

}  // namespace

std::int64_t alive_since(const base::Clock& clock, base::Duration lease, std::int64_t& until) {
    const auto lease_us = base::microseconds(lease);
    const auto now = clock.unix_us();
    until = now + lease_us;
    return now - lease_us;
}

// ---- engines

void Tables::register_engine(const EngineRow& engine) {
    constexpr std::int64_t kKeptUs = 3'600'000'000;  // an hour: long gone, of no use to anybody
    const auto now = clock_.unix_us();
    Query{connection_, kPurgeEngines}.bind(now - kKeptUs).run();
    Query query{connection_, kRegisterEngine};
    query.bind(engine.id).bind(engine.endpoint).bind(now).bind(engine.draining ? 1 : 0).run();
}

Status Tables::heartbeat(const EngineId& engine, bool draining) {
    std::int64_t until = 0;
    const auto since = alive_since(clock_, lease_, until);
    Query query{connection_, kHeartbeat};
    query.bind(clock_.unix_us()).bind(draining ? 1 : 0).bind(engine).bind(since).bind(until);
    if (query.run() != 0) {
        return base::ok();
    }
    Query find{connection_, kFindEngine};
    if (!find.bind(engine).step()) {
        return base::Error{base::ErrorCode::not_found, "engine not found"};
    }
    return base::Error{base::ErrorCode::stale_epoch, "the engine's lease has passed"};
}

void Tables::unregister_engine(const EngineId& engine) {
    Query{connection_, kUnregisterEngine}.bind(engine).run();
}

// ---- ownership

std::optional<std::string> Tables::find_live_endpoint(const EngineId& owner) {
    std::int64_t until = 0;
    const auto since = alive_since(clock_, lease_, until);
    Query query{connection_, kFindLiveEngine};
    if (!query.bind(owner).bind(since).bind(until).step()) {
        return std::nullopt;
    }
    return query.text(0);
}

ThreadRow Tables::create_thread(const EngineId& engine, const ThreadClaim& claim) {
    ThreadRow row;
    row.id = claim.thread_id;
    row.metadata = claim.metadata;
    row.created_at_us = clock_.unix_us();
    row.updated_at_us = row.created_at_us;
    row.ttl = claim.ttl;
    row.expires_at_us = claim.ttl ? row.created_at_us + base::microseconds(claim.ttl->after) : 0;
    Query query{connection_, kCreateThread};
    query.bind(row.id).bind(engine).bind(row.created_at_us).bind(row.metadata);
    bind_ttl(query, claim.ttl);
    query.run();
    row.key = sqlite3_last_insert_rowid(connection_.handle());
    return row;
}

ClaimOutcome Tables::claim(const EngineId& engine, const ThreadClaim& claim) {
    ClaimOutcome outcome;
    {
        Query query{connection_, kFindForClaim};
        if (!query.bind(claim.thread_id).step()) {
            if (!claim.create_if_missing) {
                return outcome;
            }
            outcome.kind = ClaimOutcome::Kind::created;
            outcome.thread = create_thread(engine, claim);
            outcome.epoch = 1;
            return outcome;
        }
        outcome.thread = read_thread(query);
        outcome.epoch = query.integer(kThreadColumns) + 1;
        if (!query.is_null(kThreadColumns + 1)) {
            outcome.owner = EngineId{query.uuid(kThreadColumns + 1)};
        }
    }
    if (!outcome.owner.is_nil() && outcome.owner != engine) {
        if (auto endpoint = find_live_endpoint(outcome.owner)) {
            const auto owner = outcome.owner;
            outcome = ClaimOutcome{};
            outcome.kind = ClaimOutcome::Kind::owned_elsewhere;
            outcome.owner = owner;
            outcome.owner_endpoint = *std::move(endpoint);
            return outcome;
        }
    }
    outcome.owner = EngineId{};
    outcome.kind = ClaimOutcome::Kind::claimed;
    Query{connection_, kTakeThread}.bind(engine).bind(outcome.thread.key).run();
    Query runs{connection_, kOpenRuns};
    runs.bind(outcome.thread.key);
    while (runs.step()) {
        outcome.unfinished_runs.push_back(read_run(runs, claim.thread_id));
    }
    return outcome;
}

// ---- writing

Status Tables::refuse(ThreadKey key) {
    Query query{connection_, kHasThread};
    if (!query.bind(key).step()) {
        return base::Error{base::ErrorCode::not_found, "thread not found"};
    }
    return base::Error{base::ErrorCode::stale_epoch, "another engine has claimed the thread"};
}

bool Tables::update_thread(const EngineId& engine, const ThreadWrite& write) {
    Query query{connection_, kUpdateThread};
    query.bind(clock_.unix_us());
    if (write.status) {
        query.bind(static_cast<std::int64_t>(*write.status));
    } else {
        query.bind_null();
    }
    query.bind_optional(write.metadata).bind_optional(write.interrupts);
    if (write.rollback_to) {
        query.bind(*write.rollback_to);
    } else if (write.journal.empty()) {
        query.bind_null();
    } else {
        query.bind(write.journal.back().seq);
    }
    query.bind(write.release ? 1 : 0).bind(write.key).bind(write.epoch).bind(engine);
    return query.run() != 0;
}

void Tables::insert_journal(const ThreadWrite& write) {
    for (const auto& row : write.journal) {
        Query query{connection_, kInsertJournal};
        query.bind(write.key).bind(row.seq).bind(row.parent).bind(row.base);
        query.bind(row.checkpoint_id).bind(row.run_id).bind(row.step).bind(row.created_at_us);
        query.bind(row.head).bind_blob(row.data).run();
    }
}

void Tables::change_runs(const ThreadWrite& write) {
    for (const auto& run : write.new_runs) {
        Query query{connection_, kInsertRun};
        query.bind(write.key).bind(run.id).bind(run.assistant_id);
        query.bind(static_cast<std::int64_t>(run.status)).bind(run.attempt);
        query.bind(run.created_at_us).bind(run.updated_at_us).bind(run.multitask_strategy);
        query.bind_blob(run.request_hash).bind(run.error).bind(run.metadata).bind(run.kwargs).run();
    }
    for (const auto& update : write.run_updates) {
        Query query{connection_, kUpdateRun};
        query.bind(static_cast<std::int64_t>(update.status)).bind(update.attempt);
        query.bind(update.error).bind(clock_.unix_us()).bind(update.id).bind(write.key).run();
    }
    for (const auto& run : write.deleted_runs) {
        Query{connection_, kDeleteRun}.bind(run).bind(write.key).run();
    }
}

Status Tables::delete_thread(const EngineId& engine, const ThreadWrite& write) {
    Query query{connection_, kDeleteThread};
    query.bind(write.key).bind(write.epoch).bind(engine).bind(write.if_expires_at_us);
    if (query.run() == 0) {
        return refuse(write.key);
    }
    Query{connection_, kDeleteJournal}.bind(write.key).run();
    Query{connection_, kDeleteRuns}.bind(write.key).run();
    Query{connection_, kDeleteToolCalls}.bind(write.key).run();
    return base::ok();
}

void Tables::change_tool_calls(const ThreadWrite& write) {
    if (write.tool_calls_done != kNoSeq) {
        Query{connection_, kEndToolCalls}.bind(write.key).bind(write.tool_calls_done).run();
    }
    for (const auto& call : write.tool_calls) {
        Query query{connection_, kPutToolCall};
        query.bind(write.key).bind(call.seq).bind(call.task_id).bind(call.number);
        query.bind(call.run_id).bind_blob(call.answer).run();
    }
}

Status Tables::write(const EngineId& engine, const ThreadWrite& write) {
    if (write.delete_thread) {
        return delete_thread(engine, write);
    }
    if (write.ttl) {
        return set_ttl(engine, write);
    }
    if (write.prune) {
        return prune(engine, write);
    }
    if (!update_thread(engine, write)) {
        return refuse(write.key);
    }
    if (write.rollback_to) {
        Query{connection_, kRollBack}.bind(write.key).bind(*write.rollback_to).run();
        Query{connection_, kRollBackToolCalls}.bind(write.key).bind(*write.rollback_to).run();
    }
    insert_journal(write);
    change_runs(write);
    change_tool_calls(write);
    return base::ok();
}

Result<ThreadKey> Tables::create(const EngineId& engine,
                                 const ThreadClaim& claim,
                                 ThreadWrite first) {
    if (Query{connection_, kFindForClaim}.bind(claim.thread_id).step()) {
        return base::Error{base::ErrorCode::conflict, "the thread exists"};
    }
    first.key = create_thread(engine, claim).key;
    first.epoch = 1;
    auto written = write(engine, first);
    if (!written) {
        return std::move(written).error();
    }
    return first.key;
}

// ---- retention

Status Tables::set_ttl(const EngineId& engine, const ThreadWrite& write) {
    Query query{connection_, kSetTtl};
    query.bind(clock_.unix_us());
    bind_ttl(query, write.ttl);
    query.bind(write.key).bind(write.epoch).bind(engine);
    if (query.bind(base::microseconds(write.ttl_kept)).run() == 0) {
        return refuse(write.key);
    }
    return base::ok();
}

Status Tables::prune(const EngineId& engine, const ThreadWrite& write) {
    const auto& prune = *write.prune;
    Query query{connection_, kSetFirst};
    query.bind(prune.first).bind(prune.stop_ttl ? 1 : 0);
    if (query.bind(write.key).bind(write.epoch).bind(engine).run() == 0) {
        return refuse(write.key);
    }
    if (!prune.snapshot.empty()) {
        Query snapshot{connection_, kSetSnapshot};
        snapshot.bind_blob(prune.snapshot).bind(write.key).bind(prune.first).run();
    }
    Query{connection_, kPruneJournal}.bind(write.key).bind(prune.delete_below).run();
    const auto since = clock_.unix_us() - base::microseconds(prune.runs_kept);
    Query{connection_, kPruneRuns}.bind(write.key).bind(since).bind(prune.first).run();
    return base::ok();
}

KeyHolder Tables::claim_key(const KeyClaim& claim) {
    const auto now = clock_.unix_us();
    {
        Query query{connection_, kFindKeyHolder};
        if (query.bind_blob(claim.key).bind(now).step() && query.integer(2) == 0) {
            return KeyHolder{ThreadId{query.uuid(0)}, RunId{query.uuid(1)}, false};
        }
    }
    Query query{connection_, kPutKey};
    query.bind_blob(claim.key).bind(now + base::microseconds(claim.kept));
    query.bind(claim.thread).bind(claim.run).run();
    return KeyHolder{claim.thread, claim.run, true};
}

std::int32_t Tables::delete_expired_keys(std::int32_t limit) {
    return Query{connection_, kDeleteKeys}.bind(clock_.unix_us()).bind(limit).run();
}

}  // namespace heddle::storage::sqlite
