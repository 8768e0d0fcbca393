#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"

/// The one ZeroMQ socket of an engine. Nothing of libzmq leaves this file.
namespace heddle::transport {

/// A bound ROUTER. Made on one OS thread, then used by one only (with a full fence between, as
/// std::thread's constructor is). Every operation returns at once.
class RouterSocket {
public:
    /// @param endpoint  ipc:///path or tcp://address:port (port * picks one)
    /// @return conflict          another engine listens there (an ipc socket is never stolen)
    ///         invalid_argument  the endpoint cannot be used, and why
    static base::Result<std::unique_ptr<RouterSocket>> bind(const std::string& endpoint);
    ~RouterSocket();
    RouterSocket(const RouterSocket&) = delete;
    RouterSocket& operator=(const RouterSocket&) = delete;

    /// As bound, with the port that was picked.
    [[nodiscard]] const std::string& endpoint() const noexcept { return endpoint_; }
    /// Edge-triggered: after every receive and send, receive until `nothing` before sleeping on it.
    [[nodiscard]] int descriptor() const noexcept;

    enum class Received { frame, nothing, malformed };
    /// @param identity, frame  views into the socket's buffers, valid until the next call.
    ///        malformed: a message of another shape than identity and frame was there and is gone
    Received receive(std::string_view& identity, std::string_view& frame);

    enum class Sent { sent, full, gone };
    /// full: the peer's queue has no room now. gone: nobody of that identity is connected.
    Sent send(std::string_view identity, std::string_view frame);

    /// How long the destructor may wait for frames that are sent but not yet written. 0 at first.
    void set_linger(base::Duration linger);

private:
    struct Impl;
    explicit RouterSocket(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
    std::string endpoint_;
};

}  // namespace heddle::transport
