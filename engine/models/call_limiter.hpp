#pragma once

#include <cstddef>
#include <memory>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"

namespace heddle::models {

/// Bounds how many calls of one model run at once; the rest wait in order of arrival. Any shard.
class CallLimiter {
    class State;

public:
    /// The right to one call; gives it back when destroyed, on any OS thread.
    class Permit {
    public:
        Permit() = default;
        Permit(Permit&&) noexcept = default;
        Permit& operator=(Permit&&) = delete;
        ~Permit();

    private:
        friend class CallLimiter;
        // NOLINTNEXTLINE: shared with the limiter
        explicit Permit(std::shared_ptr<State> state);
        std::shared_ptr<State> state_;  // NOLINT: permits may outlive the limiter
    };

    /// @param running_max  calls at once, at least 1
    /// @param waiting_max  calls that may wait
    CallLimiter(std::size_t running_max, std::size_t waiting_max);

    /// @return overloaded  waiting_max wait already
    ///         timeout     the deadline passed while waiting
    ///         cancelled   (or cancel's reason)
    base::Task<base::Result<Permit>> acquire(base::Instant deadline, base::CancelSource& cancel);

private:
    std::shared_ptr<State> state_;  // NOLINT: see Permit
};

}  // namespace heddle::models
