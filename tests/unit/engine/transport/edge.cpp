#include "tests/unit/engine/transport/edge.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include <zmq.h>

namespace heddle::transport::test {

void wait_until(const std::function<bool()>& condition, const char* what) {
    const auto until = base::system_clock().now() + std::chrono::seconds{30};
    while (!condition()) {
        if (base::system_clock().now() > until) {
            ADD_FAILURE() << "waited in vain: " << what;
            return;
        }
        std::this_thread::yield();
    }
}

Edge::Edge(const std::string& endpoint, bool say_hello)
    : context_{zmq_ctx_new()}, socket_{zmq_socket(context_, ZMQ_DEALER)} {
    const int no_linger = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &no_linger, sizeof no_linger);
    EXPECT_EQ(zmq_connect(socket_, endpoint.c_str()), 0) << endpoint;
    if (say_hello) {
        send(wire::Hello{1, 1, "edge"});
        (void)receive<wire::Welcome>();
    }
}

Edge::~Edge() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
}

void Edge::send(const wire::EdgeMessage& message) {
    send_bytes(wire::encode(message));
}

void Edge::send_bytes(const std::string& frame) {
    send_parts({frame});
}

void Edge::send_parts(const std::vector<std::string>& parts) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const int more = i + 1 < parts.size() ? ZMQ_SNDMORE : 0;
        EXPECT_EQ(zmq_send(socket_, parts[i].data(), parts[i].size(), more),
                  static_cast<int>(parts[i].size()));
    }
}

std::optional<wire::EngineMessage> Edge::next(int patience_ms) {
    zmq_setsockopt(socket_, ZMQ_RCVTIMEO, &patience_ms, sizeof patience_ms);
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    std::optional<wire::EngineMessage> message;
    if (zmq_msg_recv(&frame, socket_, 0) >= 0) {
        const std::string_view bytes{static_cast<const char*>(zmq_msg_data(&frame)),
                                     zmq_msg_size(&frame)};
        auto decoded = wire::decode_engine(bytes);
        if (const auto* error = std::get_if<wire::DecodeError>(&decoded)) {
            ADD_FAILURE() << "the engine sent a bad frame: " << error->reason;
        } else {
            message = std::get<wire::EngineMessage>(std::move(decoded));
        }
    }
    zmq_msg_close(&frame);
    return message;
}

wire::Pong Edge::ping() {
    send(wire::Ping{++pings_});
    return receive<wire::Pong>();
}

wire::Request Edge::request(wire::RequestId id, std::string method, std::string path) {
    wire::Request request;
    request.id = id;
    request.method = std::move(method);
    request.path = std::move(path);
    request.credit = 1U << 20U;
    return request;
}

api::Plan FakeApi::plan(api::Request& request) {
    api::Plan plan;
    if (request.path == "/ok") {
        plan.answer = api::json_response(200, R"({"ok":true})");
    }
    if (request.path == "/long") {
        plan.answer = api::json_response(200, std::string(700'000, 'x'));
    }
    plan.starts_work = request.path == "/work";
    const auto thread = base::ThreadId::parse(request.thread_id);
    plan.shard_key = thread ? *thread : base::ThreadId{};
    return plan;
}

base::Task<std::optional<base::ThreadId>> FakeApi::handle(api::Request& request,
                                                          api::ResponseSink& sink) {
    late += request.late ? 1 : 0;
    ++handled;
    if (request.path == "/elsewhere") {
        const auto wanted = *base::ThreadId::parse(request.body);
        if (request.thread_id != wanted.to_string()) {
            co_return wanted;
        }
        auto response = api::json_response(200, R"("moved in")");
        (void)co_await sink.respond(std::move(response));
    } else if (request.path == "/hold" || request.path == "/undecided") {
        base::Signal woken;
        const auto on_gone = sink.gone().on_cancel([&] { woken.notify_all(); });
        if (request.path == "/hold") {
            sink.accepted(7);
            kept = std::max(kept.load(), request.body.capacity());
        }
        while (!sink.gone().is_cancelled()) {
            co_await woken.wait(base::system_clock().now() + std::chrono::seconds{60});
        }
        ++gone;
    } else if (request.path == "/stream") {
        api::Response head;
        head.body = "head";
        sink.start(std::move(head));
        while (true) {
            std::string piece(1000, 's');
            const auto status = co_await sink.write(std::move(piece));
            if (!status) {
                break;
            }
            written += 1000;
        }
        ++gone;
    } else if (request.path == "/forgets") {
        co_return std::nullopt;
    } else {
        auto response = api::json_response(200, request.body);
        (void)co_await sink.respond(std::move(response));
    }
    co_return std::nullopt;
}

TestTransport::TestTransport(TransportOptions options) {
    options.listen = "tcp://127.0.0.1:*";
    auto bound = Transport::bind(options, api, shards, metrics);
    EXPECT_TRUE(bound.has_value());
    transport = std::move(*bound);
    transport->start([] { return std::string{"engine-under-test"}; });
}

TestTransport::~TestTransport() {
    transport->stop(base::Duration::zero());
    shards.stop();
}

}  // namespace heddle::transport::test
