#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/signal.hpp"
#include "engine/transport/transport.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::transport::test {

/// Waits until `condition` holds; fails the test with `what` after five seconds.
void wait_until(const std::function<bool()>& condition, const char* what);

/// An nginx worker's side: a real DEALER socket.
class Edge {
public:
    explicit Edge(const std::string& endpoint, bool say_hello = true);
    ~Edge();
    Edge(const Edge&) = delete;
    Edge& operator=(const Edge&) = delete;

    void send(const wire::EdgeMessage& message);
    void send_bytes(const std::string& frame);
    /// Sends several parts where the protocol has one.
    void send_parts(const std::vector<std::string>& parts);
    /// The next frame of type T; other frames before it are skipped. Fails after half a minute.
    template <class T>
    T receive() {
        while (true) {
            auto message = next(kPatience);
            if (!message) {
                ADD_FAILURE() << "no frame of the expected kind came";
                return T{};
            }
            if (auto* wanted = std::get_if<T>(&*message)) {
                return std::move(*wanted);
            }
        }
    }
    /// nullopt if nothing comes for `patience_ms`.
    std::optional<wire::EngineMessage> next(int patience_ms);
    /// A Pong: whatever was sent before the Ping has been looked at.
    wire::Pong ping();
    /// A request with everything but its body's end filled in.
    static wire::Request request(wire::RequestId id, std::string method, std::string path);

private:
    static constexpr int kPatience = 30'000;
    void* context_;
    void* socket_;
    std::uint64_t pings_ = 0;
};

/// Answers by path: what the API does, in small.
class FakeApi final : public api::Handler {
public:
    api::Plan plan(api::Request& request) override;
    base::Task<std::optional<base::ThreadId>> handle(api::Request& request,
                                                     api::ResponseSink& sink) override;

    std::atomic<int> handled{0};
    std::atomic<int> late{0};             ///< of those
    std::atomic<int> gone{0};             ///< of /hold, /undecided and /stream, whose client went
    std::atomic<std::size_t> kept{0};     ///< most memory of a body of /hold once it is accepted
    std::atomic<std::size_t> written{0};  ///< bytes of /stream that write() has taken
};

/// A transport with its shards and a fake API on an endpoint of its own.
class TestTransport {
public:
    explicit TestTransport(TransportOptions options = {});
    ~TestTransport();

    [[nodiscard]] const std::string& endpoint() const { return transport->endpoint(); }
    [[nodiscard]] std::int64_t dropped() const { return metrics.frames_dropped_total.load(); }

    observe::Metrics metrics;
    FakeApi api;
    std::unique_ptr<Transport> transport;
    base::ShardPool shards{2, 1024};  // destroyed before the transport, whose requests are on them
};

}  // namespace heddle::transport::test
