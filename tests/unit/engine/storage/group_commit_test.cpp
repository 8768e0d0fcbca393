#include "engine/storage/group_commit.hpp"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace heddle::storage {
namespace {

StoreLimits make_limits(std::size_t rows, std::size_t bytes, std::size_t waiting) {
    StoreLimits limits;
    limits.batch_rows_max = rows;
    limits.batch_bytes_max = bytes;
    limits.waiting_max = waiting;
    return limits;
}
Pushed push(GroupCommitQueue<int>& queue,
            int value,
            std::size_t rows,
            std::size_t bytes,
            bool is_urgent = false) {
    return queue.try_push(value, rows, bytes, is_urgent);
}

TEST(GroupCommitQueue, ABatchIsBoundByRowsAndBytes) {
    GroupCommitQueue<int> queue{make_limits(4, 100, 10)};
    for (const auto& [value, rows, bytes] :
         {std::tuple{1, 2, 10}, {2, 2, 10}, {3, 1, 90}, {4, 1, 20}, {5, 9, 900}, {6, 1, 1}}) {
        EXPECT_EQ(
            push(queue, value, static_cast<std::size_t>(rows), static_cast<std::size_t>(bytes)),
            Pushed::taken);
    }
    EXPECT_EQ(queue.take(), (std::vector{1, 2}));
    EXPECT_EQ(queue.take(), (std::vector{3}));
    EXPECT_EQ(queue.take(), (std::vector{4}));
    EXPECT_EQ(queue.take(), (std::vector{5})) << "what is too large for any batch goes alone";
    EXPECT_EQ(queue.take(), (std::vector{6}));
}

TEST(GroupCommitQueue, AFullQueueRefusesAndLeavesTheValueAlone) {
    GroupCommitQueue<std::unique_ptr<int>> queue{make_limits(10, 100, 1)};
    auto first = std::make_unique<int>(1);
    auto second = std::make_unique<int>(2);
    EXPECT_EQ(queue.try_push(first, 1, 1), Pushed::taken);
    EXPECT_EQ(queue.try_push(second, 1, 1), Pushed::full);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(queue.try_push(second, 1, 1, true), Pushed::taken) << "urgent goes past the bound";
    const auto batch = queue.take();
    ASSERT_EQ(batch.size(), 2U);
    EXPECT_EQ(*batch[0], 2) << "and before everything else";
}

TEST(GroupCommitQueue, AClosedQueueHandsOutWhatWaitsAndThenNothing) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    EXPECT_EQ(push(queue, 1, 1, 1), Pushed::taken);
    queue.close();
    EXPECT_EQ(push(queue, 2, 1, 1), Pushed::closed);
    EXPECT_EQ(queue.take(), (std::vector{1}));
    EXPECT_TRUE(queue.take().empty());
}

TEST(GroupCommitQueue, WhatIsBegunAloneComesBeforeWhatCameMeanwhile) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    EXPECT_FALSE(queue.begin_alone()) << "nobody takes";
    std::vector<std::vector<int>> taken;
    std::thread taker{[&queue, &taken] {
        for (int i = 0; i < 3; ++i) {
            taken.push_back(queue.take());
        }
    }};
    while (!queue.begin_alone()) {
        std::this_thread::yield();
    }
    EXPECT_FALSE(queue.begin_alone()) << "one at a time";
    EXPECT_EQ(push(queue, 1, 1, 1), Pushed::taken);
    queue.end_alone(Alone::writer_waits);
    while (!queue.begin_alone()) {
        std::this_thread::yield();
    }
    EXPECT_EQ(push(queue, 2, 1, 1), Pushed::taken);
    queue.end_alone(Alone::done);
    taker.join();
    EXPECT_EQ(taken, (std::vector<std::vector<int>>{{}, {1}, {2}}));
}

// Begins a turn alone once the taker sleeps, and leaves what it has begun to its caller.
void begin_and_wait(GroupCommitQueue<int>& queue) {
    while (!queue.begin_alone()) {
        std::this_thread::yield();
    }
    queue.end_alone(Alone::caller_waits);
}

TEST(GroupCommitQueue, WhoHasBegunAloneMayFinishIt) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    EXPECT_FALSE(queue.resume_alone()) << "nothing is begun";
    std::vector<int> taken;
    std::thread taker{[&queue, &taken] { taken = queue.take(); }};
    begin_and_wait(queue);
    EXPECT_FALSE(queue.begin_alone()) << "something is begun already";
    EXPECT_TRUE(queue.resume_alone());
    EXPECT_FALSE(queue.resume_alone()) << "one at a time";
    EXPECT_EQ(push(queue, 1, 1, 1), Pushed::taken) << "during a turn it does not matter";
    queue.end_alone(Alone::done);
    taker.join();
    EXPECT_EQ(taken, (std::vector{1}));
}

TEST(GroupCommitQueue, TheWriterFinishesWhatOthersWouldWaitFor) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    std::vector<std::vector<int>> taken;
    std::thread taker{[&queue, &taken] {
        taken.push_back(queue.take());
        taken.push_back(queue.take());
    }};
    begin_and_wait(queue);
    EXPECT_EQ(push(queue, 1, 1, 1), Pushed::taken);
    if (queue.resume_alone()) {
        ADD_FAILURE() << "it is the writer's";
        queue.end_alone(Alone::writer_waits);
    }
    taker.join();
    EXPECT_EQ(taken, (std::vector<std::vector<int>>{{}, {1}}));
}

TEST(GroupCommitQueue, TheWriterFinishesWhatItsCallerLeavesLying) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    std::thread taker{[&queue] { EXPECT_TRUE(queue.take().empty()); }};
    begin_and_wait(queue);
    taker.join();  // a second or two
    EXPECT_FALSE(queue.resume_alone());
}

TEST(GroupCommitQueue, AClosedQueueHandsOutWhatACallerHasBegun) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    std::vector<std::vector<int>> taken;
    std::thread taker{[&queue, &taken] {
        taken.push_back(queue.take());
        EXPECT_FALSE(queue.resume_alone());
        taken.push_back(queue.take());
    }};
    begin_and_wait(queue);
    queue.close();
    taker.join();
    EXPECT_EQ(taken, (std::vector<std::vector<int>>{{}, {}}));
}

TEST(GroupCommitQueue, NobodyBeginsAloneWhileThereIsSomethingToGather) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    for (const int value : {1, 2, 3}) {
        EXPECT_EQ(push(queue, value, 1, 1), Pushed::taken);
    }
    std::atomic<int> taken = 0;
    std::thread taker{[&queue, &taken] {
        for (std::size_t size = 1; size > 0;) {
            size = queue.take().size();
            taken += static_cast<int>(size);
        }
    }};
    while (taken < 3) {
        std::this_thread::yield();
    }
    for (int i = 0; i < 1000; ++i) {
        EXPECT_FALSE(queue.begin_alone());
        std::this_thread::yield();
    }
    EXPECT_EQ(push(queue, 4, 1, 1), Pushed::taken);
    while (!queue.begin_alone()) {
        std::this_thread::yield();
    }
    queue.end_alone(Alone::done);
    queue.close();
    taker.join();
}

TEST(GroupCommitQueue, WhatIsBegunAloneIsHandedOutByAClosedQueue) {
    GroupCommitQueue<int> queue{make_limits(10, 100, 10)};
    std::vector<std::vector<int>> taken;
    std::thread taker{[&queue, &taken] {
        taken.push_back(queue.take());
        EXPECT_FALSE(queue.begin_alone()) << "closed";
        taken.push_back(queue.take());
    }};
    while (!queue.begin_alone()) {
        std::this_thread::yield();
    }
    queue.close();
    queue.end_alone(Alone::writer_waits);
    taker.join();
    EXPECT_EQ(taken, (std::vector<std::vector<int>>{{}, {}}));
}

TEST(GroupCommitQueue, ManyProducersLoseNothingAndKeepTheirOrder) {
    GroupCommitQueue<int> queue{make_limits(64, 1 << 20, 1 << 20)};
    constexpr int kProducers = 4;
    constexpr int kEach = 5000;
    std::vector<std::thread> producers;
    for (int p = 0; p < kProducers; ++p) {
        producers.emplace_back([&queue, p] {
            for (int i = 0; i < kEach; ++i) {
                EXPECT_EQ(push(queue, p * kEach + i, 1, 1), Pushed::taken);
            }
        });
    }
    std::vector<int> next(kProducers, 0);
    for (int taken = 0; taken < kProducers * kEach;) {
        for (const int value : queue.take()) {
            auto& expected = next[static_cast<std::size_t>(value / kEach)];
            EXPECT_EQ(value % kEach, expected++);
            ++taken;
        }
    }
    for (auto& producer : producers) {
        producer.join();
    }
}

}  // namespace
}  // namespace heddle::storage
