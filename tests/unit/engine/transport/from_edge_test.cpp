#include "engine/transport/from_edge.hpp"

#include <chrono>

#include <gtest/gtest.h>

namespace heddle::transport {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr base::Instant kStart{std::chrono::hours{1}};

TEST(Hearing, AnEdgeThatPingsIsNotLate) {
    Hearing hearing{kStart};
    EXPECT_FALSE(hearing.is_late(kStart));
    auto now = kStart;
    for (int i = 0; i < 10; ++i) {
        now += milliseconds{1100};
        hearing.on_frame(now);
        EXPECT_FALSE(hearing.is_late(now));
    }
}

TEST(Hearing, WhatComesBehindASilenceIsLateUntilItMustBeNew) {
    Hearing hearing{kStart};
    // The edge gave this engine up 2.5 s after the answer to its ping at 1.0 s did not come.
    const auto woken = kStart + milliseconds{1500};
    EXPECT_EQ(hearing.silence(woken), milliseconds{1500});
    hearing.on_frame(woken);
    EXPECT_TRUE(hearing.is_late(woken));
    const auto soon = woken + seconds{1};
    hearing.on_frame(soon);
    EXPECT_EQ(hearing.silence(soon), seconds{0});
    EXPECT_TRUE(hearing.is_late(soon)) << "the rest of what had piled up";
    for (int i = 2; i <= 4; ++i) {
        hearing.on_frame(woken + seconds{i});
    }
    EXPECT_FALSE(hearing.is_late(woken + seconds{4}));
}

TEST(ToApi, SaysHowARequestCame) {
    wire::Request sent;
    sent.method = "POST";
    sent.run_id = "r";
    sent.hop = 2;
    sent.deadline_ms = 1500;
    const auto request = to_api(sent, kStart, true);
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.run_id, "r");
    EXPECT_EQ(request.hop, 2U);
    EXPECT_TRUE(request.late);
    EXPECT_EQ(request.deadline, kStart + milliseconds{1500});
    sent.deadline_ms = 0;
    EXPECT_EQ(to_api(sent, kStart, false).deadline, base::Instant::max());
    EXPECT_FALSE(to_api(sent, kStart, false).late);
}

}  // namespace
}  // namespace heddle::transport
