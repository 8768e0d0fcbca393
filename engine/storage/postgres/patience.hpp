#pragma once

#include <condition_variable>
#include <mutex>

#include "engine/base/clock.hpp"

namespace heddle::storage::postgres {

/// The pauses between attempts to reach a server; closing the store ends them. Any OS thread.
class Patience {
public:
    /// @return whether to go on: false at once when the store closes
    bool pause(base::Duration duration) {
        std::unique_lock lock{mutex_};
        return !changed_.wait_for(lock, duration, [this] { return is_over_; });
    }
    void end() {
        {
            const std::lock_guard lock{mutex_};
            is_over_ = true;
        }
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool is_over_ = false;
};

}  // namespace heddle::storage::postgres
