#include "engine/scheduler/run_log.hpp"

#include <memory>

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

// So that tests can speak of events instead of bytes.
std::size_t bytes_of(std::size_t events) {
    return events * cost_of(event({}, "short"));
}

// The newest of its kind that was dropped.
EventId dropped_to(const RunLog& log, graph::StreamMode mode, bool of_step) {
    for (const auto& each : log.dropped()) {
        if (each.mode == mode && each.of_step == of_step) {
            return each.newest;
        }
    }
    return {};
}

TEST(RunLog, DropsTheOldestPastItsBytesAndSaysSo) {
    RunLog log{bytes_of(2)};
    for (std::uint32_t i = 1; i <= 5; ++i) {
        log.append(event({1, 1, i}, "1234"));
    }
    EXPECT_EQ(dropped_to(log, graph::StreamMode::updates, false), (EventId{1, 1, 3}));
    EXPECT_LE(log.bytes(), bytes_of(2));
    EXPECT_EQ(log.find_after({})->id, (EventId{1, 1, 4}));
    log.append(event({1, 1, 6}, std::string(1000, 'x')));  // above the bound, still read once
    EXPECT_EQ(log.find_after({1, 1, 5})->data.size(), 1000U);
    EXPECT_EQ(dropped_to(log, graph::StreamMode::updates, false), (EventId{1, 1, 5}));
    log.append({{2, 0, 1}, graph::StreamMode::values, "{}"});
    log.append(event({2, 0, 2}, std::string(1000, 'x')));
    EXPECT_EQ(dropped_to(log, graph::StreamMode::values, true), (EventId{2, 0, 1}));
    EXPECT_EQ(dropped_to(log, graph::StreamMode::values, false), EventId{}) << "of no step";
}

TEST(RunLog, CountsWhatAnEventTakesInMemory) {
    constexpr std::uint32_t kEvents = 10'000;
    RunLog log{SIZE_MAX};
    for (std::uint32_t i = 1; i <= kEvents; ++i) {
        log.append(event({1, 1, i}, "8 bytes."));
    }
    EXPECT_GE(log.bytes(), kEvents * sizeof(LoggedEvent));
    RunLog bounded{kEvents};
    for (std::uint32_t i = 1; i <= kEvents; ++i) {
        bounded.append(event({1, 1, i}, "8 bytes."));
    }
    EXPECT_LE(bounded.bytes(), kEvents);
    std::string roomy(100, 'x');
    roomy.reserve(4096);
    EXPECT_GT(cost_of({{}, std::nullopt, std::move(roomy)}), 4096U);
}

TEST(RunLog, NeverDropsWhatIsSaidOfTheEnd) {
    RunLog log{1};
    log.append(event(EventId::of_stop(3, false), "a"));
    log.append(event(EventId::of_stop(3, true), "b"));
    EXPECT_EQ(log.find_after({})->data, "a") << "it is in no journal row";
}

TEST(RunLog, TellsWhatItWasGivenAsLost) {
    RunLog log{bytes_of(10)};
    log.append(event({1, 1, 1}, "a"));
    log.append({{1, 1, 9}, graph::StreamMode::updates, {}, true});
    log.append(event({2, 0, 1}, "b"));
    EXPECT_EQ(dropped_to(log, graph::StreamMode::updates, false), (EventId{1, 1, 9}));
    EXPECT_EQ(log.find_after({1, 1, 1})->data, "b");
}

TEST(LogBudget, TakesFromTheLargestLogOfAShard) {
    LogBudget budget{bytes_of(100)};
    RunLog quiet{SIZE_MAX, &budget};
    RunLog noisy{SIZE_MAX, &budget};
    RunLog last{SIZE_MAX, &budget};
    quiet.append(event({1, 1, 1}, "q"));
    quiet.append(event({1, 1, 2}, "q"));
    for (std::uint32_t i = 1; i <= 1000; ++i) {
        noisy.append(event({1, 1, i}, "n"));
        ASSERT_LE(budget.bytes(), bytes_of(100));
    }
    EXPECT_TRUE(quiet.dropped().empty()) << "it has said little";
    EXPECT_FALSE(noisy.dropped().empty());
    EXPECT_EQ(noisy.find_after({1, 1, 999})->id, (EventId{1, 1, 1000}));
    last.append(event({1, 1, 1}, "l"));
    EXPECT_NE(last.find_after({}), nullptr);
    EXPECT_EQ(budget.bytes(), quiet.bytes() + noisy.bytes() + last.bytes());
    noisy.close();
    EXPECT_EQ(budget.bytes(), quiet.bytes() + last.bytes()) << "an ended run counts elsewhere";
}

TEST(LogBudget, TakesTheNewestThatAreInTheStoreWhenNothingElseIsLeft) {
    LogBudget budget{bytes_of(4)};
    std::vector<std::unique_ptr<RunLog>> logs;
    for (int i = 0; i < 10; ++i) {
        logs.push_back(std::make_unique<RunLog>(SIZE_MAX, &budget));
        logs.back()->add_gate(2);
        logs.back()->append(event({2, 0, 1}, "row"));
        ASSERT_LE(budget.bytes(), bytes_of(4));
    }
    RunLog token{SIZE_MAX, &budget};
    token.append(event({2, 1, 1}, "token"));
    EXPECT_LE(budget.bytes(), bytes_of(4));
    EXPECT_EQ(token.find_after({})->data, "token") << "nobody else has it";
    for (auto& log : logs) {
        const bool is_gone = !log->dropped().empty();
        EXPECT_TRUE(!is_gone || !log->is_shown(log->dropped().front())) << "not on disk yet";
        log->open_gate();
        EXPECT_EQ(log->find_after({}) == nullptr, is_gone);
        EXPECT_TRUE(!is_gone || log->is_shown(log->dropped().front()));
        log->add_gate(3);
        log->append(event({3, 0, 1}, "row"));
    }
    EXPECT_LE(budget.bytes(), bytes_of(4));
    for (auto& log : logs) {
        log->open_gate();
        log->append(event({4, 0, 1}, "row"));  // as with durability "exit": no gate, no row yet
        EXPECT_EQ(log->find_after({3, 0, 1})->data, "row");
    }
}

TEST(LogBudget, OutlivesItsLogsOrNot) {
    auto log = std::make_unique<RunLog>(SIZE_MAX);
    {
        LogBudget budget{bytes_of(2)};
        log = std::make_unique<RunLog>(SIZE_MAX, &budget);
        log->append(event({1, 1, 1}, "a"));
        {
            RunLog other{SIZE_MAX, &budget};
            other.append(event({1, 1, 1}, "b"));
        }
        EXPECT_EQ(budget.bytes(), log->bytes());
    }
    log->append(event({1, 1, 2}, "c"));
    EXPECT_EQ(log->find_after({1, 1, 1})->data, "c");
}

TEST(RunLog, ShowsNothingBehindAGateThatIsNotOpen) {
    RunLog log{bytes_of(10)};
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
    RunLog log{bytes_of(2)};
    log.append(event({1, 1, 1}, "aa"));
    log.add_gate(2);
    log.append(event({2, 0, 1}, "bb"));
    log.append(event({3, 1, 1}, "cc"));
    log.append(event({3, 1, 2}, "dd"));
    EXPECT_EQ(log.find_after({}), nullptr);
    ASSERT_EQ(log.dropped().size(), 2U);
    EXPECT_TRUE(log.is_shown(log.dropped()[0]));
    EXPECT_FALSE(log.is_shown(log.dropped()[1])) << "it was dropped behind the gate";
    EXPECT_EQ(log.stored_rows(), 0U);
    log.open_gate();
    EXPECT_EQ(log.find_after({})->data, "cc");
    EXPECT_TRUE(log.is_shown(log.dropped()[1]));
    EXPECT_EQ(log.stored_rows(), 2U);
    EXPECT_EQ(dropped_to(log, graph::StreamMode::updates, true), (EventId{2, 0, 1}));
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
