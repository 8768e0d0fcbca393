#include "engine/base/uuid.hpp"

#include <set>

#include <gtest/gtest.h>

#include "engine/base/clock.hpp"

namespace heddle::base {
namespace {

TEST(Uuid, ParsesOnlyTheHyphenatedForm) {
    const auto uuid = Uuid::parse("6BA7B821-9dad-11d1-80b4-00c04fd430c8");
    ASSERT_TRUE(uuid);
    EXPECT_EQ(uuid->to_string(), "6ba7b821-9dad-11d1-80b4-00c04fd430c8");
    EXPECT_FALSE(Uuid::parse("6ba7b8219dad11d180b400c04fd430c8"));
    EXPECT_FALSE(Uuid::parse("6ba7b821-9dad-11d1-80b4-00c04fd430cg"));
    EXPECT_FALSE(Uuid::parse("6ba7b821-9dad-11d1-80b4-00c04fd430c8 "));
    EXPECT_FALSE(Uuid::parse(""));
}

TEST(Uuid, Version5MatchesTheRfcExample) {
    const auto dns = Uuid::parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    EXPECT_EQ(make_uuid_v5(*dns, "www.example.com").to_string(),
              "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

TEST(Uuid, Version6NeverGoesBack) {
    auto last = make_uuid_v6();
    for (int i = 0; i < 100'000; ++i) {
        const auto next = make_uuid_v6();
        ASSERT_LT(last, next);
        last = next;
    }
    EXPECT_EQ(last.to_string()[14], '6');
}

TEST(Uuid, Version7DoesNotRepeat) {
    std::set<Uuid> seen;
    for (int i = 0; i < 50'000; ++i) {
        ASSERT_TRUE(seen.insert(make_uuid_v7()).second);
    }
    EXPECT_EQ(seen.begin()->to_string()[14], '7');
}

TEST(FormatIso8601, WritesMicrosecondsInUtc) {
    EXPECT_EQ(format_iso8601(1'700'000'000'123'456), "2023-11-14T22:13:20.123456+00:00");
    EXPECT_EQ(format_iso8601(-1), "1969-12-31T23:59:59.999999+00:00");
}

}  // namespace
}  // namespace heddle::base
