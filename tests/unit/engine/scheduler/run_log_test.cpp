#include "engine/scheduler/run_log.hpp"

#include <gtest/gtest.h>

namespace heddle::scheduler {
namespace {

LoggedEvent event(EventId id, const std::string& data) {
    return {id, graph::StreamMode::updates, data};
}

TEST(RunLog, FindsWhatComesAfterAnyPosition) {
    RunLog log{1024};
    EXPECT_TRUE(log.is_empty());
    log.append(event({1, 1, 1}, "token"));
    log.append(event({2, 0, 1}, "step"));
    ASSERT_NE(log.find_after({}), nullptr);
    EXPECT_EQ(log.find_after({})->data, "token");
    EXPECT_EQ(log.find_after({1, 1, 7})->data, "step") << "a position need not be an event's";
    EXPECT_EQ(log.find_after({2, 0, 1}), nullptr);
    EXPECT_EQ(log.last_id(), (EventId{2, 0, 1}));
}

TEST(RunLog, DropsTheOldestPastItsBytesAndSaysSo) {
    RunLog log{10};
    for (std::uint32_t i = 1; i <= 5; ++i) {
        log.append(event({1, 1, i}, "1234"));
    }
    EXPECT_EQ(log.dropped_to(), (EventId{1, 1, 3}));
    EXPECT_LE(log.bytes(), 10U);
    EXPECT_EQ(log.find_after({})->id, (EventId{1, 1, 4}));
    log.append(event({1, 1, 6}, std::string(100, 'x')));  // above the bound, still read once
    EXPECT_EQ(log.find_after({1, 1, 5})->data.size(), 100U);
    EXPECT_EQ(log.dropped_to(), (EventId{1, 1, 5}));
}

TEST(RunLog, ShowsNothingBehindAGateThatIsNotOpen) {
    RunLog log{10};
    log.append(event({1, 1, 1}, "a"));
    log.add_gate();
    log.append(event({2, 0, 1}, "b"));
    log.append(event({2, 1, 2}, "c"));
    log.add_gate();
    log.append(event({3, 0, 1}, "d"));
    EXPECT_EQ(log.find_after({1, 1, 1}), nullptr);
    log.open_gate();
    EXPECT_EQ(log.find_after({1, 1, 1})->data, "b");
    EXPECT_EQ(log.find_after({2, 1, 2}), nullptr) << "its row is not on disk";
    log.open_gate();
    EXPECT_EQ(log.find_after({2, 1, 2})->data, "d");
}

TEST(RunLog, KeepsItsGatesWhileOldEventsGo) {
    RunLog log{4};
    log.append(event({1, 1, 1}, "aa"));
    log.add_gate();
    log.append(event({2, 0, 1}, "bb"));
    log.append(event({3, 1, 1}, "cc"));
    log.append(event({3, 1, 2}, "dd"));
    EXPECT_EQ(log.find_after({}), nullptr);
    log.open_gate();
    EXPECT_EQ(log.find_after({})->data, "cc");
    EXPECT_EQ(log.dropped_to(), (EventId{2, 0, 1}));
}

TEST(RunLog, AnnouncesTheAttemptsOfEventsThatAreReadBack) {
    const base::RunId run{base::make_uuid_v7()};
    const graph::StreamEvent emitted{graph::StreamMode::custom, "{}"};
    // seq, attempt, number: the first step was made by attempt 1, the second by attempt 3.
    const std::vector<graph::RowEvent> events{{4, 1, 1, emitted},
                                              {4, 0, 1, emitted},
                                              {5, 3, 1, emitted},
                                              {5, 3, 2, emitted},
                                              {5, 0, 1, emitted}};
    std::vector<EventId> ids;
    for (const auto& each : logged_events(run, events)) {
        ids.push_back(each.id);
        EXPECT_EQ(each.mode.has_value(), each.id.number != 0);
    }
    EXPECT_EQ(ids, (std::vector<EventId>{
                       {4, 1, 1}, {5, 0, 1}, {5, 3, 0}, {5, 3, 1}, {5, 3, 2}, {6, 0, 1}}));
}

TEST(EventId, IsOneNumberThatAscendsAsTheIdsDo) {
    const EventId ids[] = {{0, 0, 0},  {0, 1, 0}, {0, 1, EventId::kNumberMax},
                           {0, 2, 0},  {1, 0, 1}, {1, 1, 0},
                           {1, 31, 1}, {2, 0, 1}, {999, 30, 5}};
    std::uint64_t last = 0;
    for (const auto& id : ids) {
        EXPECT_EQ(EventId::parse(id.to_string()), id);
        EXPECT_TRUE(id == EventId{} || std::stoull(id.to_string()) > last) << id.to_string();
        last = std::stoull(id.to_string());
    }
    EXPECT_EQ(EventId{}.to_string(), "0");
    for (const auto* text : {"", "-1", "x", "1x", "1.2", "99999999999999999999"}) {
        EXPECT_EQ(EventId::parse(text), std::nullopt) << text;
    }
}

}  // namespace
}  // namespace heddle::scheduler
