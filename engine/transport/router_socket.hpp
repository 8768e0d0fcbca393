#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"

/// The one ZeroMQ endpoint of an engine: a ROUTER that binds, spoken in the transport's own loop
/// (shared/wire/zmtp.hpp, ADR 0010). Peers may be nginx workers or any libzmq DEALER.
namespace heddle::transport {

/// One connection. Never used twice; what libzmq would call a routing id.
using PeerId = std::uint64_t;

/// Used by one OS thread at a time, of which each holds the mutex `turn` of wait() meanwhile. Only
/// wait() waits, and lets go of it.
class RouterSocket {
public:
    static constexpr std::size_t kConnectionsMax = 4'096;
    /// Bytes that wait for one peer to read them; past it send() says full.
    static constexpr std::size_t kQueuedBytesMax = std::size_t{4} << 20U;

    /// @param endpoint  ipc:///path or tcp://address:port (address * is every one, port * picks
    /// one)
    /// @param wake_fd   ends wait() when it is readable; must outlive the socket
    /// @return conflict          another engine listens there (an ipc socket is never stolen)
    ///         invalid_argument  the endpoint cannot be used, and why
    static base::Result<std::unique_ptr<RouterSocket>> bind(const std::string& endpoint,
                                                            int wake_fd);
    /// Writes what is left for at most the linger, then closes every connection.
    ~RouterSocket();
    RouterSocket(const RouterSocket&) = delete;
    RouterSocket& operator=(const RouterSocket&) = delete;

    /// As bound, with the port that was picked.
    [[nodiscard]] const std::string& endpoint() const noexcept { return endpoint_; }

    /// Until a peer can be read or written, `wake_fd` is readable or the time is over.
    /// @param turn  held; given up while nothing is touched here, so that others may send
    /// @return whether wake_fd is readable
    bool wait(base::Duration most, std::unique_lock<std::mutex>& turn);
    /// Whether receive() has something to say about connections that ended since the latest wait().
    [[nodiscard]] bool has_closed() const noexcept;

    enum class Received { frame, nothing, malformed, closed };
    /// What the latest wait() found. nothing: wait again before the next receive().
    /// @param from   whose it is
    /// @param frame  a view into the connection's buffer, valid until the next call of anything
    /// here malformed: a message of several parts was there and is gone. closed: the connection
    /// ended; `from` is never seen again.
    Received receive(PeerId& from, std::string_view& frame);

    enum class Sent { sent, full, gone };
    /// Queues a frame until flush(); it is moved from only if sent.
    /// full: too much waits for that peer already. gone: it is not connected.
    Sent send(PeerId to, std::string&& frame);
    /// Writes what can be written without waiting; wait() sees to the rest.
    void flush();
    /// About twice a second: closes connections that do not shake hands in time or have long been
    /// silent, and takes new ones again after it ran out of descriptors.
    void tick(base::Instant now);

    /// How long the destructor may wait for frames that are sent but not yet written. 0 at first.
    void set_linger(base::Duration linger) noexcept;

private:
    struct Impl;
    explicit RouterSocket(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
    std::string endpoint_;
};

}  // namespace heddle::transport
