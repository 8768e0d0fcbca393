#include "engine/scheduler/run_log.hpp"

#include <gtest/gtest.h>

namespace heddle::scheduler {
namespace {

graph::StreamEvent event(const std::string& data) {
    return {graph::StreamMode::updates, data};
}

TEST(RunLog, NumbersFromOneWithoutGaps) {
    RunLog log{1024};
    EXPECT_EQ(log.last_id(), 0U);
    log.append(event("a"));
    log.append(event("b"));
    ASSERT_NE(log.find_after(0), nullptr);
    EXPECT_EQ(log.find_after(0)->data, "a");
    EXPECT_EQ(log.find_after(1)->id, 2U);
    EXPECT_EQ(log.find_after(2), nullptr);
}

TEST(RunLog, DropsTheOldestPastItsBytesAndSaysSo) {
    RunLog log{10};
    for (int i = 0; i < 5; ++i) {
        log.append(event("1234"));
    }
    EXPECT_EQ(log.first_id(), 4U);
    EXPECT_LE(log.bytes(), 10U);
    EXPECT_EQ(log.find_after(0)->id, 4U);
    log.append(event(std::string(100, 'x')));  // larger than the bound, still read once
    EXPECT_EQ(log.find_after(5)->data.size(), 100U);
    EXPECT_EQ(log.first_id(), 6U);
}

}  // namespace
}  // namespace heddle::scheduler
