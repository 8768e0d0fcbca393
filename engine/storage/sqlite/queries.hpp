#pragma once

#include "engine/storage/sqlite/connection.hpp"
#include "engine/storage/store.hpp"

/// The reading operations of the port, each in one read transaction of its own, on a reader's
/// connection. They throw SqliteError.
namespace heddle::storage::sqlite {

std::vector<EngineRow> list_engines(Connection& connection,
                                    const base::Clock& clock,
                                    base::Duration lease);
std::vector<ThreadId> find_orphans(Connection& connection,
                                   const base::Clock& clock,
                                   base::Duration lease,
                                   std::int32_t limit);
std::vector<ExpiredThread> find_expired(Connection& connection,
                                        const EngineId& engine,
                                        const base::Clock& clock,
                                        base::Duration lease,
                                        std::int32_t limit);
Result<ThreadRow> load_thread(Connection& connection, const ThreadId& thread);
Result<std::vector<JournalRow>> load_chain(Connection& connection, const ThreadId& thread, Seq at);
Result<std::vector<JournalRow>> load_chain_of(Connection& connection,
                                              const ThreadId& thread,
                                              const CheckpointId& checkpoint);
Result<std::vector<JournalRow>> list_journal(Connection& connection,
                                             const ThreadId& thread,
                                             Seq before,
                                             std::int32_t limit);
std::vector<ToolCallRow> load_tool_calls(Connection& connection, const ThreadId& thread, Seq seq);
Result<RunRow> load_run(Connection& connection, const ThreadId& thread, const RunId& run);
Result<RunRow> find_run(Connection& connection, const RunId& run);
Result<std::vector<RunRow>> list_runs(Connection& connection,
                                      const ThreadId& thread,
                                      const RunFilter& filter);
std::vector<ThreadRow> search_threads(Connection& connection, const ThreadFilter& filter);
std::int64_t count_threads(Connection& connection, const ThreadFilter& filter);

}  // namespace heddle::storage::sqlite
