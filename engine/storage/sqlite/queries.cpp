#include "engine/storage/sqlite/queries.hpp"

#include <algorithm>
#include <limits>

#include "engine/storage/sqlite/rows.hpp"
#include "engine/storage/sqlite/tables.hpp"

namespace heddle::storage::sqlite {
namespace {

// One view of the database for all statements of an operation.
class Snapshot {
public:
    explicit Snapshot(Connection& connection) : connection_{connection} {
        connection_.execute("BEGIN");
    }
    ~Snapshot() {
        if (!connection_.is_idle()) {
            sqlite3_exec(connection_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
        }
    }
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;

private:
    Connection& connection_;
};

constexpr const char* kListEngines =
    "SELECT engine_id, endpoint, draining FROM engines WHERE heartbeat_at BETWEEN ?1 AND ?2 "
    "ORDER BY engine_id";
constexpr const char* kFindOrphans =
    "SELECT thread_id FROM threads t WHERE thread_key IN "
    "(SELECT thread_key FROM runs WHERE status < 2) AND NOT EXISTS (SELECT 1 FROM engines e "
    "WHERE e.engine_id = t.owner AND e.heartbeat_at BETWEEN ?1 AND ?2) LIMIT ?3";
constexpr const char* kFindExpired =
    "SELECT thread_key, thread_id, epoch, owner IS ?1, ttl_strategy, expires_at, "
    "head_seq - first_seq + 1 FROM threads t "
    "WHERE expires_at <= ?2 AND (owner IS NULL OR owner = ?1 OR NOT EXISTS (SELECT 1 FROM engines "
    "e "
    "WHERE e.engine_id = t.owner AND e.heartbeat_at BETWEEN ?3 AND ?4)) AND NOT EXISTS "
    "(SELECT 1 FROM runs r WHERE r.thread_key = t.thread_key AND r.status < 2) "
    "ORDER BY expires_at LIMIT ?5";
constexpr const char* kLoadThread =
    "SELECT " HEDDLE_SQLITE_THREAD_COLUMNS " FROM threads WHERE thread_id = ?1";
constexpr const char* kThreadOfKey = "SELECT thread_id FROM threads WHERE thread_key = ?1";
constexpr const char* kFindKey =
    "SELECT thread_key, head_seq, first_seq FROM threads WHERE thread_id = ?1";
constexpr const char* kFindBase = "SELECT base FROM journal WHERE thread_key = ?1 AND seq = ?2";
constexpr const char* kFindCheckpoint =
    "SELECT seq FROM journal WHERE thread_key = ?1 AND checkpoint_id = ?2 ORDER BY seq DESC "
    "LIMIT 1";
constexpr const char* kLoadChain = "SELECT " HEDDLE_SQLITE_JOURNAL_COLUMNS
                                   ", data FROM journal WHERE thread_key = ?1 AND "
                                   "seq BETWEEN ?2 AND ?3 ORDER BY seq";
constexpr const char* kListJournal = "SELECT " HEDDLE_SQLITE_JOURNAL_COLUMNS
                                     " FROM journal WHERE thread_key = ?1 AND seq < ?2 "
                                     "AND seq >= ?4 ORDER BY seq DESC LIMIT ?3";
constexpr const char* kLoadToolCalls =
    "SELECT seq, task_id, number, run_id, answer FROM tool_calls WHERE thread_key = "
    "(SELECT thread_key FROM threads WHERE thread_id = ?1) AND seq = ?2 ORDER BY task_id, number";
constexpr const char* kFindRun =
    "SELECT " HEDDLE_SQLITE_RUN_COLUMNS ", thread_key FROM runs WHERE run_id = ?1";
constexpr const char* kListRuns = "SELECT " HEDDLE_SQLITE_RUN_COLUMNS
                                  " FROM runs WHERE thread_key = ?1 AND (?2 < 0 OR status = ?2) "
                                  "ORDER BY created_at DESC, run_id DESC LIMIT ?3 OFFSET ?4";

base::Error not_found(const char* what) {
    return base::Error{base::ErrorCode::not_found, std::string{what} + " not found"};
}

struct Found {
    ThreadKey key;
    Seq head;
    Seq first;  ///< what is older has been pruned
};
std::optional<Found> find_key(Connection& connection, const ThreadId& thread) {
    Query query{connection, kFindKey};
    if (!query.bind(thread).step()) {
        return std::nullopt;
    }
    return Found{query.integer(0), query.integer(1), query.integer(2)};
}

Result<std::vector<JournalRow>> read_chain(Connection& connection, const Found& thread, Seq at) {
    Query find{connection, kFindBase};
    if (at < thread.first || !find.bind(thread.key).bind(at).step()) {
        return not_found("checkpoint");
    }
    std::vector<JournalRow> rows;
    Query query{connection, kLoadChain};
    query.bind(thread.key).bind(std::max(find.integer(0), thread.first)).bind(at);
    while (query.step()) {
        rows.push_back(read_journal(query));
        rows.back().base = std::max(rows.back().base, thread.first);
        rows.back().data = query.text(kJournalColumns);
    }
    return rows;
}

// The conditions of a filter; bind_conditions() binds in the same order.
std::string conditions(const ThreadFilter& filter) {
    std::string sql = " WHERE ttl_strategy IS NOT 2";  // temporary
    if (!filter.ids.empty()) {
        sql += " AND thread_id IN (?";
        for (std::size_t i = 1; i < filter.ids.size(); ++i) {
            sql += ",?";
        }
        sql += ")";
    }
    if (filter.status) {
        sql += " AND status = ?";
    }
    if (!filter.metadata_contains.empty()) {
        sql += " AND heddle_json_contains(metadata, ?)";
    }
    return sql;
}

void bind_conditions(Query& query, const ThreadFilter& filter) {
    for (const auto& id : filter.ids) {
        query.bind(id);
    }
    if (filter.status) {
        query.bind(static_cast<std::int64_t>(*filter.status));
    }
    if (!filter.metadata_contains.empty()) {
        query.bind(filter.metadata_contains);
    }
}

std::string_view column_of(ThreadFilter::SortBy by) {
    switch (by) {
        case ThreadFilter::SortBy::thread_id:
            return "thread_id";
        case ThreadFilter::SortBy::status:
            return "status";
        case ThreadFilter::SortBy::created_at:
            return "created_at";
        case ThreadFilter::SortBy::updated_at:
            return "updated_at";
    }
    return "created_at";
}

}  // namespace

std::vector<EngineRow> list_engines(Connection& connection,
                                    const base::Clock& clock,
                                    base::Duration lease) {
    std::int64_t until = 0;
    const auto since = alive_since(clock, lease, until);
    Query query{connection, kListEngines};
    query.bind(since).bind(until);
    std::vector<EngineRow> rows;
    while (query.step()) {
        rows.push_back(EngineRow{EngineId{query.uuid(0)}, query.text(1), query.integer(2) != 0});
    }
    return rows;
}

std::vector<ThreadId> find_orphans(Connection& connection,
                                   const base::Clock& clock,
                                   base::Duration lease,
                                   std::int32_t limit) {
    std::int64_t until = 0;
    const auto since = alive_since(clock, lease, until);
    Query query{connection, kFindOrphans};
    query.bind(since).bind(until).bind(limit);
    std::vector<ThreadId> threads;
    while (query.step()) {
        threads.push_back(ThreadId{query.uuid(0)});
    }
    return threads;
}

std::vector<ExpiredThread> find_expired(Connection& connection,
                                        const EngineId& engine,
                                        const base::Clock& clock,
                                        base::Duration lease,
                                        std::int32_t limit) {
    std::int64_t until = 0;
    const auto since = alive_since(clock, lease, until);
    Query query{connection, kFindExpired};
    query.bind(engine).bind(clock.unix_us()).bind(since).bind(until).bind(limit);
    std::vector<ExpiredThread> found;
    while (query.step()) {
        found.push_back({query.integer(0), ThreadId{query.uuid(1)}, query.integer(2),
                         query.integer(3) != 0, static_cast<TtlStrategy>(query.integer(4)),
                         query.integer(5), query.integer(6)});
    }
    return found;
}

Result<ThreadRow> load_thread(Connection& connection, const ThreadId& thread) {
    Query query{connection, kLoadThread};
    if (!query.bind(thread).step()) {
        return not_found("thread");
    }
    return read_thread(query);
}

Result<std::vector<JournalRow>> load_chain(Connection& connection, const ThreadId& thread, Seq at) {
    const Snapshot snapshot{connection};
    const auto found = find_key(connection, thread);
    if (!found) {
        return not_found("thread");
    }
    if (at == kNoSeq && found->head == kNoSeq) {
        return std::vector<JournalRow>{};
    }
    return read_chain(connection, *found, at == kNoSeq ? found->head : at);
}

Result<std::vector<JournalRow>> load_chain_of(Connection& connection,
                                              const ThreadId& thread,
                                              const CheckpointId& checkpoint) {
    const Snapshot snapshot{connection};
    const auto found = find_key(connection, thread);
    if (!found) {
        return not_found("thread");
    }
    Query query{connection, kFindCheckpoint};
    if (!query.bind(found->key).bind(checkpoint).step()) {
        return not_found("checkpoint");
    }
    return read_chain(connection, *found, query.integer(0));
}

Result<std::vector<JournalRow>> list_journal(Connection& connection,
                                             const ThreadId& thread,
                                             Seq before,
                                             std::int32_t limit) {
    const Snapshot snapshot{connection};
    const auto found = find_key(connection, thread);
    if (!found) {
        return not_found("thread");
    }
    const Seq end = before == kNoSeq ? std::numeric_limits<Seq>::max() : before;
    Query query{connection, kListJournal};
    query.bind(found->key).bind(end).bind(limit).bind(found->first);
    std::vector<JournalRow> rows;
    while (query.step()) {
        rows.push_back(read_journal(query));
        rows.back().base = std::max(rows.back().base, found->first);
    }
    return rows;
}

std::vector<ToolCallRow> load_tool_calls(Connection& connection, const ThreadId& thread, Seq seq) {
    Query query{connection, kLoadToolCalls};
    query.bind(thread).bind(seq);
    std::vector<ToolCallRow> rows;
    while (query.step()) {
        ToolCallRow row;
        row.seq = query.integer(0);
        row.task_id = query.uuid(1);
        row.number = static_cast<std::int32_t>(query.integer(2));
        row.run_id = RunId{query.uuid(3)};
        row.answer = query.text(4);
        rows.push_back(std::move(row));
    }
    return rows;
}

Result<RunRow> load_run(Connection& connection, const ThreadId& thread, const RunId& run) {
    const Snapshot snapshot{connection};
    const auto found = find_key(connection, thread);
    if (!found) {
        return not_found("thread");
    }
    Query query{connection, kFindRun};
    if (!query.bind(run).step() || query.integer(kRunColumns) != found->key) {
        return not_found("run");
    }
    return read_run(query, thread);
}

Result<RunRow> find_run(Connection& connection, const RunId& run) {
    const Snapshot snapshot{connection};
    Query query{connection, kFindRun};
    if (!query.bind(run).step()) {
        return not_found("run");
    }
    Query thread{connection, kThreadOfKey};
    if (!thread.bind(query.integer(kRunColumns)).step()) {
        return not_found("run");
    }
    return read_run(query, ThreadId{thread.uuid(0)});
}

Result<std::vector<RunRow>> list_runs(Connection& connection,
                                      const ThreadId& thread,
                                      const RunFilter& filter) {
    const Snapshot snapshot{connection};
    const auto found = find_key(connection, thread);
    if (!found) {
        return not_found("thread");
    }
    Query query{connection, kListRuns};
    query.bind(found->key).bind(filter.status ? static_cast<std::int64_t>(*filter.status) : -1);
    query.bind(filter.limit).bind(filter.offset);
    std::vector<RunRow> rows;
    while (query.step()) {
        rows.push_back(read_run(query, thread));
    }
    return rows;
}

std::vector<ThreadRow> search_threads(Connection& connection, const ThreadFilter& filter) {
    const std::string_view order = filter.ascending ? " ASC" : " DESC";
    std::string sql = "SELECT " HEDDLE_SQLITE_THREAD_COLUMNS " FROM threads";
    sql += conditions(filter);
    sql.append(" ORDER BY ").append(column_of(filter.sort_by)).append(order);
    sql.append(", thread_id").append(order).append(" LIMIT ? OFFSET ?");
    Query query{connection, sql};
    bind_conditions(query, filter);
    query.bind(filter.limit).bind(filter.offset);
    std::vector<ThreadRow> rows;
    while (query.step()) {
        rows.push_back(read_thread(query));
    }
    return rows;
}

std::int64_t count_threads(Connection& connection, const ThreadFilter& filter) {
    Query query{connection,
                "SELECT count(*) FROM (SELECT 1 FROM threads" + conditions(filter) + " LIMIT ?)"};
    bind_conditions(query, filter);
    query.bind(filter.count_max);
    return query.step() ? query.integer(0) : 0;
}

}  // namespace heddle::storage::sqlite
