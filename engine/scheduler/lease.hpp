#pragma once

#include <atomic>

#include "engine/base/clock.hpp"

namespace heddle::scheduler {

/// How long this engine may speak for threads, by its own monotonic clock: the store's clock ends
/// the lease later than that, as it begins later. An engine that was stopped finds that it is over
/// before it takes a request, and long before its next heartbeat is refused. Never over until it is
/// extended for the first time. Any OS thread.
class Lease {
public:
    void extend(base::Instant until) noexcept {
        until_.store(until.time_since_epoch().count(), std::memory_order_relaxed);
    }
    void end() noexcept { extend(base::Instant::min()); }
    [[nodiscard]] bool is_over() const noexcept {
        const auto until = until_.load(std::memory_order_relaxed);
        return base::system_clock().now().time_since_epoch().count() >= until;
    }

private:
    std::atomic<base::Instant::rep> until_{base::Instant::max().time_since_epoch().count()};
};

}  // namespace heddle::scheduler
