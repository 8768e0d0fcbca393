#pragma once

#include <map>
#include <mutex>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "engine/base/clock.hpp"
#include "engine/storage/store.hpp"

namespace heddle::storage::memory {

/// The tables, and what each operation of the port means on them; the plainest statement of the
/// contract. Any OS thread; one mutex, held for the length of one call.
class Database {
public:
    explicit Database(const base::Clock& clock) : clock_{clock} {}

    void register_engine(const EngineRow& engine);
    Status heartbeat(const EngineId& engine, bool draining, base::Duration lease);
    void unregister_engine(const EngineId& engine);
    std::vector<EngineRow> list_engines(base::Duration lease) const;

    Result<ClaimOutcome> claim(const EngineId& engine,
                               const ThreadClaim& claim,
                               base::Duration lease);
    std::vector<ThreadId> find_orphans(std::int32_t limit, base::Duration lease) const;
    Result<ThreadKey> create(const EngineId& engine, const ThreadClaim& claim, ThreadWrite first);
    Status write(const EngineId& engine, const ThreadWrite& write);

    std::vector<ExpiredThread> find_expired(const EngineId& engine,
                                            std::int32_t limit,
                                            base::Duration lease) const;
    KeyHolder claim_key(const KeyClaim& claim);
    std::int32_t delete_expired_keys(std::int32_t limit);

    Result<ThreadRow> load_thread(const ThreadId& thread) const;
    Result<std::vector<JournalRow>> load_chain(const ThreadId& thread, Seq at) const;
    Result<std::vector<JournalRow>> load_chain_of(const ThreadId& thread,
                                                  const CheckpointId& checkpoint) const;
    Result<std::vector<JournalRow>> list_journal(const ThreadId& thread,
                                                 Seq before,
                                                 std::int32_t limit) const;
    std::vector<ToolCallRow> load_tool_calls(const ThreadId& thread, Seq seq) const;
    Result<RunRow> load_run(const ThreadId& thread, const RunId& run) const;
    Result<RunRow> find_run(const RunId& run) const;
    Result<std::vector<RunRow>> list_runs(const ThreadId& thread, const RunFilter& filter) const;
    std::vector<ThreadRow> search_threads(const ThreadFilter& filter) const;
    std::int64_t count_threads(const ThreadFilter& filter) const;

private:
    struct Engine {
        EngineRow row;
        std::int64_t heartbeat_at_us = 0;
    };
    using CallKey = std::tuple<Seq, base::Uuid, std::int32_t>;
    struct Thread {
        ThreadRow row;
        Epoch epoch = 0;
        std::optional<EngineId> owner;
        std::map<Seq, JournalRow> journal;
        std::unordered_map<RunId, RunRow> runs;
        std::map<CallKey, ToolCallRow> tool_calls;
    };

    struct Key {
        ThreadId thread;
        RunId run;
        std::int64_t expires_at_us = 0;
    };

    [[nodiscard]] bool is_free(const Key& key) const;
    void set_ttl(ThreadRow& row, const std::optional<ThreadTtl>& ttl) const;
    void touch(ThreadRow& row) const;
    void prune(Thread& thread, const JournalPrune& prune);
    [[nodiscard]] bool is_alive(const Engine& engine, base::Duration lease) const;
    [[nodiscard]] bool is_owned_by_another(const Thread& thread,
                                           const EngineId& engine,
                                           base::Duration lease) const;
    [[nodiscard]] const Thread* find_thread(const ThreadId& thread) const;
    [[nodiscard]] Result<std::vector<JournalRow>> chain(const Thread& thread, Seq at) const;
    Thread& insert_thread(const ThreadClaim& claim);
    Status check_conflicts(const Thread& thread, const ThreadWrite& write) const;
    void apply(Thread& thread, const ThreadWrite& write);
    [[nodiscard]] std::vector<const Thread*> matching(const ThreadFilter& filter) const;

    const base::Clock& clock_;
    mutable std::mutex mutex_;
    std::unordered_map<EngineId, Engine> engines_;
    std::unordered_map<ThreadId, Thread> threads_;
    std::unordered_map<ThreadKey, ThreadId> thread_of_key_;
    std::unordered_map<RunId, ThreadId> thread_of_run_;
    std::unordered_map<std::string, Key> keys_;
    ThreadKey last_key_ = 0;
};

}  // namespace heddle::storage::memory
