#include "engine/base/shard.hpp"

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/base/cancel.hpp"
#include "engine/base/signal.hpp"

namespace heddle::base {
namespace {

constexpr auto kSoon = std::chrono::seconds{20};

TEST(Shard, RefusesPostsPastItsMailbox) {
    std::promise<void> entered;
    std::promise<void> go_on;
    auto may_go_on = go_on.get_future();
    Shard shard{0, 2};  // last: its OS thread ends before what it waits for
    ASSERT_TRUE(shard.try_post([&] {
        entered.set_value();
        may_go_on.wait();
    }));
    entered.get_future().wait();
    EXPECT_TRUE(shard.try_post([] {}));
    EXPECT_TRUE(shard.try_post([] {}));
    EXPECT_FALSE(shard.try_post([] {}));
    go_on.set_value();
}

TEST(Shard, RunsPostsInOrderOnItsOwnOsThread) {
    std::vector<int> order;
    std::promise<bool> done;
    Shard shard{0, 1024};
    for (int i = 0; i < 100; ++i) {
        shard.post([&order, i] { order.push_back(i); });
    }
    shard.post([&] { done.set_value(shard.is_current()); });
    auto result = done.get_future();
    ASSERT_EQ(result.wait_for(kSoon), std::future_status::ready);
    EXPECT_TRUE(result.get());
    EXPECT_FALSE(shard.is_current());
    for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
    }
}

// A pipe whose reading end a test waits for.
class Pipe {
public:
    Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
    ~Pipe() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }
    [[nodiscard]] int descriptor() const { return ends_[0]; }
    void write() const { EXPECT_EQ(::write(ends_[1], "x", 1), 1); }
    void read() const {
        char byte = 0;
        EXPECT_EQ(::read(ends_[0], &byte, 1), 1);
    }

private:
    int ends_[2] = {-1, -1};
};

TEST(CallWhenReadable, NeedsALoop) {
    const Pipe pipe;
    UniqueFunction<void()> body = [] {};
    EXPECT_FALSE(machine::call_when_readable(pipe.descriptor(), body));
    EXPECT_TRUE(static_cast<bool>(body));
}

TEST(CallWhenReadable, RunsAfterAllThatWasPostedBefore) {
    const Pipe pipe;
    std::vector<int> order;
    std::promise<void> watches;
    std::promise<void> go_on;
    std::promise<void> done;
    Shard shard{0, 16};
    shard.post([&] {
        UniqueFunction<void()> replaced = [&] { order.push_back(-1); };
        EXPECT_TRUE(machine::call_when_readable(pipe.descriptor(), replaced));
        UniqueFunction<void()> body = [&] {
            order.push_back(2);
            pipe.read();
            done.set_value();
        };
        EXPECT_TRUE(machine::call_when_readable(pipe.descriptor(), body));
        watches.set_value();
        go_on.get_future().wait();  // both are there when the loop looks again
    });
    watches.get_future().wait();
    shard.post([&] { order.push_back(1); });
    pipe.write();
    go_on.set_value();
    ASSERT_EQ(done.get_future().wait_for(kSoon), std::future_status::ready);
    shard.stop();
    EXPECT_EQ(order, (std::vector{1, 2}));
}

TEST(CallWhenReadable, RunsAgainOnlyIfAskedAgain) {
    const Pipe pipe;
    std::atomic<int> calls = 0;
    std::promise<void> third;
    std::function<void()> watch;
    Shard shard{0, 16};
    watch = [&] {
        UniqueFunction<void()> body = [&] {
            pipe.read();
            if (++calls < 3) {
                watch();
            } else {
                third.set_value();
            }
        };
        EXPECT_TRUE(machine::call_when_readable(pipe.descriptor(), body));
    };
    for (int i = 0; i < 4; ++i) {
        pipe.write();
    }
    shard.post([&] { watch(); });
    ASSERT_EQ(third.get_future().wait_for(kSoon), std::future_status::ready);
    std::promise<void> settled;
    shard.post([&] { settled.set_value(); });
    settled.get_future().wait();
    EXPECT_EQ(calls, 3);
}

TEST(CallWhenReadable, NothingIsLeftOfWhatTheLoopDoesNotLiveToRun) {
    const Pipe pipe;
    const auto kept = std::make_shared<int>(0);
    {
        std::promise<void> watches;
        Shard shard{0, 16};
        shard.post([&] {
            UniqueFunction<void()> body = [kept] {};
            EXPECT_TRUE(machine::call_when_readable(pipe.descriptor(), body));
            watches.set_value();
        });
        watches.get_future().wait();
    }
    EXPECT_EQ(kept.use_count(), 1);
    pipe.write();
    pipe.read();  // it is open still
}

TEST(FromCallback, ResumesOnTheShardThatAwaits) {
    Shard shard{0, 16};
    std::promise<std::pair<int, bool>> done;
    std::thread other;
    auto body = [](Shard& on, std::thread& helper,
                   std::promise<std::pair<int, bool>>& out) -> Task<> {
        const int value = co_await from_callback<int>([&](Completion<int> complete) {
            helper = std::thread{[complete = std::move(complete)]() mutable { complete(7); }};
        });
        out.set_value({value, on.is_current()});
    };
    shard.spawn(body(shard, other, done));
    EXPECT_EQ(done.get_future().get(), (std::pair{7, true}));
    other.join();
}

TEST(Signal, WakesEveryWaiterAndHonoursTheDeadline) {
    Shard shard{0, 16};
    Signal signal;
    std::promise<void> both;
    int woken = 0;
    auto waiter = [](Signal& on, int& count, std::promise<void>& out) -> Task<> {
        co_await on.wait(system_clock().now() + kSoon);
        if (++count == 2) {
            out.set_value();
        }
    };
    auto waker = [](Signal& on) -> Task<> {
        co_await on.wait(system_clock().now() + std::chrono::milliseconds{1});  // its deadline
        on.notify_all();
    };
    shard.spawn(waiter(signal, woken, both));
    shard.spawn(waiter(signal, woken, both));
    shard.spawn(waker(signal));
    EXPECT_EQ(both.get_future().wait_for(kSoon), std::future_status::ready);
    shard.stop();
}

TEST(CancelSource, CallsBackOnceAndKeepsTheFirstReason) {
    CancelSource source;
    int calls = 0;
    const auto kept = source.on_cancel([&] { ++calls; });
    {
        const auto taken_back = source.on_cancel([&] { calls += 100; });
    }
    source.cancel({ErrorCode::cancelled, "first"});
    source.cancel({ErrorCode::timeout, "second"});
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(source.reason().message, "first");
    const auto late = source.on_cancel([&] { ++calls; });
    EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace heddle::base
