#include "engine/storage/postgres/watchdog.hpp"

#include <algorithm>

#include <sys/socket.h>

#include "engine/base/clock.hpp"
#include "engine/observe/log.hpp"

namespace heddle::storage::postgres {

Watchdog::Watchdog() : os_thread_{[this] { run(); }} {}

Watchdog::~Watchdog() {
    {
        const std::lock_guard lock{mutex_};
        is_closed_ = true;
    }
    changed_.notify_all();
    os_thread_.join();
}

Watchdog::Guard::Guard(Watchdog& watchdog, int socket, base::Instant deadline)
    : watchdog_{watchdog} {
    bool is_earlier = false;
    {
        const std::lock_guard lock{watchdog_.mutex_};
        id_ = ++watchdog_.last_id_;
        watchdog_.watched_.emplace(id_, Watched{socket, deadline});
        is_earlier = deadline < watchdog_.wakes_at_;
    }
    if (is_earlier) {
        watchdog_.changed_.notify_all();
    }
}

Watchdog::Guard::~Guard() {
    const std::lock_guard lock{watchdog_.mutex_};
    watchdog_.watched_.erase(id_);
}

void Watchdog::run() {
    std::unique_lock lock{mutex_};
    while (!is_closed_) {
        const auto now = base::system_clock().now();
        // Nothing watched: an hour is as good as for ever, and no clock overflows on it.
        wakes_at_ = now + std::chrono::hours{1};
        for (auto& [id, watched] : watched_) {
            if (watched.deadline <= now) {
                // Under the lock, so that the guard cannot end and the number be used anew.
                shutdown(watched.socket, SHUT_RDWR);
                watched.deadline = base::Instant::max();
                observe::log(observe::LogLevel::error, "postgres",
                             "no answer within the deadline: connection given up");
            }
            wakes_at_ = std::min(wakes_at_, watched.deadline);
        }
        changed_.wait_until(lock, wakes_at_);
    }
}

}  // namespace heddle::storage::postgres
