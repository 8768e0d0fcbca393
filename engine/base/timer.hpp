#pragma once

#include <asio/basic_waitable_timer.hpp>

#include "engine/base/machine.hpp"
#include "engine/base/task.hpp"

namespace heddle::base {

/// The clock of timers, for Asio.
struct TimerClock {
    using duration = Duration;
    using rep = Duration::rep;
    using period = Duration::period;
    using time_point = Instant;
    static constexpr bool is_steady = true;

    static Instant now() noexcept { return machine::now(); }
};

struct TimerWait {
    static Duration to_wait_duration(const Duration& rest) { return machine::wait_of(rest); }
    static Duration to_wait_duration(const Instant& until) {
        return machine::wait_of(until - machine::now());
    }
};

/// The timer of all coroutines and handlers of a shard.
using Timer = asio::basic_waitable_timer<TimerClock, TimerWait, Executor>;

}  // namespace heddle::base
