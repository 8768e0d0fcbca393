#pragma once

#include <optional>

#include "engine/storage/postgres/connection.hpp"
#include "engine/storage/store.hpp"

/// The operations of the port that read, one round trip each.
namespace heddle::storage::postgres {

/// Nothing if the connection was lost: the caller repeats it on another one.
template <class T>
using Answer = std::optional<Result<T>>;

Answer<std::vector<ThreadId>> find_orphans(Connection& connection,
                                           const EngineId& engine,
                                           base::Duration lease,
                                           std::int32_t limit,
                                           base::Instant deadline);
Answer<std::vector<ExpiredThread>> find_expired(Connection& connection,
                                                const EngineId& engine,
                                                base::Duration lease,
                                                std::int32_t limit,
                                                base::Instant deadline);
Answer<KeyHolder> claim_key(Connection& connection, const KeyClaim& claim, base::Instant deadline);
Answer<std::int32_t> delete_expired_keys(Connection& connection,
                                         std::int32_t limit,
                                         base::Instant deadline);
Answer<ThreadRow> load_thread(Connection& connection,
                              const ThreadId& thread,
                              base::Instant deadline);
Answer<std::vector<JournalRow>> load_chain(Connection& connection,
                                           const ThreadId& thread,
                                           Seq at,
                                           base::Instant deadline);
Answer<std::optional<StateRows>> load_newest(Connection& connection,
                                             const ThreadId& thread,
                                             base::Instant deadline);
Answer<std::vector<JournalRow>> load_chain_of(Connection& connection,
                                              const ThreadId& thread,
                                              const CheckpointId& checkpoint,
                                              base::Instant deadline);
Answer<std::vector<JournalRow>> list_journal(Connection& connection,
                                             const ThreadId& thread,
                                             Seq before,
                                             std::int32_t limit,
                                             base::Instant deadline);
Answer<std::vector<ToolCallRow>> load_tool_calls(Connection& connection,
                                                 const ThreadId& thread,
                                                 Seq seq,
                                                 base::Instant deadline);
Answer<RunRow> load_run(Connection& connection,
                        const ThreadId& thread,
                        const RunId& run,
                        base::Instant deadline);
Answer<RunRow> find_run(Connection& connection, const RunId& run, base::Instant deadline);
Answer<std::vector<RunRow>> list_runs(Connection& connection,
                                      const ThreadId& thread,
                                      const RunFilter& filter,
                                      base::Instant deadline);
Answer<std::vector<ThreadRow>> search_threads(Connection& connection,
                                              const ThreadFilter& filter,
                                              base::Instant deadline);
Answer<std::int64_t> count_threads(Connection& connection,
                                   const ThreadFilter& filter,
                                   base::Instant deadline);

}  // namespace heddle::storage::postgres
