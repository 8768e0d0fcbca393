#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include <asio/io_context.hpp>

#include "engine/base/clock.hpp"

/// All that an engine takes from the machine under it besides memory, sockets and files: time,
/// chance, and the OS threads that its loops run on. machine.cpp holds nothing else, so that
/// tests/sim can link another one in its place and run the same objects on one OS thread, on a
/// clock and from a seed of its own. Costs a call that is not inlined. Any OS thread, unless said
/// otherwise.
namespace heddle::base::machine {

/// Monotonic; see Clock::now().
[[nodiscard]] Instant now() noexcept;
/// Wall time; see Clock::unix_us().
[[nodiscard]] std::int64_t unix_us() noexcept;
/// What the operating system is asked to wait when a timer is due after `rest`.
[[nodiscard]] Duration wait_of(Duration rest) noexcept;
/// 64 bits that nobody can tell before.
[[nodiscard]] std::uint64_t random_bits();
/// Where this process keeps the newest tick that it gave to an id (uuid.hpp).
[[nodiscard]] std::atomic<std::uint64_t>& last_tick() noexcept;

/// The OS thread that runs one loop until it is stopped. The constructor starts it.
class LoopThread {
public:
    /// @param loop  must outlive join()
    /// @param name  of the OS thread, at most 15 characters
    LoopThread(asio::io_context& loop, const std::string& name);
    ~LoopThread();
    LoopThread(const LoopThread&) = delete;
    LoopThread& operator=(const LoopThread&) = delete;

    /// Whether the caller runs on it.
    [[nodiscard]] bool is_current() const noexcept;
    /// Waits for it; the loop must have been stopped. Not from the thread itself. Idempotent.
    void join();

private:
    asio::io_context& loop_;
    std::thread os_thread_;
};

}  // namespace heddle::base::machine
