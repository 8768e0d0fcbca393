#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

using base::Json;
using Names = std::vector<std::string>;

// Room for about half of the events of "talk".
scheduler::SchedulerLimits narrow() {
    scheduler::SchedulerLimits limits;
    limits.run_log_bytes_max = 2048;
    return limits;
}

// Nothing of a run that has ended stays in memory.
scheduler::SchedulerLimits forgetful() {
    scheduler::SchedulerLimits limits;
    limits.ended_runs_bytes_max = 0;
    return limits;
}

struct Made {
    std::string thread;  ///< its path
    std::string stream;
};

Made start(TestApi& api, const std::string& agent, const Json& extra) {
    const auto path = "/threads/" + api.make_thread();
    const auto reply = api.call("POST", path + "/runs", run_body(agent, "hi", extra));
    return {path, path + "/runs/" + reply.json().at("run_id").get<std::string>() + "/stream"};
}

// Waits for its end, too.
Made run(TestApi& api, const std::string& agent, const Json& extra) {
    api.gate.open();
    auto made = start(api, agent, extra);
    const auto join = made.stream.substr(0, made.stream.size() - 6) + "join";
    EXPECT_EQ(api.call("GET", join).status, 200);
    return made;
}

std::vector<SseEvent> read(TestApi& api, const std::string& target, const std::string& after = {}) {
    Headers headers;
    if (!after.empty()) {
        headers.emplace_back("last-event-id", after);
    }
    const auto reply = api.call("GET", target, {}, headers);
    EXPECT_TRUE(reply.ended) << reply.failed;
    auto events = parse_sse(reply.body);
    for (std::size_t i = 1; i < events.size(); ++i) {
        EXPECT_LT(std::stoull(events[i - 1].id), std::stoull(events[i].id)) << reply.body;
    }
    return events;
}

Names names(const std::vector<SseEvent>& events) {
    Names all;
    for (const auto& event : events) {
        all.push_back(event.event);
    }
    return all;
}

std::vector<int> said(const std::vector<SseEvent>& events) {
    std::vector<int> all;
    for (const auto& event : events) {
        if (event.event == "custom") {
            all.push_back(Json::parse(event.data).at("said").get<int>());
        }
    }
    return all;
}

std::vector<SseEvent> of(const std::vector<SseEvent>& events, const std::string& name) {
    std::vector<SseEvent> found;
    for (const auto& event : events) {
        if (event.event == name) {
            found.push_back(event);
        }
    }
    return found;
}

std::string body_of(const std::vector<SseEvent>& events) {
    std::string all;
    for (const auto& event : events) {
        all += event.event + ' ' + event.id + ' ' + event.data + '\n';
    }
    return all;
}

const Json kTalk{{"stream_mode", {"custom", "updates"}}};

TEST(LostEvents, AreAnnouncedOnceAndTheStreamGoesOn) {
    TestApi api{{}, narrow()};
    const auto made = start(api, "talk", kTalk);
    api.gate.wait_arrived(1);
    const auto late = api.begin("GET", made.stream);
    late->wait_for(R"({"said":40})");
    api.gate.open();
    const auto reply = late->finish();
    EXPECT_TRUE(reply.ended);
    const auto events = parse_sse(reply.body);
    ASSERT_GE(events.size(), 5U) << reply.body;
    EXPECT_EQ(events[1].event, "lost") << "in the place of the last that is lost";
    ASSERT_EQ(of(events, "lost").size(), 1U);
    const auto data = Json::parse(events[1].data);
    EXPECT_EQ(data.at("code"), "events_lost");
    EXPECT_EQ(data.at("modes"), Json{"custom"});
    EXPECT_EQ(data.at("after"), "0");
    EXPECT_EQ(data.at("state"), made.thread + "/state");
    const auto at = data.at("checkpoint_id").get<std::string>();
    EXPECT_EQ(api.call("GET", made.thread + "/state/" + at).status, 200);
    auto heard = said(events);
    ASSERT_FALSE(heard.empty());
    EXPECT_GT(heard.front(), 1);
    for (std::size_t i = 0; i < heard.size(); ++i) {
        EXPECT_EQ(heard[i], heard[0] + static_cast<int>(i)) << "and nothing is missing after it";
    }
    EXPECT_EQ(heard.back(), 45);
    EXPECT_EQ(of(events, "updates").size(), 2U);
    EXPECT_TRUE(of(events, "error").empty());

    // Its id is a position like any other: it claims no end, and is not told again.
    const auto rest = read(api, made.stream, events[1].id);
    EXPECT_TRUE(of(rest, "lost").empty() || rest.front().event == "lost");
    EXPECT_EQ(of(rest, "updates").size(), 2U);
}

TEST(LostEvents, OfModesThatNobodyAsksForAreNoLoss) {
    TestApi api{{}, narrow()};
    const auto made = run(api, "talk", kTalk);
    EXPECT_EQ(names(read(api, made.stream + "?stream_mode=updates")),
              (Names{"metadata", "updates", "updates"}));
}

TEST(LostEvents, OfStepsAreReadBack) {
    TestApi roomy;
    const Json modes{{"stream_mode", {"values", "updates", "debug"}}};
    const auto expected = names(read(roomy, run(roomy, "pair", modes).stream));
    ASSERT_GE(expected.size(), 6U);

    scheduler::SchedulerLimits limits;
    limits.run_log_bytes_max = 1;  // the newest event stays
    TestApi api{{}, limits};
    const auto made = run(api, "pair", {{"stream_mode", {"values", "updates"}}});
    const auto events = read(api, made.stream);
    EXPECT_EQ(names(events),
              (Names{"metadata", "values", "updates", "values", "updates", "values"}));
    for (std::size_t i = 0; i < events.size(); ++i) {
        const auto rest = read(api, made.stream, events[i].id);
        EXPECT_EQ(body_of(rest),
                  body_of({events.begin() + static_cast<std::ptrdiff_t>(i) + 1, events.end()}));
    }
}

TEST(LostEvents, DoNotHideHowTheRunEnded) {
    TestApi api{{}, narrow()};
    const auto made = run(api, "talk_broken", kTalk);
    const auto events = read(api, made.stream);
    ASSERT_EQ(of(events, "lost").size(), 1U);
    ASSERT_EQ(events.back().event, "error");
    EXPECT_EQ(Json::parse(events.back().data).at("error"), "ModelError");
    const auto rest = read(api, made.stream, of(events, "lost").front().id);
    ASSERT_FALSE(rest.empty()) << "it was not told of the end";
    EXPECT_EQ(body_of({rest.back()}), body_of({events.back()}));
}

TEST(LostEvents, ThatAreKeptOnDiskAreWaitedFor) {
    TestApi api{{}, narrow()};
    auto resumable = kTalk;
    resumable["stream_resumable"] = true;
    const auto made = start(api, "talk", resumable);
    api.gate.wait_arrived(1);
    const auto late = api.begin("GET", made.stream);
    late->wait_for("event: metadata");
    api.gate.open();
    const auto reply = late->finish();
    EXPECT_TRUE(reply.ended) << reply.failed;
    const auto events = parse_sse(reply.body);
    EXPECT_EQ(said(events).size(), 45U) << reply.body;
    EXPECT_TRUE(of(events, "lost").empty());
    EXPECT_EQ(of(events, "updates").size(), 2U);
}

TEST(LostEvents, OfStepsThatAreNotOnDiskAreLossesToo) {
    TestApi api{{}, narrow()};
    auto exits = kTalk;
    exits["durability"] = "exit";
    exits["stream_mode"] = {"values", "custom"};
    const auto made = start(api, "talk", exits);
    api.gate.wait_arrived(1);
    const auto late = api.begin("GET", made.stream);
    late->wait_for("event: lost");
    const auto told = of(parse_sse(late->so_far().body), "lost");
    ASSERT_EQ(told.size(), 1U);
    const auto data = Json::parse(told.front().data);
    EXPECT_EQ(data.at("modes").size(), 2U) << data;
    api.gate.open();
    EXPECT_TRUE(late->finish().ended);
    EXPECT_EQ(of(read(api, made.stream), "values").size(), 3U) << "now they are there";
}

TEST(LostEvents, OfRunsThatTheShardHasNoRoomForAreAnnounced) {
    scheduler::SchedulerLimits limits;
    limits.active_logs_bytes_max = 2048;
    TestApi api{{}, limits};
    const auto made = start(api, "talk", kTalk);
    api.gate.wait_arrived(1);
    const auto late = api.begin("GET", made.stream);
    late->wait_for("event: lost");
    api.gate.open();
    EXPECT_EQ(of(parse_sse(late->finish().body), "updates").size(), 2U);
}

TEST(LostEvents, OfARunThatLeftMemoryAreAnnouncedToWhoComesBack) {
    TestApi api{{}, forgetful()};
    api.gate.open();
    const auto path = "/threads/" + api.make_thread();
    const auto first =
        parse_sse(api.call("POST", path + "/runs/stream", run_body("talk", "hi", kTalk)).body);
    ASSERT_EQ(said(first).size(), 45U);
    const auto run = Json::parse(first[0].data).at("run_id").get<std::string>();
    const auto stream = path + "/runs/" + run + "/stream";
    const auto tokens = of(first, "custom");

    const auto middle = read(api, stream, tokens[9].id);
    ASSERT_EQ(names(middle), (Names{"lost", "updates", "updates"}));
    EXPECT_EQ(middle[0].id, tokens.back().id);
    EXPECT_EQ(Json::parse(middle[0].data).at("after"), tokens[9].id);
    EXPECT_EQ(body_of({middle.begin() + 1, middle.end()}), body_of(of(first, "updates")));

    EXPECT_EQ(names(read(api, stream, tokens.back().id)), (Names{"updates", "updates"}))
        << "nothing that it asked for is missing";
    EXPECT_EQ(names(read(api, stream + "?stream_mode=updates", tokens[9].id)),
              (Names{"updates", "updates"}));
    EXPECT_EQ(names(read(api, stream)), (Names{"metadata", "lost", "updates", "updates"}));
}

TEST(LostEvents, OfASuperstepThatFailedAreAnnouncedBeforeTheFailure) {
    TestApi api{{}, forgetful()};
    const auto made = run(api, "talk_broken", kTalk);
    const auto events = read(api, made.stream);
    EXPECT_EQ(names(events), (Names{"metadata", "updates", "lost", "error"}));
    EXPECT_EQ(names(read(api, made.stream, events[2].id)), (Names{"error"}));
    EXPECT_EQ(names(read(api, made.stream + "?stream_mode=updates")),
              (Names{"metadata", "updates", "error"}));
}

TEST(LostEvents, BeyondWhatIsKeptOnDiskAreAnnounced) {
    auto limits = forgetful();
    limits.live_bytes_max = 500;
    TestApi api{{}, limits};
    auto resumable = kTalk;
    resumable["stream_resumable"] = true;
    const auto made = run(api, "talk", resumable);
    const auto events = read(api, made.stream);
    const auto heard = said(events);
    ASSERT_FALSE(heard.empty());
    ASSERT_LT(heard.size(), 45U);
    EXPECT_EQ(heard.front(), 1);
    ASSERT_EQ(of(events, "lost").size(), 1U) << "where silence was";
    EXPECT_EQ(events[heard.size() + 1].event, "lost");
    EXPECT_EQ(of(events, "updates").size(), 2U);
}

}  // namespace
}  // namespace heddle::api::test
