#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include <asio/io_context.hpp>

#include "engine/base/clock.hpp"
#include "engine/base/unique_function.hpp"

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

/// Runs `body` in the loop. What other OS threads post so keeps its order, whoever they are; to
/// what the loop's own OS thread posts it has none. With asio::post() the order of neither would be
/// kept.
void post(asio::io_context& loop, UniqueFunction<void()> body);

/// Runs `body` once in the loop of the calling OS thread, when there is something to read from the
/// descriptor, after all that was posted to the loop before. It may be called for nothing. Of two
/// for one descriptor that wait at once only the later is run. A body is destroyed, run or not, no
/// later than the loop; until then the descriptor must stay open.
/// @return false, and `body` untouched, if the caller is not the OS thread of a LoopThread or the
///         kernel refuses
[[nodiscard]] bool call_when_readable(int descriptor, UniqueFunction<void()>& body);

/// Of all that the calling OS thread posts while it lives, each loop is told once, at its end: for
/// whoever has a batch of things to post. One at a time on an OS thread.
class PostTogether {
public:
    PostTogether() noexcept;
    ~PostTogether();
    PostTogether(const PostTogether&) = delete;
    PostTogether& operator=(const PostTogether&) = delete;
};

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
