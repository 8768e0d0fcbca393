#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

using base::Json;

std::vector<std::string> names(const std::vector<SseEvent>& events) {
    std::vector<std::string> all;
    for (const auto& event : events) {
        all.push_back(event.event);
    }
    return all;
}

using Names = std::vector<std::string>;

TEST(Streams, BeginWithMetadataAndEndWithTheLastValues) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto reply = api.call("POST", path + "/runs/stream", run_body("echo", "hi"));
    EXPECT_EQ(reply.status, 200);
    EXPECT_TRUE(reply.ended);
    EXPECT_EQ(reply.header("content-type"), "text/event-stream");
    EXPECT_EQ(reply.header("location"), reply.header("content-location") + "/stream");
    const auto events = parse_sse(reply.body);
    ASSERT_EQ(names(events), (Names{"metadata", "values", "values"}));
    const auto run_id = Json::parse(events[0].data).at("run_id").get<std::string>();
    EXPECT_EQ(reply.header("content-location"), path + "/runs/" + run_id);
    EXPECT_EQ(Json::parse(events[2].data).at("messages").size(), 2U);
    EXPECT_EQ(events[0].id, "0");
    EXPECT_LT(std::stoull(events[0].id), std::stoull(events[1].id));
    EXPECT_LT(std::stoull(events[1].id), std::stoull(events[2].id));
}

TEST(Streams, CarrySeveralModesUnderTheirEventNames) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto reply =
        api.call("POST", path + "/runs/stream",
                 run_body("echo", "hi", {{"stream_mode", {"messages-tuple", "updates"}}}));
    const auto events = parse_sse(reply.body);
    // A node that streams its message chunk by chunk does not send the whole one again.
    ASSERT_GE(events.size(), 3U) << reply.body;
    EXPECT_EQ(events[1].event, "messages");
    EXPECT_EQ(Json::parse(events[1].data)[0].at("content"), "echo ");
    EXPECT_EQ(events.back().event, "updates");
    EXPECT_TRUE(Json::parse(events.back().data).contains("answer"));
}

// Nobody waited for the values of such a run while it was executed.
TEST(Streams, LeaveTheValuesToWhoJoinsLater) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto body = run_body("echo", "hi", {{"stream_mode", {"updates"}}});
    const auto events = parse_sse(api.call("POST", path + "/runs/stream", body).body);
    const auto run = path + "/runs/" + Json::parse(events[0].data).at("run_id").get<std::string>();
    const auto joined = api.call("GET", run + "/join");
    EXPECT_EQ(joined.status, 200);
    EXPECT_EQ(joined.json().at("messages").size(), 2U);
    // As they were then: another run moves the thread on.
    ASSERT_EQ(api.call("POST", path + "/runs/wait", body).json().at("messages").size(), 4U);
    EXPECT_EQ(api.call("GET", run + "/join").body, joined.body);
}

TEST(Streams, KeepLongEventsWhole) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const std::string text(300'000, 'x');
    const auto reply = api.call("POST", path + "/runs/stream", run_body("echo", text));
    const auto events = parse_sse(reply.body);
    ASSERT_EQ(names(events), (Names{"metadata", "values", "values"}));
    EXPECT_EQ(Json::parse(events[1].data).at("messages")[0].at("content"), text);
    const auto run = path + "/runs/" + Json::parse(events[0].data).at("run_id").get<std::string>();
    EXPECT_EQ(api.call("GET", run + "/stream").body, reply.body) << "and so does a replay";
}

TEST(Streams, ReportAFailureAsALastEvent) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto reply = api.call("POST", path + "/runs/stream", run_body("broken", "hi"));
    const auto events = parse_sse(reply.body);
    ASSERT_EQ(events.back().event, "error");
    EXPECT_EQ(Json::parse(events.back().data),
              (Json{{"error", "ModelError"}, {"message", "node \"answer\": the model said no"}}));
    const auto& before = events[events.size() - 2].id;
    EXPECT_GT(std::stoull(events.back().id), std::stoull(before));
    // Who has seen how it ended is not told again.
    const auto run = Json::parse(events[0].data).at("run_id").get<std::string>();
    const auto stream = path + "/runs/" + run + "/stream";
    EXPECT_EQ(api.call("GET", stream, {}, {{"last-event-id", before}}).body.find("event: error"),
              0U);
    EXPECT_EQ(api.call("GET", stream, {}, {{"last-event-id", events.back().id}}).body, "");
    // Nor has one that saw more than was left: tokens of a superstep that never ended.
    const auto ahead = scheduler::EventId{100, 1, 7}.to_string();
    const auto told = parse_sse(api.call("GET", stream, {}, {{"last-event-id", ahead}}).body);
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].event, "error");
    EXPECT_GT(std::stoull(told[0].id), std::stoull(ahead));
}

TEST(Streams, AllReadersSeeAllEvents) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto first = api.begin("POST", path + "/runs/stream", run_body("gated", "hi"));
    first->wait_for("event: values");
    const auto run = api.call("GET", path + "/runs").json()[0].at("run_id").get<std::string>();
    const auto stream = path + "/runs/" + run + "/stream";
    const auto second = api.begin("GET", stream);
    const auto begun = parse_sse(first->so_far().body);
    const auto resumed = api.begin("GET", stream, {}, {{"last-event-id", begun[1].id}});
    const auto updates = api.begin("GET", stream + "?stream_mode=updates");
    second->wait_for("event: values");
    api.gate.open();
    EXPECT_EQ(second->finish().body, first->finish().body);
    const auto rest = parse_sse(resumed->finish().body);
    ASSERT_EQ(names(rest), (Names{"values"})) << "no metadata, and only what came after";
    EXPECT_GT(std::stoull(rest[0].id), std::stoull(begun[1].id));
    EXPECT_EQ(names(parse_sse(updates->finish().body)), (Names{"metadata"}))
        << "the filter is obeyed";

    const auto late = api.call("GET", stream, {}, {{"last-event-id", "-1"}});
    EXPECT_EQ(late.body, first->finish().body) << "an ended run can be read again for a while";
    EXPECT_EQ(api.call("GET", stream + "?stream_mode=odd").status, 422);
    EXPECT_EQ(api.call("GET", "/runs/" + run + "/stream").body, first->finish().body);
}

TEST(Streams, SendHeartbeatsWhileARunIsSilent) {
    ApiOptions options;
    options.heartbeat_every = std::chrono::milliseconds{1};
    TestApi api{options};
    const auto path = "/threads/" + api.make_thread();
    const auto exchange = api.begin("POST", path + "/runs/stream", run_body("gated", "hi"));
    exchange->wait_for(": heartbeat\n: heartbeat\n");
    api.gate.open();
    EXPECT_EQ(names(parse_sse(exchange->finish().body)), (Names{"metadata", "values", "values"}));
}

TEST(Streams, OfARunThatLoggedNothingGiveItsValues) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    ASSERT_EQ(api.call("POST", path + "/runs/wait", run_body("echo", "hi")).status, 200);
    const auto run = api.call("GET", path + "/runs").json()[0].at("run_id").get<std::string>();
    const auto reply = api.call("GET", path + "/runs/" + run + "/stream?stream_mode=values");
    const auto events = parse_sse(reply.body);
    ASSERT_EQ(names(events), (Names{"metadata", "values"}));
    EXPECT_EQ(Json::parse(events[1].data).at("messages").size(), 2U);
    EXPECT_EQ(names(parse_sse(
                  api.call("GET", path + "/runs/" + run + "/stream?stream_mode=updates").body)),
              (Names{"metadata"}));
}

TEST(Streams, WithoutAThreadHaveIdsToo) {
    TestApi api;
    const auto reply = api.call("POST", "/runs/stream", run_body("echo", "hi"));
    EXPECT_TRUE(reply.header("content-location").starts_with("/runs/")) << reply.body;
    EXPECT_EQ(names(parse_sse(reply.body)), (Names{"metadata", "values", "values"}));
}

}  // namespace
}  // namespace heddle::api::test
