#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "engine/base/clock.hpp"
#include "engine/base/shard.hpp"
#include "engine/base/task.hpp"
#include "engine/scheduler/scheduler.hpp"

namespace heddle::scheduler {

struct OwnershipLimits {
    base::Duration lease = std::chrono::seconds{2};  ///< as StoreLimits::lease
    base::Duration heartbeat_every = std::chrono::milliseconds{500};
    base::Duration recovery_every = std::chrono::milliseconds{500};
    std::int32_t orphans_per_round = 1000;  ///< a full round is followed by the next at once
};

/// Keeps this engine's lease and takes over what dead engines left. Its loops run on an OS thread
/// of their own, so that no run, however busy its shard, can cost the engine its lease; the methods
/// may be called from any other OS thread.
///
/// A lease that could not be renewed in time, by the database's clock or because the database did
/// not answer for a whole lease, ends this engine's claim to everything: runs stop without a
/// further write, and it registers anew under a new engine id, so that its old threads are orphans
/// for all.
class Ownership {
public:
    /// `scheduler` and its store must outlive stop().
    Ownership(Scheduler& scheduler, std::string endpoint, OwnershipLimits limits);

    /// Registers the engine and starts the loops. Blocks the calling OS thread (not a shard) until
    /// the store has answered, at most StoreLimits::wait_max.
    base::Status start();
    /// The same without blocking; `done` is called on the OS thread of the loops.
    void start(base::Completion<base::Status> done);
    /// Tells the store that nothing new is taken.
    void start_draining() noexcept { draining_.store(true, std::memory_order_relaxed); }
    /// Gives up every thread at once: others may claim them. Blocks like start(). Idempotent.
    void leave();
    /// Ends the loops without a word to the store. Idempotent.
    void stop();
    /// Changes when the lease was lost.
    [[nodiscard]] base::EngineId engine_id() const;

private:
    base::Task<> keep_lease();
    base::Task<> take_over();
    base::Task<base::Status> register_anew();
    /// @return false if it is over
    base::Task<bool> renew();
    void abandon_all();

    Scheduler& scheduler_;
    std::string endpoint_;
    OwnershipLimits limits_;
    std::atomic<bool> draining_{false};
    std::atomic<bool> left_{false};
    mutable std::mutex id_mutex_;
    base::EngineId id_;
    base::Shard loops_{0, 64};  ///< last: what it runs uses everything above
};

}  // namespace heddle::scheduler
