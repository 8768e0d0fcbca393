#include <atomic>
#include <future>
#include <thread>

#include "engine/storage/postgres/postgres_store.hpp"
#include "tests/conformance/fixture.hpp"
#include "tests/conformance/postgres_cluster.hpp"

/// A lone write is sent by the loop that asks for it, which takes the answer, too (ADR 0016). None
/// of that may make anybody wait for a loop that has other things to do.
namespace heddle::conformance {
namespace {

using base::Status;

class PostgresLone : public testing::Test {
protected:
    void SetUp() override {
        auto store = storage::open_postgres_store(url_, limits_, metrics_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            std::abort();
        }
        engine_ = std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
        claimed_ = engine_->claim(new_thread_id());
        other_ = engine_->claim(new_thread_id());
        // Its statement is prepared by the writer; what is sent alone is prepared already.
        EXPECT_TRUE(engine_->write(make_write(claimed_)));
    }
    // In the loop. The completion says whether the loop called it.
    void write(base::UniqueFunction<void(Status, bool)> done) {
        engine_->store().write(make_write(claimed_),
                               [this, done = std::move(done)](Status status) mutable {
                                   done(std::move(status), loop_.is_current());
                               });
    }

    std::string url_ = PostgresCluster::instance().create_database();
    observe::Metrics metrics_;
    storage::StoreLimits limits_;
    std::unique_ptr<Engine> engine_;
    ClaimOutcome claimed_;
    ClaimOutcome other_;
    base::Shard loop_{0, 1024};
};

TEST_F(PostgresLone, ItsLoopTakesTheAnswer) {
    constexpr int kWrites = 200;
    int in_loop = 0;
    for (int i = 0; i < kWrites; ++i) {
        std::promise<bool> done;
        loop_.post([&] {
            write([&](const Status& status, bool is_loop) {
                EXPECT_TRUE(status) << status.error().message;
                done.set_value(is_loop);
            });
        });
        in_loop += done.get_future().get() ? 1 : 0;
    }
    // The writer is asleep but for moments.
    EXPECT_GT(in_loop, kWrites / 2);
}

TEST_F(PostgresLone, AStuckLoopIsNotWaitedForByOthers) {
    std::promise<void> sent;
    std::promise<void> go_on;
    std::promise<bool> done;
    // The future is the loop's: it may come to wait when all this is over.
    loop_.post([&, may_go_on = go_on.get_future()] {
        write([&](const Status& status, bool is_loop) {
            EXPECT_TRUE(status) << status.error().message;
            done.set_value(is_loop);
        });
        sent.set_value();
        may_go_on.wait();
    });
    sent.get_future().wait();
    EXPECT_TRUE(engine_->write(make_write(other_)));
    EXPECT_FALSE(done.get_future().get()) << "by the writer, before the other one";
    go_on.set_value();
}

TEST_F(PostgresLone, AStuckLoopIsAnsweredInTheEnd) {
    std::promise<bool> done;
    loop_.post([&] {
        auto answered = done.get_future();
        write([&](const Status& status, bool is_loop) {
            EXPECT_TRUE(status) << status.error().message;
            done.set_value(is_loop);
        });
        EXPECT_FALSE(answered.get());
    });
    std::promise<void> goes_on;
    loop_.post([&] { goes_on.set_value(); });
    goes_on.get_future().wait();
}

// Each is answered once, whoever is faster: the loop, the writer or the end.
TEST_F(PostgresLone, TheStoreMayEndMeanwhile) {
    for (int i = 0; i < 20; ++i) {
        std::atomic<int> answers = 0;
        std::promise<void> sent;
        loop_.post([&] {
            write([&](const Status& status, bool) {
                // Refused if it was not sent yet.
                EXPECT_TRUE(status || status.error().code == ErrorCode::unavailable);
                ++answers;
            });
            sent.set_value();
        });
        sent.get_future().wait();
        engine_->close();
        std::promise<void> settled;
        loop_.post([&] { settled.set_value(); });
        settled.get_future().wait();
        EXPECT_EQ(answers, 1);
        auto store = storage::open_postgres_store(url_, limits_, metrics_);
        ASSERT_TRUE(store) << store.error().message;
        engine_ = std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
        claimed_ = engine_->claim(new_thread_id());
        EXPECT_TRUE(engine_->write(make_write(claimed_)));
    }
}

TEST_F(PostgresLone, ALoopThatEndsLeavesTheAnswerToTheWriter) {
    std::promise<Status> done;
    {
        base::Shard ends{1, 16};
        std::promise<void> sent;
        ends.post([&] {
            engine_->store().write(make_write(claimed_),
                                   [&](Status status) { done.set_value(std::move(status)); });
            sent.set_value();
        });
        sent.get_future().wait();
    }
    EXPECT_TRUE(done.get_future().get());
    EXPECT_TRUE(engine_->write(make_write(claimed_)));
}

}  // namespace
}  // namespace heddle::conformance
