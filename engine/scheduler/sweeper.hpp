#pragma once

#include <atomic>

#include "engine/base/shard.hpp"
#include "engine/scheduler/scheduler.hpp"

namespace heddle::scheduler {

struct SweeperLimits {
    base::Duration every = std::chrono::seconds{5};
    std::int32_t threads_per_round = 512;
    std::int32_t keys_per_round = 1000;
};

/// Does to threads what is due when their time to live is over, and forgets old Idempotency-Keys
/// (ADR 0008). Every engine sweeps: the threads that it owns, which nobody else may write, and
/// those that nobody owns, which it claims first; so nothing is done twice. A round takes a bounded
/// number and pauses as long as it took. Its loop runs on an OS thread of its own, the work on the
/// threads' shards. A sweep that is broken off at any point is as good as none: what is due stays
/// due.
class Sweeper {
public:
    /// `scheduler` and its store must outlive stop().
    Sweeper(Scheduler& scheduler, SweeperLimits limits);

    void start();
    /// Begins nothing any more.
    void start_draining() noexcept { draining_.store(true, std::memory_order_relaxed); }
    /// Ends the loop. Idempotent.
    void stop();

private:
    base::Task<> sweep();
    /// @return whether there may be more
    base::Task<bool> sweep_threads();
    base::Task<bool> sweep_keys();

    Scheduler& scheduler_;
    SweeperLimits limits_;
    std::atomic<bool> draining_{false};
    base::Shard loop_{0, 64};  ///< last: what it runs uses everything above
};

}  // namespace heddle::scheduler
