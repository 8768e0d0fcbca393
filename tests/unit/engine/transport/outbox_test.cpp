#include "engine/transport/outbox.hpp"

#include <map>
#include <thread>

#include <gtest/gtest.h>
#include <poll.h>

namespace heddle::transport {
namespace {

bool is_readable(int fd) {
    pollfd waiting{fd, POLLIN, 0};
    return ::poll(&waiting, 1, 0) == 1;
}

TEST(Outbox, KeepsTheOrderOfEachWriter) {
    constexpr std::uint64_t kWriters = 4;
    constexpr int kEach = 5000;
    Outbox outbox{1'000'000};
    std::vector<std::thread> writers;
    for (std::uint64_t writer = 0; writer < kWriters; ++writer) {
        writers.emplace_back([&outbox, writer] {
            for (int i = 0; i < kEach; ++i) {
                outbox.push({writer, std::to_string(i), false});
            }
        });
    }
    std::vector<OutFrame> taken;
    while (taken.size() < kWriters * kEach) {
        outbox.take(taken);
    }
    for (auto& writer : writers) {
        writer.join();
    }

    std::map<std::uint64_t, int> next;
    for (const auto& frame : taken) {
        EXPECT_EQ(frame.bytes, std::to_string(next[frame.serial]++));
    }
}

TEST(Outbox, WakesOnlyATransportThatSleeps) {
    Outbox outbox{10};
    outbox.push({1, "a", false});
    EXPECT_FALSE(is_readable(outbox.wake_fd()));
    EXPECT_FALSE(outbox.prepare_sleep()) << "a frame waits";

    std::vector<OutFrame> taken;
    outbox.take(taken);
    EXPECT_TRUE(outbox.prepare_sleep());
    outbox.push({1, "b", false});
    EXPECT_TRUE(is_readable(outbox.wake_fd()));
    outbox.woken(true);
    EXPECT_FALSE(is_readable(outbox.wake_fd()));
}

TEST(Outbox, IsFullUntilItsFramesAreSent) {
    Outbox outbox{2};
    outbox.push({1, "a", false});
    EXPECT_FALSE(outbox.is_full());
    outbox.push({1, "b", false});
    EXPECT_TRUE(outbox.is_full());
    EXPECT_TRUE(outbox.take_full_seen());
    EXPECT_FALSE(outbox.take_full_seen());

    std::vector<OutFrame> taken;
    outbox.take(taken);
    EXPECT_TRUE(outbox.is_full()) << "taken is not sent";
    outbox.sent(taken.size());
    EXPECT_FALSE(outbox.is_full());
}

}  // namespace
}  // namespace heddle::transport
