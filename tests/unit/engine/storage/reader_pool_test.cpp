#include "engine/storage/reader_pool.hpp"

#include <atomic>
#include <future>

#include <gtest/gtest.h>

namespace heddle::storage {
namespace {

struct FakeConnection {
    bool is_good = true;
    [[nodiscard]] bool is_usable() const { return is_good; }
};
using Pool = ReaderPool<FakeConnection>;
using Given = base::Result<FakeConnection*>;

Pool::Open counting(std::atomic<int>& opened) {
    return [&opened](base::Instant) -> base::Result<std::unique_ptr<FakeConnection>> {
        opened += 1;
        return std::make_unique<FakeConnection>();
    };
}

TEST(ReaderPool, KeepsAConnectionAndReplacesABrokenOne) {
    std::atomic<int> opened{0};
    Pool pool{1, StoreLimits{}, counting(opened)};
    for (const bool breaks : {false, true, false, false}) {
        std::promise<bool> promise;
        pool.submit([&promise, breaks](Given connection) {
            (*connection)->is_good = !breaks;
            promise.set_value(true);
            return true;
        });
        promise.get_future().get();
    }
    EXPECT_EQ(opened.load(), 2);
}

TEST(ReaderPool, AJobWhoseConnectionBrokeIsCalledAgainWithAnother) {
    std::atomic<int> opened{0};
    Pool pool{1, StoreLimits{}, counting(opened)};
    std::promise<int> promise;
    pool.submit([&promise, calls = 0](Given connection) mutable {
        if (++calls < 3) {
            (*connection)->is_good = false;
            return false;
        }
        promise.set_value(calls);
        return true;
    });
    EXPECT_EQ(promise.get_future().get(), 3);
    EXPECT_EQ(opened.load(), 3);
}

TEST(ReaderPool, TellsWhyThereIsNoConnection) {
    Pool pool{1, StoreLimits{}, [](base::Instant) -> base::Result<std::unique_ptr<FakeConnection>> {
                  return base::Error{base::ErrorCode::unavailable, "down"};
              }};
    std::promise<base::ErrorCode> promise;
    pool.submit([&promise](Given connection) {
        promise.set_value(connection.error().code);
        return true;
    });
    EXPECT_EQ(promise.get_future().get(), base::ErrorCode::unavailable);
}

TEST(ReaderPool, AConnectionIsOpenedWithinTheDeadlineOfItsJob) {
    std::promise<base::Duration> granted;
    StoreLimits limits;
    limits.wait_max = std::chrono::hours{1};
    Pool pool{1, limits,
              [&](base::Instant deadline) -> base::Result<std::unique_ptr<FakeConnection>> {
                  granted.set_value(deadline - base::system_clock().now());
                  return std::make_unique<FakeConnection>();
              }};
    pool.submit([](Given) { return true; });
    const auto found = granted.get_future().get();
    EXPECT_LE(found, limits.wait_max);
    EXPECT_GT(found, limits.wait_max / 2);
}

TEST(ReaderPool, RefusesPastItsBoundAndAnswersWhatWaitsWhenItEnds) {
    std::atomic<int> opened{0};
    StoreLimits limits;
    limits.waiting_max = 2;
    std::promise<void> running;
    std::promise<void> may_end;
    std::vector<base::ErrorCode> waiting;
    base::ErrorCode refused{};
    std::thread releaser;
    {
        Pool pool{1, limits, counting(opened)};
        pool.submit([&](Given) {
            running.set_value();
            may_end.get_future().wait();
            return true;
        });
        running.get_future().wait();
        for (int i = 0; i < 2; ++i) {
            pool.submit([&waiting](Given connection) {
                waiting.push_back(connection ? base::ErrorCode::internal : connection.error().code);
                return true;
            });
        }
        pool.submit([&refused](Given connection) {
            refused = connection.error().code;
            return true;
        });
        EXPECT_EQ(refused, base::ErrorCode::overloaded);
        releaser = std::thread{[&may_end] { may_end.set_value(); }};
    }
    releaser.join();
    EXPECT_EQ(waiting.size(), 2U);
}

}  // namespace
}  // namespace heddle::storage
