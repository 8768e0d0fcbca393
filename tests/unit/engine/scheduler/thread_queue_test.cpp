#include "engine/scheduler/thread_queue.hpp"

#include <gtest/gtest.h>

namespace heddle::scheduler {
namespace {

const base::RunId kFirst{base::make_uuid_v7()};
const base::RunId kSecond{base::make_uuid_v7()};
const base::RunId kThird{base::make_uuid_v7()};

TEST(ThreadQueue, StartsTheFirstRunAtOnce) {
    ThreadQueue queue{4};
    EXPECT_EQ(queue.submit(kFirst, MultitaskStrategy::reject), Actions{StartRun{kFirst}});
    EXPECT_EQ(queue.executing(), kFirst);
}

TEST(ThreadQueue, EnqueueStartsAfterTheRunInProgressInOrderOfAcceptance) {
    ThreadQueue queue{4};
    (void)queue.submit(kFirst, MultitaskStrategy::enqueue);
    EXPECT_EQ(queue.submit(kSecond, MultitaskStrategy::enqueue), Actions{});
    EXPECT_EQ(queue.submit(kThird, MultitaskStrategy::enqueue), Actions{});
    EXPECT_EQ(queue.finished(kFirst), Actions{StartRun{kSecond}});
    EXPECT_EQ(queue.finished(kSecond), Actions{StartRun{kThird}});
    EXPECT_EQ(queue.finished(kThird), Actions{});
    EXPECT_TRUE(queue.is_idle());
}

TEST(ThreadQueue, RejectRefusesWhileARunIsInProgressAndNotAfter) {
    ThreadQueue queue{4};
    (void)queue.submit(kFirst, MultitaskStrategy::enqueue);
    EXPECT_EQ(queue.submit(kSecond, MultitaskStrategy::reject),
              (Actions{RefuseRun{kSecond, base::ErrorCode::thread_busy}}));
    (void)queue.finished(kFirst);
    EXPECT_EQ(queue.submit(kSecond, MultitaskStrategy::reject), Actions{StartRun{kSecond}});
}

TEST(ThreadQueue, RefusesPastItsBoundAndTakesAgainBelowIt) {
    ThreadQueue queue{1};
    (void)queue.submit(kFirst, MultitaskStrategy::enqueue);
    (void)queue.submit(kSecond, MultitaskStrategy::enqueue);
    EXPECT_EQ(queue.submit(kThird, MultitaskStrategy::enqueue),
              (Actions{RefuseRun{kThird, base::ErrorCode::overloaded}}));
    (void)queue.finished(kFirst);
    EXPECT_EQ(queue.submit(kThird, MultitaskStrategy::enqueue), Actions{});
}

TEST(ThreadQueue, CancelDropsAWaitingRunAndTellsTheExecutingOne) {
    ThreadQueue queue{4};
    (void)queue.submit(kFirst, MultitaskStrategy::enqueue);
    (void)queue.submit(kSecond, MultitaskStrategy::enqueue);
    EXPECT_EQ(queue.cancel(kSecond), Actions{DropRun{kSecond}});
    EXPECT_EQ(queue.cancel(kFirst), Actions{CancelRun{kFirst}});
    EXPECT_EQ(queue.executing(), kFirst);  // until it has really ended
    EXPECT_EQ(queue.cancel(kThird), Actions{});
    EXPECT_EQ(queue.finished(kFirst), Actions{});
}

TEST(ThreadQueue, InterruptStopsAllThatIsHereAndWaitsForTheExecutingOne) {
    ThreadQueue queue{1};
    EXPECT_EQ(queue.submit(kFirst, MultitaskStrategy::interrupt), Actions{StartRun{kFirst}});
    (void)queue.submit(kSecond, MultitaskStrategy::enqueue);
    EXPECT_EQ(queue.submit(kThird, MultitaskStrategy::interrupt),
              (Actions{DropRun{kSecond}, CancelRun{kFirst}}));
    EXPECT_EQ(queue.finished(kFirst), Actions{StartRun{kThird}});
}

TEST(ThreadQueue, RollbackTakesAllThatIsHereBack) {
    ThreadQueue queue{4};
    (void)queue.submit(kFirst, MultitaskStrategy::enqueue);
    (void)queue.submit(kSecond, MultitaskStrategy::enqueue);
    EXPECT_EQ(queue.submit(kThird, MultitaskStrategy::rollback),
              (Actions{RemoveRun{kSecond}, RollBackRun{kFirst}}));
    EXPECT_EQ(queue.cancel(kThird, true), Actions{RemoveRun{kThird}});
    EXPECT_EQ(queue.finished(kFirst), Actions{});
}

}  // namespace
}  // namespace heddle::scheduler
