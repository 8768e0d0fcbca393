#pragma once

#include <list>

#include <asio/redirect_error.hpp>

#include "engine/base/clock.hpp"
#include "engine/base/task.hpp"
#include "engine/base/timer.hpp"

namespace heddle::base {

/// Lets coroutines of one shard wait until something changed. Spurious wake-ups are possible: test
/// the condition in a loop. Belongs to its shard.
class Signal {
public:
    Signal() = default;
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

    /// Resumes at the next notify_all() or at `deadline`, whichever comes first. The signal must
    /// outlive the wait (hold its owner while waiting).
    Task<> wait(Instant deadline) {
        Timer timer{co_await asio::this_coro::executor, deadline};
        const auto at = waiting_.insert(waiting_.end(), &timer);
        asio::error_code ignored;
        co_await timer.async_wait(asio::redirect_error(kUseTask, ignored));
        waiting_.erase(at);
    }
    void notify_all() {
        for (auto* timer : waiting_) {
            timer->cancel();
        }
    }

private:
    std::list<Timer*> waiting_;
};

}  // namespace heddle::base
