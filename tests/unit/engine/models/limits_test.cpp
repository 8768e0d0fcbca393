#include <vector>

#include <gtest/gtest.h>

#include "engine/models/call_limiter.hpp"
#include "engine/models/retry_budget.hpp"
#include "tests/unit/engine/net/on_shard.hpp"

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Task;
using namespace std::chrono_literals;

base::Instant in(base::Duration duration) {
    return base::system_clock().now() + duration;
}

TEST(RetryBudget, IsUsedUpAndEarnedBackByCalls) {
    RetryBudget budget{2.0, 0.5};
    EXPECT_TRUE(budget.try_retry());
    EXPECT_TRUE(budget.try_retry());
    EXPECT_FALSE(budget.try_retry());
    budget.count_call();
    EXPECT_FALSE(budget.try_retry());
    budget.count_call();
    EXPECT_TRUE(budget.try_retry());
    for (int i = 0; i < 100; ++i) {
        budget.count_call();
    }  // saves up no more than the reserve
    EXPECT_TRUE(budget.try_retry());
    EXPECT_TRUE(budget.try_retry());
    EXPECT_FALSE(budget.try_retry());
}

TEST(RetryDelay, GrowsIsBoundedAndObeysRetryAfter) {
    for (unsigned attempt = 1; attempt < 20; ++attempt) {
        const auto whole = std::min(250ms * (1 << std::min(attempt - 1, 5U)), 8000ms);
        const auto delay = retry_delay(attempt, std::nullopt);
        EXPECT_GE(delay, whole / 2);
        EXPECT_LE(delay, whole);
    }
    EXPECT_EQ(retry_delay(1, base::Duration{7s}), 7s);
}

TEST(ParseRetryAfter, ReadsSecondsAndDates) {
    EXPECT_EQ(parse_retry_after("3", 0), base::Duration{3s});
    EXPECT_EQ(parse_retry_after("99999999", 0), base::Duration{300s});
    EXPECT_EQ(parse_retry_after("-3", 0), base::Duration{0s});
    EXPECT_EQ(parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 50'000'000), base::Duration{10s});
    EXPECT_EQ(parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 90'000'000), base::Duration{0s});
    for (const char* bad : {"", "soon", "3 s", "3.5", "Thu, 01 Jan"}) {
        EXPECT_EQ(parse_retry_after(bad, 0), std::nullopt) << bad;
    }
}

TEST(CallLimiter, LetsWaitersInInOrderAndRefusesPastItsBound) {
    base::Shard shard{0, 16};
    std::vector<int> order;
    const auto refused = test::run_on(shard, [&]() -> Task<ErrorCode> {
        CallLimiter limiter{1, 3};
        base::CancelSource cancel;
        auto first = std::make_unique<base::Result<CallLimiter::Permit>>(
            co_await limiter.acquire(in(10s), cancel));
        int left = 3;
        for (int i = 0; i < 3; ++i) {
            shard.spawn(
                [](CallLimiter& of, int number, std::vector<int>& seen, int& open) -> Task<> {
                    base::CancelSource own;
                    const auto permit = co_await of.acquire(in(10s), own);
                    if (permit) {
                        seen.push_back(number);
                    }
                    co_await base::wait_for(1ms);
                    --open;
                }(limiter, i, order, left));
        }
        co_await base::wait_for(1ms);
        const auto full = co_await limiter.acquire(in(10s), cancel);
        first.reset();
        while (left > 0) {
            co_await base::wait_for(1ms);
        }
        const auto again = co_await limiter.acquire(in(10s), cancel);
        co_return again ? full.error().code : ErrorCode::internal;
    });
    EXPECT_EQ(refused, ErrorCode::overloaded);
    EXPECT_EQ(order, (std::vector{0, 1, 2}));
}

TEST(CallLimiter, AWaiterThatGivesUpLosesNoPermit) {
    base::Shard shard{0, 16};
    const auto codes = test::run_on(shard, [&]() -> Task<std::vector<ErrorCode>> {
        CallLimiter limiter{1, 8};
        std::vector<ErrorCode> seen;
        base::CancelSource cancel;
        {
            const auto held = co_await limiter.acquire(in(10s), cancel);
            const auto late = co_await limiter.acquire(in(10ms), cancel);
            seen.push_back(late.error().code);
            shard.spawn([](base::CancelSource& source) -> Task<> {
                co_await base::wait_for(5ms);
                source.cancel(Error{ErrorCode::interrupted, "stop"});
            }(cancel));
            const auto cancelled = co_await limiter.acquire(in(10s), cancel);
            seen.push_back(cancelled.error().code);
        }
        base::CancelSource fresh;
        const auto again = co_await limiter.acquire(in(10s), fresh);
        seen.push_back(again ? ErrorCode::conflict : again.error().code);
        co_return seen;
    });
    EXPECT_EQ(codes,
              (std::vector{ErrorCode::timeout, ErrorCode::interrupted, ErrorCode::conflict}));
}

}  // namespace
}  // namespace heddle::models
