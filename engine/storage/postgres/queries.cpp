#include "engine/storage/postgres/queries.hpp"

#include <charconv>
#include <chrono>
#include <limits>

#include "engine/observe/log.hpp"
#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statements.hpp"
#include "engine/storage/state_rows.hpp"

namespace heddle::storage::postgres {
namespace {

base::Error not_found(const char* what) {
    return base::Error{base::ErrorCode::not_found, std::string{what} + " not found"};
}

// Turns what came back into the answer. Only `body` knows the columns; a value that is not what the
// column promises is a bug of ours.
template <class T, class Body>
Answer<T> answer(Executed executed, Body body) try {
    if (executed.fate == Fate::lost) {
        return std::nullopt;
    }
    if (executed.fate != Fate::done) {
        return Result<T>{error_of(executed.fate)};
    }
    return Result<T>{body(executed.rows)};
} catch (const std::exception& error) {
    observe::log(observe::LogLevel::error, "postgres", "unreadable row: {}", error.what());
    return Result<T>{error_of(Fate::internal)};
}

Result<std::vector<JournalRow>> read_chain(const Rows& rows, bool is_of_head) {
    if (rows.empty()) {
        return not_found("thread");
    }
    if (rows[0][0].is_null()) {
        constexpr int kHead = kJournalColumns + 1;
        if (is_of_head && rows[0][kHead].as<Seq>() == kNoSeq) {
            return std::vector<JournalRow>{};
        }
        return not_found("checkpoint");
    }
    std::vector<JournalRow> chain;
    for (const auto row : rows) {
        chain.push_back(read_journal(row));
        chain.back().data = read_bytea(row[kJournalColumns]);
    }
    return chain;
}

Result<std::optional<StateRows>> read_newest(const Rows& rows) {
    if (rows.empty()) {
        return not_found("thread");
    }
    const auto row = rows[0];
    if (row[0].is_null()) {
        return std::optional<StateRows>{};
    }
    constexpr int kParent = kJournalColumns;
    constexpr int kData = kJournalColumns + 1;
    constexpr int kSizes = kJournalColumns + 2;
    StateRows found;
    found.newest = read_journal(row);
    found.first = found.newest.base;
    found.parent = CheckpointId{read_uuid(row[kParent])};
    found.data = read_text(row[kData]);
    const auto sizes = row[kSizes].text();
    const char* at = sizes.data();
    const char* const end = at + sizes.size();
    std::size_t total = 0;
    while (at != end) {
        ++at;  // the brace or comma before it
        std::size_t size = 0;
        const auto read = std::from_chars(at, end, size);
        if (read.ec != std::errc{}) {
            break;
        }
        total += size;
        found.ends.push_back(total);
        at = read.ptr;
    }
    if (total != found.data.size()) {
        return error_of(Fate::internal);
    }
    return std::optional<StateRows>{std::move(found)};
}

// The conditions of a filter as text and their values as parameters, in the same order.
std::string conditions(const ThreadFilter& filter, Parameters& parameters) {
    // Temporary threads are not for others to see.
    std::string sql = " WHERE t.ttl_strategy IS DISTINCT FROM 2";
    const auto next = [&parameters] { return "$" + std::to_string(parameters.size()); };
    if (!filter.ids.empty()) {
        BinaryArray ids{ElementType::uuid};
        for (const auto& id : filter.ids) {
            ids.add(id);
        }
        parameters.add(std::move(ids));
        sql += " AND t.thread_id = ANY (" + next() + "::uuid[])";
    }
    if (filter.status) {
        parameters.add(static_cast<std::int64_t>(*filter.status));
        sql += " AND t.status = " + next() + "::int8";
    }
    if (!filter.metadata_contains.empty()) {
        parameters.add_bytes(filter.metadata_contains);
        sql += " AND t.metadata @> " + next() + "::text::jsonb";
    }
    return sql;
}

std::string_view column_of(ThreadFilter::SortBy by) {
    switch (by) {
        case ThreadFilter::SortBy::thread_id:
            return "t.thread_id";
        case ThreadFilter::SortBy::status:
            return "t.status";
        case ThreadFilter::SortBy::created_at:
            return "t.created_at";
        case ThreadFilter::SortBy::updated_at:
            return "t.updated_at";
    }
    return "t.created_at";
}

}  // namespace

Answer<std::vector<ThreadId>> find_orphans(Connection& connection,
                                           const EngineId& engine,
                                           base::Duration lease,
                                           std::int32_t limit,
                                           base::Instant deadline) {
    // What a stopped engine keeps locked would be skipped below, for as long as it is stopped.
    if (connection.evict(deadline).fate == Fate::lost) {
        return std::nullopt;
    }
    Parameters parameters;
    parameters.add(engine).add(base::microseconds(lease));
    parameters.add(limit);
    return answer<std::vector<ThreadId>>(connection.execute(kFindOrphans, parameters, deadline),
                                         [](const Rows& rows) {
                                             std::vector<ThreadId> threads;
                                             for (const auto row : rows) {
                                                 threads.push_back(ThreadId{read_uuid(row[0])});
                                             }
                                             return threads;
                                         });
}

Answer<std::vector<ExpiredThread>> find_expired(Connection& connection,
                                                const EngineId& engine,
                                                base::Duration lease,
                                                std::int32_t limit,
                                                base::Instant deadline) {
    Parameters parameters;
    parameters.add(engine);
    parameters.add(base::microseconds(lease));
    parameters.add(limit);
    return answer<std::vector<ExpiredThread>>(
        connection.execute(kFindExpired, parameters, deadline), [](const Rows& rows) {
            std::vector<ExpiredThread> found;
            for (const auto row : rows) {
                found.push_back({row[0].as<ThreadKey>(), ThreadId{read_uuid(row[1])},
                                 row[2].as<Epoch>(), row[3].as<bool>(),
                                 static_cast<TtlStrategy>(row[4].as<int>()),
                                 row[5].as<std::int64_t>(), row[6].as<Seq>()});
            }
            return found;
        });
}

Answer<KeyHolder> claim_key(Connection& connection, const KeyClaim& claim, base::Instant deadline) {
    Parameters parameters;
    parameters.add_bytes(claim.key).add(claim.thread).add(claim.run);
    parameters.add(base::microseconds(claim.kept));
    for (;;) {
        auto executed = connection.execute(kClaimKey, parameters, deadline);
        const bool again =
            executed.fate == Fate::retry || (executed.fate == Fate::done && executed.rows.empty());
        if (again && base::system_clock().now() < deadline) {
            continue;
        }
        return answer<KeyHolder>(
            std::move(executed), [&claim](const Rows& rows) -> Result<KeyHolder> {
                if (rows.empty()) {
                    return error_of(Fate::timeout);
                }
                const RunId run{read_uuid(rows[0][1])};
                return KeyHolder{ThreadId{read_uuid(rows[0][0])}, run, run == claim.run};
            });
    }
}

Answer<std::int32_t> delete_expired_keys(Connection& connection,
                                         std::int32_t limit,
                                         base::Instant deadline) {
    return answer<std::int32_t>(
        connection.execute(kDeleteExpiredKeys, Parameters{}.add(limit), deadline),
        [](const Rows& rows) { return rows[0][0].as<std::int32_t>(); });
}

Answer<ThreadRow> load_thread(Connection& connection,
                              const ThreadId& thread,
                              base::Instant deadline) {
    return answer<ThreadRow>(connection.execute(kLoadThread, Parameters{}.add(thread), deadline),
                             [](const Rows& rows) -> Result<ThreadRow> {
                                 if (rows.empty()) {
                                     return not_found("thread");
                                 }
                                 return read_thread(rows[0]);
                             });
}

Answer<std::vector<JournalRow>> load_chain(Connection& connection,
                                           const ThreadId& thread,
                                           Seq at,
                                           base::Instant deadline) {
    return answer<std::vector<JournalRow>>(
        connection.execute(kLoadChain, Parameters{}.add(thread).add(at), deadline),
        [at](const Rows& rows) { return read_chain(rows, at == kNoSeq); });
}

Answer<std::optional<StateRows>> load_newest(Connection& connection,
                                             const ThreadId& thread,
                                             base::Instant deadline) {
    auto executed = connection.execute(kLoadNewest, Parameters{}.add(thread), deadline);
    if (executed.fate == Fate::bad_data) {
        // Not all of it is text, or it is too much for one value.
        auto chain = load_chain(connection, thread, kNoSeq, deadline);
        if (!chain) {
            return std::nullopt;
        }
        return gather(*chain);
    }
    return answer<std::optional<StateRows>>(std::move(executed), read_newest);
}

Answer<std::vector<JournalRow>> load_chain_of(Connection& connection,
                                              const ThreadId& thread,
                                              const CheckpointId& checkpoint,
                                              base::Instant deadline) {
    return answer<std::vector<JournalRow>>(
        connection.execute(kLoadChainOf, Parameters{}.add(thread).add(checkpoint), deadline),
        [](const Rows& rows) { return read_chain(rows, false); });
}

Answer<std::vector<JournalRow>> list_journal(Connection& connection,
                                             const ThreadId& thread,
                                             Seq before,
                                             std::int32_t limit,
                                             base::Instant deadline) {
    const Seq end = before == kNoSeq ? std::numeric_limits<Seq>::max() : before;
    return answer<std::vector<JournalRow>>(
        connection.execute(kListJournal, Parameters{}.add(thread).add(end).add(limit), deadline),
        [](const Rows& rows) -> Result<std::vector<JournalRow>> {
            if (rows.empty()) {
                return not_found("thread");
            }
            std::vector<JournalRow> journal;
            if (rows[0][0].is_null()) {
                return journal;
            }
            for (const auto row : rows) {
                journal.push_back(read_journal(row));
            }
            return journal;
        });
}

Answer<std::vector<ToolCallRow>> load_tool_calls(Connection& connection,
                                                 const ThreadId& thread,
                                                 Seq seq,
                                                 base::Instant deadline) {
    return answer<std::vector<ToolCallRow>>(
        connection.execute(kLoadCalls, Parameters{}.add(thread).add(seq), deadline),
        [](const Rows& rows) {
            std::vector<ToolCallRow> calls;
            for (const auto row : rows) {
                calls.push_back(read_tool_call(row));
            }
            return calls;
        });
}

Answer<RunRow> load_run(Connection& connection,
                        const ThreadId& thread,
                        const RunId& run,
                        base::Instant deadline) {
    return answer<RunRow>(connection.execute(kLoadRun, Parameters{}.add(thread).add(run), deadline),
                          [&thread](const Rows& rows) -> Result<RunRow> {
                              if (rows.empty()) {
                                  return not_found("thread");
                              }
                              if (rows[0][0].is_null()) {
                                  return not_found("run");
                              }
                              return read_run(rows[0], thread);
                          });
}

Answer<RunRow> find_run(Connection& connection, const RunId& run, base::Instant deadline) {
    return answer<RunRow>(connection.execute(kFindRun, Parameters{}.add(run), deadline),
                          [](const Rows& rows) -> Result<RunRow> {
                              if (rows.empty()) {
                                  return not_found("run");
                              }
                              return read_run(rows[0], ThreadId{read_uuid(rows[0][kRunColumns])});
                          });
}

Answer<std::vector<RunRow>> list_runs(Connection& connection,
                                      const ThreadId& thread,
                                      const RunFilter& filter,
                                      base::Instant deadline) {
    Parameters parameters;
    parameters.add(thread);
    parameters.add(filter.status ? static_cast<std::int64_t>(*filter.status) : -1);
    parameters.add(filter.limit).add(filter.offset);
    return answer<std::vector<RunRow>>(connection.execute(kListRuns, parameters, deadline),
                                       [&thread](const Rows& rows) -> Result<std::vector<RunRow>> {
                                           if (rows.empty()) {
                                               return not_found("thread");
                                           }
                                           std::vector<RunRow> runs;
                                           if (rows[0][0].is_null()) {
                                               return runs;
                                           }
                                           for (const auto row : rows) {
                                               runs.push_back(read_run(row, thread));
                                           }
                                           return runs;
                                       });
}

Answer<std::vector<ThreadRow>> search_threads(Connection& connection,
                                              const ThreadFilter& filter,
                                              base::Instant deadline) {
    const std::string_view order = filter.ascending ? " ASC" : " DESC";
    Parameters parameters;
    std::string sql = "SELECT " HEDDLE_PG_THREAD " FROM threads t";
    sql += conditions(filter, parameters);
    sql.append(" ORDER BY ").append(column_of(filter.sort_by)).append(order);
    sql.append(", t.thread_id").append(order);
    parameters.add(filter.limit).add(filter.offset);
    const auto last = parameters.size();
    sql += " LIMIT $" + std::to_string(last - 1) + "::int8 OFFSET $" + std::to_string(last);
    sql += "::int8";
    return answer<std::vector<ThreadRow>>(connection.execute_text(sql, parameters, deadline),
                                          [](const Rows& rows) {
                                              std::vector<ThreadRow> threads;
                                              for (const auto row : rows) {
                                                  threads.push_back(read_thread(row));
                                              }
                                              return threads;
                                          });
}

Answer<std::int64_t> count_threads(Connection& connection,
                                   const ThreadFilter& filter,
                                   base::Instant deadline) {
    Parameters parameters;
    auto sql = "SELECT count(*) FROM (SELECT 1 FROM threads t" + conditions(filter, parameters);
    parameters.add(filter.count_max);
    sql += " LIMIT $" + std::to_string(parameters.size()) + "::int8) counted";
    return answer<std::int64_t>(connection.execute_text(sql, parameters, deadline),
                                [](const Rows& rows) { return rows[0][0].as<std::int64_t>(); });
}

}  // namespace heddle::storage::postgres
