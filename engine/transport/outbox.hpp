#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/mailbox.hpp"
#include "engine/base/wakeup.hpp"

namespace heddle::transport {

/// One encoded frame on its way from a shard to the transport's OS thread.
struct OutFrame {
    std::uint64_t serial = 0;  ///< of the session
    std::string bytes;         ///< empty: nothing is sent, only `last` counts
    bool last = false;         ///< the session sends nothing more
};

/// Frames from the shards to the transport. push() from any OS thread, everything else from the one
/// whose turn it is (Loop). Without locks; frames of one shard stay in order.
///
/// Bounded from both ends: the bytes of each stream by its credit, and a stream stops writing while
/// is_full(). The few frames that do not ask (heads, ends) are bounded by the open requests.
class Outbox {
public:
    /// @param frames_max  from where on is_full() says so
    explicit Outbox(std::size_t frames_max) : frames_max_{frames_max} {}

    /// Called by push() instead of wake() if the transport sleeps, on the OS thread of the caller.
    /// @return whether it has seen to the frames itself. Set once, before the first push.
    void set_stand_in(std::function<bool()> stand_in) { stand_in_ = std::move(stand_in); }

    void push(OutFrame frame);
    /// Asked by writers; a true answer is remembered for take_full_seen().
    [[nodiscard]] bool is_full() noexcept;

    /// Becomes readable when a frame is pushed while the transport sleeps.
    [[nodiscard]] int wake_fd() const noexcept { return wakeup_.descriptor(); }
    /// Wakes the transport without a frame. Any OS thread.
    void wake() noexcept { wakeup_.notify(); }
    /// Appends all frames to `out`, oldest first.
    void take(std::vector<OutFrame>& out) { frames_.take(out); }
    /// Frames that were taken and have been handed to the socket, or dropped.
    void sent(std::size_t frames) noexcept { count_.fetch_sub(frames, std::memory_order_relaxed); }
    /// Whether a writer has been told that the outbox is full since the last call.
    [[nodiscard]] bool take_full_seen() noexcept;
    /// @return false if something is there to be taken: do not sleep
    [[nodiscard]] bool prepare_sleep() noexcept;
    /// After the sleep: makes the descriptor quiet again.
    void woken(bool descriptor_is_readable) noexcept;

private:
    std::size_t frames_max_;
    base::Wakeup wakeup_;
    std::function<bool()> stand_in_;
    base::Mailbox<OutFrame> frames_;
    std::atomic<std::size_t> count_{0};
    std::atomic<bool> full_seen_{false};
    std::atomic<bool> asleep_{false};
};

}  // namespace heddle::transport
