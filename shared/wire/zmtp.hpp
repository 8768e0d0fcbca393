#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>

struct iovec;

/// ZMTP 3.0, ZeroMQ's wire protocol (RFC 23/ZMTP of the ZeroMQ project), as far as Heddle's frames
/// need it: one stream connection, the NULL mechanism, messages of one part. A peer may be libzmq.
/// No I/O and no clock in here: both processes put their own event loop around it.
namespace heddle::wire {

/// What this side of the connection is; the other must be one that may talk to it.
enum class SocketKind : std::uint8_t { dealer, router };

/// The 64 bytes that each side says first.
[[nodiscard]] std::string zmtp_greeting();
/// What each side says when it has the other's greeting.
[[nodiscard]] std::string zmtp_ready(SocketKind self);
/// The answer to a PING with that context.
[[nodiscard]] std::string zmtp_pong(std::string_view context);

/// What one peer says, from bytes that nobody has checked. Memory: 64 KiB, up to
/// kFrameBytesMax and a bit while such a frame arrives.
class ZmtpReader {
public:
    explicit ZmtpReader(SocketKind self) : self_{self} {}

    /// Where the next bytes of the socket go. Never empty; views given out before are void.
    [[nodiscard]] std::span<char> room();
    void filled(std::size_t bytes) noexcept { end_ += bytes; }

    enum class Event : std::uint8_t {
        none,       ///< read more
        greeted,    ///< answer with zmtp_ready()
        ready,      ///< from now on frames may go both ways
        frame,      ///< payload() is one
        multipart,  ///< a message of several parts was there and is gone
        ping,       ///< answer with zmtp_pong(payload())
        broken,     ///< reason(); the connection is of no more use
    };
    Event next();
    /// Of the latest event; valid until the next call of next() or room().
    [[nodiscard]] std::string_view payload() const noexcept { return payload_; }
    [[nodiscard]] const char* reason() const noexcept { return reason_; }

private:
    enum class State : std::uint8_t { greeting, handshake, open, broken };

    Event break_off(const char* reason) noexcept;
    Event read_greeting() noexcept;
    Event on_command(std::string_view body) noexcept;
    [[nodiscard]] bool is_ready_from_our_kind(std::string_view properties) const noexcept;
    [[nodiscard]] std::string_view unread() const noexcept {
        return std::string_view{buffer_}.substr(begin_, end_ - begin_);
    }

    SocketKind self_;
    State state_ = State::greeting;
    bool in_multipart_ = false;
    std::string buffer_;  ///< its size is its capacity; [begin_, end_) is unread
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::size_t wanted_ = 0;  ///< bytes of the frame under way, with its header
    std::string_view payload_;
    const char* reason_ = "";
};

/// Frames on their way into one stream socket, in order. Small ones are put together, so that one
/// write takes many. Unbounded by itself: whoever pushes looks at bytes() first.
class ZmtpSendQueue {
public:
    static constexpr std::size_t kVectorsMax = 16;

    /// Bytes that are protocol already: greeting, ready, pong.
    void push_raw(std::string_view bytes);
    void push(std::string_view frame);
    void push(std::string&& frame);

    /// What to write next. @return how many of `vectors` are filled; 0 if nothing is left
    [[nodiscard]] std::size_t peek(std::array<iovec, kVectorsMax>& vectors) const noexcept;
    void written(std::size_t bytes) noexcept;
    void clear() noexcept;

    [[nodiscard]] bool empty() const noexcept { return chunks_.empty(); }
    [[nodiscard]] std::size_t bytes() const noexcept {
        return static_cast<std::size_t>(pushed_total_ - written_total_);
    }
    /// Counters of bytes over the queue's life; what clear() dropped counts as written.
    [[nodiscard]] std::uint64_t pushed_total() const noexcept { return pushed_total_; }
    [[nodiscard]] std::uint64_t written_total() const noexcept { return written_total_; }

private:
    std::string& joinable(std::size_t bytes);

    std::deque<std::string> chunks_;
    std::string spare_;         ///< an emptied chunk, kept for its memory
    std::size_t first_at_ = 0;  ///< bytes of the first chunk that are written
    std::uint64_t pushed_total_ = 0;
    std::uint64_t written_total_ = 0;
};

}  // namespace heddle::wire
