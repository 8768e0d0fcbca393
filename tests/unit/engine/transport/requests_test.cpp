#include <random>

#include "tests/unit/engine/transport/edge.hpp"

namespace heddle::transport::test {
namespace {

wire::Body body_of(wire::RequestId id, std::string bytes, bool last) {
    return wire::Body{id, std::move(bytes), last};
}

TEST(Transport, GreetsAndAnswersPings) {
    TestTransport engine;
    Edge edge{engine.endpoint(), false};
    edge.send(wire::Hello{1, 3, "worker-1"});
    const auto welcome = edge.receive<wire::Welcome>();
    EXPECT_EQ(welcome.version, 1U);
    EXPECT_EQ(welcome.engine_id, "engine-under-test");
    EXPECT_EQ(welcome.endpoint, engine.endpoint());
    EXPECT_FALSE(welcome.draining);

    engine.metrics.threads_owned = 3;
    engine.metrics.runs_running = 2;
    engine.metrics.runs_waiting = 1;
    edge.send(wire::Ping{41});
    const auto pong = edge.receive<wire::Pong>();
    EXPECT_EQ(pong.sequence, 41U);
    EXPECT_EQ(pong.threads_owned, 3U);
    EXPECT_EQ(pong.runs_running, 2U);
    EXPECT_EQ(pong.runs_waiting, 1U);
}

TEST(Transport, AsksAStrangerForHello) {
    TestTransport engine;
    Edge edge{engine.endpoint(), false};
    edge.send(Edge::request(1, "GET", "/ok"));
    (void)edge.receive<wire::HelloWanted>();
    EXPECT_EQ(engine.api.handled, 0);
    EXPECT_EQ(engine.transport->open_requests(), 0U);
}

TEST(Transport, DoesNotTalkToAnEdgeOfOtherVersions) {
    TestTransport engine;
    Edge edge{engine.endpoint(), false};
    edge.send(wire::Hello{7, 9, "from-the-future"});
    EXPECT_EQ(edge.receive<wire::Welcome>().version, 1U);
    edge.send(Edge::request(1, "GET", "/ok"));
    (void)edge.receive<wire::HelloWanted>();
}

TEST(Transport, AnswersAtOnceInOneFrame) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(5, "GET", "/ok"));
    const auto head = edge.receive<wire::Head>();
    EXPECT_EQ(head.id, 5U);
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.body, R"({"ok":true})");
    EXPECT_TRUE(head.last);
    EXPECT_EQ(engine.transport->open_requests(), 0U);
    EXPECT_EQ(engine.api.handled, 0);
}

TEST(Transport, WhatComesBehindASilenceMayHaveGoneElsewhere) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    const auto ask = [&edge](wire::RequestId id, bool in_parts) {
        auto request = Edge::request(id, "POST", "/echo");
        request.body_complete = !in_parts;
        edge.send(request);
        if (in_parts) {
            edge.send(wire::Body{id, "body", true});
        }
        while (edge.receive<wire::Head>().id != id && !testing::Test::HasFailure()) {
        }
    };
    const auto begun = base::system_clock().now();
    (void)edge.ping();
    ask(1, false);
    ask(2, true);
    const auto before = engine.api.late.load();
    if (base::system_clock().now() - begun < std::chrono::milliseconds{1300}) {
        EXPECT_EQ(before, 0);
    }
    const auto until = base::system_clock().now() + std::chrono::milliseconds{1450};
    wait_until([until] { return base::system_clock().now() >= until; }, "the edge says nothing");
    ask(3, false);
    EXPECT_EQ(engine.api.late, before + 1);
    ask(4, true);
    EXPECT_EQ(engine.api.late, before + 2) << "right behind the first";
}

TEST(Transport, GarbageIsCountedAndHarmless) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    const auto seed = std::random_device{}();
    RecordProperty("seed", static_cast<int>(seed));
    std::printf("seed %u\n", seed);
    std::mt19937 random{seed};
    const auto good = wire::encode(wire::EdgeMessage{Edge::request(9, "POST", "/echo")});
    constexpr int kFrames = 2000;
    for (int i = 0; i < kFrames; ++i) {
        auto frame = good;
        switch (random() % 4) {
            case 0:
                frame.resize(random() % frame.size());
                break;
            case 1:
                frame.clear();
                for (auto n = random() % 200; n > 0; --n) {
                    frame += static_cast<char>(random());
                }
                break;
            case 2:
                frame = std::string(random() % 300, '\xff');
                break;
            default:
                frame.insert(random() % frame.size(), 1, '\xc1');
        }
        edge.send_bytes(frame);
    }
    edge.send_parts({"two", "parts"});
    edge.send_parts({"", good, "more"});
    edge.send_bytes("");
    (void)edge.ping();
    EXPECT_GT(engine.dropped(), kFrames / 2);

    edge.send(Edge::request(10, "GET", "/ok"));
    wire::Head head;
    do {
        head = edge.receive<wire::Head>();
    } while (head.id != 10 && !HasFailure());
    EXPECT_EQ(head.status, 200);
}

TEST(Transport, AFrameAboveTheBoundEndsOnlyItsConnection) {
    TestTransport engine;
    {
        Edge rude{engine.endpoint()};
        rude.send_bytes(std::string(wire::kFrameBytesMax + 1, 'x'));
        Edge polite{engine.endpoint()};
        polite.send(Edge::request(1, "GET", "/ok"));
        EXPECT_EQ(polite.receive<wire::Head>().status, 200);
    }
    EXPECT_EQ(engine.api.handled, 0);
}

TEST(Transport, PutsABodyTogether) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    auto request = Edge::request(3, "POST", "/echo");
    request.body = "[1,";
    request.body_complete = false;
    edge.send(request);
    edge.send(body_of(3, "2,", false));
    edge.send(body_of(3, "3]", true));
    const auto head = edge.receive<wire::Head>();
    EXPECT_EQ(head.id, 3U);
    EXPECT_EQ(head.body, "[1,2,3]");
    EXPECT_TRUE(head.last);
    wait_until([&] { return engine.transport->open_requests() == 0; }, "the request is closed");
}

TEST(Transport, DropsBodyFramesThatBelongToNothing) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(body_of(77, "before its request", false));
    edge.send(Edge::request(78, "POST", "/hold"));
    (void)edge.receive<wire::Accepted>();
    edge.send(body_of(78, "after its end", true));
    (void)edge.ping();
    EXPECT_EQ(engine.dropped(), 2);
}

TEST(Transport, DropsASecondRequestUnderAnOpenId) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(4, "POST", "/hold"));
    (void)edge.receive<wire::Accepted>();
    edge.send(Edge::request(4, "POST", "/hold"));
    (void)edge.ping();
    EXPECT_EQ(engine.dropped(), 1);
    EXPECT_EQ(engine.api.handled, 1);
}

TEST(Transport, RefusesABodyAboveTheBoundOnceAndSwallowsTheRest) {
    TransportOptions options;
    options.request_body_bytes_max = 1000;
    TestTransport engine{options};
    Edge edge{engine.endpoint()};
    auto request = Edge::request(6, "POST", "/echo");
    request.body = std::string(600, 'a');
    request.body_complete = false;
    edge.send(request);
    edge.send(body_of(6, std::string(600, 'b'), false));
    const auto head = edge.receive<wire::Head>();
    EXPECT_EQ(head.status, 413);
    EXPECT_TRUE(head.last);
    EXPECT_NE(head.body.find("payload_too_large"), std::string::npos);
    edge.send(body_of(6, std::string(600, 'c'), false));
    edge.send(body_of(6, "end", true));
    (void)edge.ping();
    EXPECT_EQ(engine.dropped(), 0);
    EXPECT_EQ(engine.transport->open_requests(), 0U);
    EXPECT_EQ(engine.api.handled, 0);

    auto whole = Edge::request(7, "POST", "/echo");
    whole.body = std::string(1001, 'a');
    edge.send(whole);
    EXPECT_EQ(edge.receive<wire::Head>().status, 413);
}

TEST(Transport, HalfARequestIsForgottenWithATimeout) {
    TransportOptions options;
    options.body_wait_max = std::chrono::milliseconds{1};
    TestTransport engine{options};
    Edge edge{engine.endpoint()};
    auto request = Edge::request(8, "POST", "/echo");
    request.body_complete = false;
    edge.send(request);
    const auto head = edge.receive<wire::Head>();
    EXPECT_EQ(head.status, 504);
    wait_until([&] { return engine.transport->open_requests() == 0; }, "the request is closed");
}

TEST(Transport, RefusesPastTheBoundOfOpenRequests) {
    TransportOptions options;
    options.open_requests_max = 2;
    TestTransport engine{options};
    Edge edge{engine.endpoint()};
    for (wire::RequestId id = 1; id <= 3; ++id) {
        edge.send(Edge::request(id, "POST", "/hold"));
    }
    const auto refused = edge.receive<wire::Refused>();
    EXPECT_EQ(refused.id, 3U);
    EXPECT_EQ(refused.code, "overloaded");
    edge.send(Edge::request(4, "GET", "/ok"));
    EXPECT_EQ(edge.receive<wire::Head>().status, 200) << "needs no slot";
}

TEST(Transport, BodiesAreBoundedTogetherUntilTheirRunsAreStored) {
    TransportOptions options;
    options.bodies_bytes_max = 1000;
    TestTransport engine{options};
    Edge edge{engine.endpoint()};
    const auto send = [&](wire::RequestId id, const char* path, std::size_t bytes) {
        auto request = Edge::request(id, "POST", path);
        request.body = std::string(bytes, 'b');
        edge.send(request);
    };
    for (wire::RequestId id = 1; id <= 3; ++id) {
        send(id, "/hold", 600);
        EXPECT_EQ(edge.receive<wire::Accepted>().id, id) << "the one before holds no body any more";
    }
    EXPECT_LT(engine.api.kept, 600U) << "nor its memory";
    send(4, "/undecided", 600);
    wait_until([&] { return engine.api.handled == 4; }, "its handler has it");
    send(5, "/echo", 201);
    const auto refused = edge.receive<wire::Refused>();
    EXPECT_EQ(refused.id, 5U);
    EXPECT_EQ(refused.code, "overloaded");
    send(6, "/echo", 200);
    EXPECT_EQ(edge.receive<wire::Head>().body.size(), 200U) << "a smaller one has room beside it";
    edge.send(wire::Cancel{4, false});
    wait_until([&] { return engine.api.gone == 1; }, "its client is gone");
    wire::RequestId id = 7;
    wait_until(
        [&] {
            send(id++, "/echo", 1000);
            return std::holds_alternative<wire::Head>(edge.next(30'000).value());
        },
        "there is room again");
}

TEST(Transport, RefusesNewWorkWhileDraining) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    engine.transport->start_draining();
    EXPECT_TRUE(edge.ping().draining);
    edge.send(Edge::request(1, "POST", "/work"));
    EXPECT_EQ(edge.receive<wire::Refused>().code, "draining");
    edge.send(Edge::request(2, "GET", "/echo"));
    EXPECT_EQ(edge.receive<wire::Head>().status, 200) << "what runs already is still served";
}

TEST(Transport, MovesARequestToTheShardOfAnotherThread) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    for (wire::RequestId id = 1; id <= 20; ++id) {
        auto request = Edge::request(id, "POST", "/elsewhere");
        request.thread_id = base::make_uuid_v7().to_string();
        request.body = base::make_uuid_v7().to_string();
        edge.send(request);
        EXPECT_EQ(edge.receive<wire::Head>().body, R"("moved in")");
    }
    EXPECT_EQ(engine.api.handled, 40);
}

TEST(Transport, AnswersARequestThatItsHandlerForgot) {
    TestTransport engine;
    Edge edge{engine.endpoint()};
    edge.send(Edge::request(1, "GET", "/forgets"));
    EXPECT_EQ(edge.receive<wire::Head>().status, 500);
}

TEST(Transport, DoesNotStealAnEndpointInUse) {
    const auto path = testing::TempDir() + "heddle-" + base::make_uuid_v7().to_string() + ".sock";
    observe::Metrics metrics;
    FakeApi api;
    base::ShardPool shards{1, 16};
    TransportOptions options;
    options.listen = "ipc://" + path;
    {
        const auto first = Transport::bind(options, api, shards, metrics);
        ASSERT_TRUE(first.has_value());
        const auto second = Transport::bind(options, api, shards, metrics);
        ASSERT_FALSE(second.has_value());
        EXPECT_EQ(second.error().code, base::ErrorCode::conflict);
        EXPECT_NE(second.error().message.find(path), std::string::npos);
    }
    EXPECT_TRUE(Transport::bind(options, api, shards, metrics).has_value()) << "free again";

    options.listen = "tcp://127.0.0.1:*";
    const auto tcp = Transport::bind(options, api, shards, metrics);
    ASSERT_TRUE(tcp.has_value());
    options.listen = (*tcp)->endpoint();
    const auto taken = Transport::bind(options, api, shards, metrics);
    ASSERT_FALSE(taken.has_value());
    EXPECT_EQ(taken.error().code, base::ErrorCode::conflict);

    options.listen = "inproc://nowhere";
    EXPECT_EQ(Transport::bind(options, api, shards, metrics).error().code,
              base::ErrorCode::invalid_argument);
    shards.stop();
}

}  // namespace
}  // namespace heddle::transport::test
