#include "tests/unit/engine/transport/edge.hpp"

namespace heddle::transport::test {
namespace {

std::size_t drain(Edge& edge, wire::RequestId id, std::size_t bytes) {
    std::size_t got = 0;
    while (got < bytes && !testing::Test::HasFailure()) {
        const auto data = edge.receive<wire::Data>();
        EXPECT_EQ(data.id, id);
        EXPECT_LE(data.bytes.size(), wire::kChunkBytesMax);
        got += data.bytes.size();
    }
    return got;
}

TEST(Streams, SendExactlyWhatTheCreditAllows) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    auto request = Edge::request(1, "GET", "/stream");
    request.credit = 2500;
    edge.send(request);
    const auto head = edge.receive<wire::Head>();
    EXPECT_EQ(head.body, "head") << "the head's own bytes cost no credit";
    EXPECT_FALSE(head.last);
    EXPECT_EQ(drain(edge, 1, 2500), 2500U);
    EXPECT_FALSE(edge.next(50).has_value()) << "no credit is left";
    EXPECT_EQ(engine.api.written, 2000U) << "the third write waits";

    edge.send(wire::Credit{1, 700});
    EXPECT_EQ(drain(edge, 1, 700), 700U);
    EXPECT_FALSE(edge.next(50).has_value());
    edge.send(wire::Cancel{1});
    wait_until([&] { return engine.api.gone == 1; }, "the writer learns of the cancel");
}

TEST(Streams, ASlowReaderStopsOnlyItsOwnStream) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    auto slow = Edge::request(1, "GET", "/stream");
    slow.credit = 0;
    edge.send(slow);
    EXPECT_EQ(edge.receive<wire::Head>().id, 1U);
    auto fast = Edge::request(2, "GET", "/stream");
    fast.credit = 100'000;
    edge.send(fast);
    EXPECT_EQ(drain(edge, 2, 100'000), 100'000U);
    edge.send(Edge::request(3, "GET", "/echo"));
    EXPECT_EQ(edge.receive<wire::Head>().id, 3U);
}

TEST(Streams, CreditIsBoundedHoweverMuchIsGranted) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    auto request = Edge::request(1, "GET", "/stream");
    request.credit = 1;
    edge.send(request);
    (void)edge.receive<wire::Head>();
    edge.send(wire::Credit{1, wire::kCreditMax});
    edge.send(wire::Credit{1, wire::kCreditMax});
    edge.send(wire::Cancel{1});
    wait_until([&] { return engine.api.gone == 1; }, "the writer ends");
    EXPECT_LE(engine.api.written.load(), 3 * wire::kCreditMax);
}

TEST(Streams, ALongAnswerFollowsItsHeadUnderCredit) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    for (const auto* path : {"/long", "/echo"}) {
        auto request = Edge::request(1, "GET", path);
        request.credit = 1U << 20U;
        request.body = std::string(200'000, 'y');
        request.body_complete = false;
        edge.send(request);
        for (int i = 0; i < 5; ++i) {
            edge.send(wire::Body{1, std::string(100'000, 'y'), i == 4});
        }
        auto head = edge.receive<wire::Head>();
        EXPECT_EQ(head.status, 200);
        EXPECT_FALSE(head.last);
        EXPECT_EQ(head.body.size() + drain(edge, 1, 700'000 - head.body.size()), 700'000U);
        EXPECT_EQ(edge.receive<wire::End>().error, "");
    }
}

TEST(Streams, FramesOfARunCarryItsEpoch) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(1, "POST", "/hold"));
    EXPECT_EQ(edge.receive<wire::Accepted>().epoch, 7U);
}

TEST(Streams, CancelReachesTheHandlerAndFreesTheSlot) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(1, "POST", "/hold"));
    (void)edge.receive<wire::Accepted>();
    EXPECT_EQ(engine.transport->open_requests(), 1U);
    edge.send(wire::Cancel{1});
    wait_until([&] { return engine.api.gone == 1; }, "the handler learns of the cancel");
    wait_until([&] { return engine.transport->open_requests() == 0; }, "the slot is free");
    edge.send(wire::Cancel{1});
    edge.send(wire::Cancel{999});
    edge.send(wire::Credit{999, 5});
    (void)edge.ping();
    EXPECT_EQ(engine.dropped(), 0) << "late frames of an ended request are no error";

    edge.send(Edge::request(1, "GET", "/echo"));
    EXPECT_EQ(edge.receive<wire::Head>().id, 1U) << "the id may be used again";
}

TEST(Streams, ASilentEdgeIsForgottenWithItsRequests) {
    TransportOptions options;
    options.peer_silence_max = std::chrono::milliseconds{1};
    TestTransport engine{options};
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(1, "POST", "/hold"));
    wait_until(
        [&] {
            const auto answer = edge.next(100);
            if (answer && std::holds_alternative<wire::HelloWanted>(*answer)) {  // it came too late
                edge.send(wire::Hello{1, 1, "edge"});
                edge.send(Edge::request(1, "POST", "/hold"));
            }
            return engine.api.gone > 0;
        },
        "the handler learns that the edge is gone");
    wait_until([&] { return engine.transport->open_requests() == 0; }, "the slot is free");
    edge.send(wire::Ping{1});
    (void)edge.receive<wire::HelloWanted>();
}

TEST(Streams, AnEdgeThatVanishesMidStreamHarmsNobody) {
    TransportOptions options;
    options.peer_silence_max = std::chrono::seconds{2};
    TestTransport engine{options};
    for (int i = 0; i < 5; ++i) {
        Edge doomed{engine.endpoint()};
        doomed.send(Edge::request(1, "GET", "/stream"));
        (void)doomed.receive<wire::Data>();
    }
    wait_until([&] { return engine.api.gone == 5; }, "all five streams end");
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(2, "GET", "/ok"));
    EXPECT_EQ(edge.receive<wire::Head>().status, 200);
}

TEST(Streams, AnotherLifeOfAnEdgeDropsTheOldRequests) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(1, "POST", "/hold"));
    (void)edge.receive<wire::Accepted>();
    edge.send(wire::Hello{1, 1, "edge"});
    (void)edge.receive<wire::Welcome>();
    EXPECT_EQ(engine.transport->open_requests(), 1U) << "the same life: nothing changes";
    edge.send(wire::Hello{1, 1, "edge-started-again"});
    (void)edge.receive<wire::Welcome>();
    wait_until([&] { return engine.api.gone == 1; }, "the old request ends");
}

TEST(Streams, AReaderThatStopsReadingIsForgottenPastItsBacklog) {
    TransportOptions options;
    options.peer_backlog_bytes_max = 1U << 20U;
    TestTransport engine{options};
    Edge deaf{engine.endpoint()};
    for (wire::RequestId id = 1; id <= 64; ++id) {
        deaf.send(Edge::request(id, "GET", "/stream"));
    }
    wait_until([&] { return engine.api.gone == 64; }, "its streams end");
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(2, "GET", "/ok"));
    EXPECT_EQ(edge.receive<wire::Head>().status, 200);
}

}  // namespace
}  // namespace heddle::transport::test
