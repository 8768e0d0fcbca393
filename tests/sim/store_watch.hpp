#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/storage/store.hpp"
#include "tests/sim/world.hpp"

namespace heddle::sim {

/// What the store must hold, written down a second time from what was asked of it, and what must be
/// true of each operation that it carries out. Fails the world.
class StoreWatch {
public:
    struct Row {
        base::RunId run;
        std::int32_t step = 0;
        bool is_input = false;
        std::size_t next = 0;  ///< nodes of the superstep that follows
    };
    struct Run {
        std::string tag;  ///< of the request that made it
        storage::RunStatus status = storage::RunStatus::pending;
        std::int32_t attempt = 0;
        bool exit_durability = false;
    };
    struct Thread {
        storage::Epoch epoch = 0;
        std::optional<storage::EngineId> owner;
        std::map<storage::Seq, Row> journal;
        std::map<base::RunId, Run> runs;
        std::vector<std::string> begun;  ///< tags of runs in the order of their first rows
    };

    StoreWatch(World& world, Duration lease, std::int32_t attempts_max)
        : world_{world}, lease_{lease}, attempts_max_{attempts_max} {}

    // ---- what the database has carried out
    void registered(const storage::EngineId& engine);
    void unregistered(const storage::EngineId& engine) { beats_.erase(engine); }
    void beaten(const storage::EngineId& engine, const base::Status& answer);
    /// The engine has got the answer, or something in its place.
    void heard(const storage::EngineId& engine, Duration asked_at, const base::Status& answer);
    void claimed(const storage::EngineId& engine,
                 const storage::ThreadClaim& claim,
                 const base::Result<storage::ClaimOutcome>& outcome);
    void created(const storage::EngineId& engine,
                 const storage::ThreadWrite& first,
                 const base::Result<storage::ThreadKey>& answer);
    void written(const storage::EngineId& engine,
                 const storage::ThreadWrite& write,
                 const base::Status& answer);

    /// An engine was told that an operation for the thread failed: that may spoil a run's attempt,
    /// which does not count then.
    void spoiled(const storage::ThreadId& thread) { ++spoiled_[thread]; }

    // ---- what is there
    [[nodiscard]] const Thread* find_thread(const storage::ThreadId& thread) const;
    [[nodiscard]] const Run* find_run(const storage::ThreadId& thread,
                                      const storage::RunId& run) const;
    /// Was there once; it may have been taken back since.
    [[nodiscard]] bool ever(const storage::RunId& run) const { return ever_.contains(run); }
    [[nodiscard]] bool was_deleted(const storage::RunId& run) const {
        return deleted_.contains(run);
    }
    /// The same, though it may have been made again.
    [[nodiscard]] bool was_ever_deleted(const storage::RunId& run) const {
        return ever_deleted_.contains(run);
    }
    /// The same of the run that a request made.
    [[nodiscard]] bool was_taken_back(const std::string& tag) const {
        const auto run = run_of_tag_.find(tag);
        return run != run_of_tag_.end() && was_ever_deleted(run->second);
    }
    /// The first run that has not ended; empty if all have.
    [[nodiscard]] std::string unfinished() const;
    [[nodiscard]] std::size_t runs_ended() const noexcept { return runs_ended_; }
    [[nodiscard]] std::size_t takeovers() const noexcept { return takeovers_; }
    [[nodiscard]] std::size_t rollbacks() const noexcept { return rollbacks_; }
    [[nodiscard]] std::size_t stale_writes() const noexcept { return stale_writes_; }
    /// Compares with what `store` says.
    void compare(storage::Store& store);

private:
    [[nodiscard]] bool is_alive(const storage::EngineId& engine) const;
    void lose_lease(const storage::EngineId& engine);
    void took(const storage::EngineId& engine, const storage::ThreadId& thread);
    void take_journal(Thread& thread, const storage::ThreadWrite& write);
    void take_runs(Thread& thread, const storage::ThreadWrite& write);

    World& world_;
    Duration lease_;
    std::int32_t attempts_max_;
    std::unordered_map<storage::EngineId, Duration> beats_;
    std::unordered_map<storage::EngineId, Duration> heard_;  ///< when the last good one was asked
    std::map<storage::ThreadId, Thread> threads_;
    std::unordered_map<storage::ThreadId, std::int32_t> spoiled_;
    std::map<storage::EngineId, std::set<storage::ThreadId>> claims_;
    std::set<storage::EngineId> leaseless_;  ///< know that they have lost it, or will be told
    std::map<std::string, base::RunId> run_of_tag_;
    std::unordered_set<storage::RunId> ever_;
    std::unordered_set<storage::RunId> deleted_;
    std::unordered_set<storage::RunId> ever_deleted_;
    std::size_t runs_ended_ = 0;
    std::size_t takeovers_ = 0;
    std::size_t rollbacks_ = 0;
    std::size_t stale_writes_ = 0;
};

}  // namespace heddle::sim
