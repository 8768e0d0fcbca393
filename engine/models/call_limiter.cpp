#include "engine/models/call_limiter.hpp"

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "engine/base/machine.hpp"
#include "engine/base/signal.hpp"

namespace heddle::models {

class CallLimiter::State {
public:
    struct Waiter {
        explicit Waiter(base::Executor shard) : executor{std::move(shard)} {}
        const base::Executor executor;
        base::Signal changed;  ///< the waiter's shard only
        bool granted = false;  ///< under the limiter's mutex
    };
    using WaiterPtr = std::shared_ptr<Waiter>;  // NOLINT: held by the queue and a posted wake-up

    State(std::size_t running_max, std::size_t waiting_max)
        : running_max_{std::max<std::size_t>(running_max, 1)}, waiting_max_{waiting_max} {}

    enum class Entry : std::uint8_t { granted, queued, refused };
    Entry enter(const WaiterPtr& waiter) {
        const std::lock_guard lock{mutex_};
        if (running_ < running_max_ && waiting_.empty()) {
            ++running_;
            return Entry::granted;
        }
        if (waiting_.size() >= waiting_max_) {
            return Entry::refused;
        }
        waiting_.push_back(waiter);
        return Entry::queued;
    }
    bool is_granted(const WaiterPtr& waiter) {
        const std::lock_guard lock{mutex_};
        return waiter->granted;
    }
    /// The waiter waits no more and did not take its permit.
    void leave(const WaiterPtr& waiter) {
        bool was_granted = false;
        {
            const std::lock_guard lock{mutex_};
            was_granted = waiter->granted;
            std::erase(waiting_, waiter);
        }
        if (was_granted) {
            give_back();
        }
    }
    void give_back() {
        WaiterPtr next;
        {
            const std::lock_guard lock{mutex_};
            if (waiting_.empty()) {
                --running_;
                return;
            }
            next = std::move(waiting_.front());
            waiting_.pop_front();
            next->granted = true;
        }
        base::machine::post(next->executor.context(), [next] { next->changed.notify_all(); });
    }

private:
    std::mutex mutex_;
    const std::size_t running_max_;
    const std::size_t waiting_max_;
    std::size_t running_ = 0;
    std::deque<WaiterPtr> waiting_;
};

CallLimiter::Permit::Permit(std::shared_ptr<State> state) : state_{std::move(state)} {}  // NOLINT
CallLimiter::Permit::~Permit() {
    if (state_ != nullptr) {
        state_->give_back();
    }
}

CallLimiter::CallLimiter(std::size_t running_max, std::size_t waiting_max)
    : state_{std::make_shared<State>(running_max, waiting_max)} {}

base::Task<base::Result<CallLimiter::Permit>> CallLimiter::acquire(base::Instant deadline,
                                                                   base::CancelSource& cancel) {
    using base::Error;
    using base::ErrorCode;
    const auto state = state_;
    const auto waiter = std::make_shared<State::Waiter>(co_await asio::this_coro::executor);
    const auto entry = state->enter(waiter);
    if (entry == State::Entry::granted) {
        co_return Permit{state};
    }
    if (entry == State::Entry::refused) {
        co_return Error{ErrorCode::overloaded, "too many calls wait for this model"};
    }
    // Also when the coroutine is destroyed while it waits, the place in the queue is given up.
    struct Leaver {
        const std::shared_ptr<State>& state;  // NOLINT: on one frame with what it refers to
        const State::WaiterPtr& waiter;       // NOLINT: as above
        bool active = true;
        ~Leaver() {
            if (active) {
                state->leave(waiter);
            }
        }
    };
    Leaver leaver{state, waiter};
    const auto registration = cancel.on_cancel([&waiter] { waiter->changed.notify_all(); });
    for (;;) {
        if (cancel.is_cancelled()) {
            co_return cancel.reason();
        }
        if (state->is_granted(waiter)) {
            break;
        }
        if (base::system_clock().now() >= deadline) {
            co_return Error{ErrorCode::timeout, "the deadline passed while waiting for the model"};
        }
        co_await waiter->changed.wait(deadline);
    }
    leaver.active = false;
    co_return Permit{state};
}

}  // namespace heddle::models
