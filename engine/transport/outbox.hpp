#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace heddle::transport {

/// One encoded frame on its way from a shard to the transport's OS thread.
struct OutFrame {
    std::uint64_t serial = 0;  ///< of the session
    std::string bytes;         ///< empty: nothing is sent, only `last` counts
    bool last = false;         ///< the session sends nothing more
};

/// Frames from the shards to the one OS thread that may touch the socket. push() from any OS
/// thread, everything else from the transport's. Without locks; frames of one shard stay in order.
///
/// Bounded from both ends: the bytes of each stream by its credit, and a stream stops writing while
/// is_full(). The few frames that do not ask (heads, ends) are bounded by the open requests.
class Outbox {
public:
    /// @param frames_max  from where on is_full() says so
    explicit Outbox(std::size_t frames_max);
    ~Outbox();
    Outbox(const Outbox&) = delete;
    Outbox& operator=(const Outbox&) = delete;

    void push(OutFrame frame);
    /// Asked by writers; a true answer is remembered for take_full_seen().
    [[nodiscard]] bool is_full() noexcept;

    /// Becomes readable when a frame is pushed while the transport sleeps.
    [[nodiscard]] int wake_fd() const noexcept { return wake_fd_; }
    /// Wakes the transport without a frame. Any OS thread.
    void wake() noexcept;
    /// Appends all frames to `out`, oldest first.
    void take(std::vector<OutFrame>& out);
    /// Frames that were taken and have been handed to the socket, or dropped.
    void sent(std::size_t frames) noexcept { frames_.fetch_sub(frames, std::memory_order_relaxed); }
    /// Whether a writer has been told that the outbox is full since the last call.
    [[nodiscard]] bool take_full_seen() noexcept;
    /// @return false if something is there to be taken: do not sleep
    [[nodiscard]] bool prepare_sleep() noexcept;
    /// After the sleep: makes the descriptor quiet again.
    void woken(bool descriptor_is_readable) noexcept;

private:
    struct Node {
        OutFrame frame;
        Node* next;
    };

    std::size_t frames_max_;
    int wake_fd_;
    std::atomic<Node*> newest_{nullptr};
    std::atomic<std::size_t> frames_{0};
    std::atomic<bool> full_seen_{false};
    std::atomic<bool> asleep_{false};
};

}  // namespace heddle::transport
