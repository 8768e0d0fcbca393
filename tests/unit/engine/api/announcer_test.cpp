#include "engine/api/announcer.hpp"

#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using graph::StreamMode;
using scheduler::EventId;
using scheduler::LoggedEvent;

const base::RunId kRun{};

LoggedEvent token(std::uint64_t rows, std::uint32_t attempt, std::uint32_t number) {
    return {EventId{rows, attempt, number}, StreamMode::messages_tuple, R"("a token")"};
}

std::string text_of(const LoggedEvent& event) {
    std::string text;
    append_logged(text, event);
    return text;
}

std::string announcement(std::uint64_t rows, std::uint32_t attempt) {
    return text_of({EventId{rows, attempt, 0}, std::nullopt,
                    scheduler::run_metadata(kRun, static_cast<std::int32_t>(attempt))});
}

std::string through(Announcer announcer, const std::vector<LoggedEvent>& events) {
    std::string out;
    for (const auto& event : events) {
        announcer.append(out, event);
    }
    return out;
}

TEST(Announcer, TheFirstAttemptNeedsNone) {
    const std::vector<LoggedEvent> events{token(1, 1, 1), token(1, 1, 2)};
    EXPECT_EQ(through({kRun, std::nullopt}, events), text_of(events[0]) + text_of(events[1]));
}

TEST(Announcer, AFurtherAttemptIsAnnouncedOnceBeforeItsFirstToken) {
    const std::vector<LoggedEvent> events{token(1, 1, 1), token(1, 2, 1), token(1, 2, 2),
                                          token(4, 3, 1)};
    EXPECT_EQ(through({kRun, std::nullopt}, events), text_of(events[0]) + announcement(1, 2) +
                                                         text_of(events[1]) + text_of(events[2]) +
                                                         announcement(4, 3) + text_of(events[3]));
}

TEST(Announcer, WhatTheLogAnnouncesIsNotAnnouncedTwice) {
    const LoggedEvent in_log{EventId{2, 2, 0}, std::nullopt, scheduler::run_metadata(kRun, 2)};
    EXPECT_EQ(through({kRun, std::nullopt}, {in_log, token(2, 2, 1)}),
              text_of(in_log) + text_of(token(2, 2, 1)));
}

TEST(Announcer, WhoComesBackKnowsTheAttemptItHasReadAndNoLaterOne) {
    const std::vector<LoggedEvent> events{token(3, 2, 7), token(3, 3, 1)};
    EXPECT_EQ(through({kRun, EventId{3, 2, 6}}, events),
              text_of(events[0]) + announcement(3, 3) + text_of(events[1]));
    // Past the announcement of an attempt that got further in the memory of an engine now dead.
    EXPECT_EQ(through({kRun, EventId{5, 0, 2}}, {token(5, 2, 1)}),
              announcement(5, 2) + text_of(token(5, 2, 1)));
}

TEST(Announcer, TheEndIsOfNoAttempt) {
    const LoggedEvent end{EventId::of_stop(4, true), StreamMode::values, "{}"};
    EXPECT_EQ(through({kRun, std::nullopt}, {end}), text_of(end));
    EXPECT_EQ(through({kRun, EventId::of_failure(4)}, {token(5, 2, 1)}),
              announcement(5, 2) + text_of(token(5, 2, 1)));
}

}  // namespace
}  // namespace heddle::api
