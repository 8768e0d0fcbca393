#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>

#include "engine/base/clock.hpp"

namespace heddle::storage::postgres {

/// Ends waits that libpq would not: shuts a socket down when its deadline passes, so that the
/// blocked call returns as if the connection were lost. For servers that stopped or vanished
/// without a word; a slow statement is ended earlier by the server's own statement_timeout. The
/// constructor starts an OS thread, the destructor joins it; members from any OS thread.
class Watchdog {
public:
    Watchdog();
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    /// Guards one blocking call. The socket stays open for as long as the guard lives.
    class Guard {
    public:
        Guard(Watchdog& watchdog, int socket, base::Instant deadline);
        ~Guard();
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;

    private:
        Watchdog& watchdog_;
        std::uint64_t id_;
    };

private:
    struct Watched {
        int socket;
        base::Instant deadline;
    };
    void run();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Watched> watched_;
    base::Instant wakes_at_ = base::Instant::max();
    std::uint64_t last_id_ = 0;
    bool is_closed_ = false;
    std::thread os_thread_;  // last: it uses everything above
};

}  // namespace heddle::storage::postgres
