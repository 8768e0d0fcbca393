
#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"
#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

namespace heddle::scheduler::test {
namespace {

// Runs whose engine dies or leaves go on elsewhere.
class Takeover : public SchedulerTest {
protected:
    static constexpr int kTurnsMax = 16;
    // When an engine hears that it is to hand over.
    enum class Told : std::uint8_t { before_its_end, when_time_is_over };

    // A superstep ends, and so many turns of its loop later the engine's time is over. Checks that
    // the run counts an attempt for each time that the superstep is begun.
    // @return how often it was begun again
    std::size_t leave_after(int turns, Durability durability, Told told) {
        thread_ = base::ThreadId{base::make_uuid_v7()};
        gate_.close();
        const auto arrived = gate_.arrived();
        const auto leaving = make_engine();
        auto wanted = request("two_steps", "go");
        wanted.durability = durability;
        wanted.kwargs = encode_kwargs(wanted);
        EXPECT_TRUE(accept(*leaving, wanted));
        EXPECT_TRUE(wait_arrived(arrived + 1));
        (void)leaving->on_shard<bool>(
            thread_, [this, turns, told](ShardScheduler& on) -> base::Task<bool> {
                if (told == Told::before_its_end) {
                    on.hand_over_all();
                }
                gate_.open();
                for (int i = 0; i < turns; ++i) {
                    co_await base::from_callback<bool>([](auto done) { done(true); });
                }
                on.hand_over_all();
                on.hand_over_now();
                co_return true;
            });
        EXPECT_TRUE(wait_gone(*leaving));
        leaving->kill();

        const auto heir = make_engine();
        wanted.maybe_repeated = true;
        EXPECT_TRUE(run(*heir, wanted));
        const auto again = gate_.arrived() - arrived - 1;
        EXPECT_EQ(runs(*heir).front().attempt, static_cast<std::int32_t>(1 + again)) << turns;
        EXPECT_EQ(contents(*heir), (std::vector<std::string>{"go", "echo go", "echo echo go"}));
        return again;
    }
};
class TakeoverByDurability : public Takeover, public testing::WithParamInterface<Durability> {};

TEST_F(Takeover, ARunThatKilledItsEnginesTooOftenEndsAsErrorAndSaysSo) {
    const auto deadly = request("gated", "deadly");
    std::vector<std::unique_ptr<TestEngine>> dead;  // the gate still refers to them
    for (std::size_t attempt = 1; attempt <= 3; ++attempt) {
        dead.push_back(make_engine());
        if (attempt == 1) {
            ASSERT_TRUE(accept(*dead.back(), deadly));
        }
        ASSERT_TRUE(wait_arrived(attempt));
        dead.back()->kill();  // in the middle of its first superstep
    }
    const auto heir = make_engine();
    const auto after = run(*heir, request("echo", "after"));
    ASSERT_TRUE(after);
    EXPECT_EQ(after->status, storage::RunStatus::success) << "the thread goes on";
    const auto rows = runs(*heir);
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows.back().status, storage::RunStatus::error);
    EXPECT_EQ(rows.back().attempt, 3);
    EXPECT_EQ(parse_stored_error(rows.back().error).message, "given up after 3 attempts");
    EXPECT_EQ(gate_.arrived(), 3U);
    gate_.open();
}

TEST_F(Takeover, ARollbackTakesBackARunThatHadAllItsAttempts) {
    gate_.open();
    std::vector<std::unique_ptr<TestEngine>> engines;
    engines.push_back(make_engine());
    ASSERT_TRUE(run(*engines.back(), request("echo", "before")));
    gate_.close();
    const auto arrived = gate_.arrived();
    ASSERT_TRUE(accept(*engines.back(), request("gated", "deadly")));
    for (std::size_t attempt = 1;; ++attempt) {
        ASSERT_TRUE(wait_arrived(arrived + attempt));
        if (attempt == 3) {
            break;
        }
        engines.back()->kill();
        engines.push_back(make_engine());
    }
    auto newer = request("echo", "newer");
    newer.strategy = MultitaskStrategy::rollback;
    const auto accepted = accept(*engines.back(), newer);
    ASSERT_TRUE(accepted);
    engines.back()->kill();

    const auto heir = make_engine();
    newer.maybe_repeated = true;
    const auto outcome = run(*heir, newer);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_EQ(contents(*heir),
              (std::vector<std::string>{"before", "echo before", "newer", "echo newer"}));
    EXPECT_EQ(runs(*heir).size(), 2U) << "as if it had never been";
    EXPECT_TRUE(is_linear(*heir));
    gate_.open();
}

TEST_F(Takeover, ACancelledRunIsNotBegunAgainByWhoeverTakesItOver) {
    for (const bool roll_back : {false, true}) {
        thread_ = base::ThreadId{base::make_uuid_v7()};
        const auto arrived = gate_.arrived();
        const auto dead = make_engine();
        auto wanted = request("gated", "stop");
        ASSERT_TRUE(accept(*dead, wanted));
        ASSERT_TRUE(wait_arrived(arrived + 1));
        ASSERT_TRUE(cancel(*dead, wanted.run_id, roll_back));
        dead->kill();  // its node has not noticed yet

        const auto heir = make_engine();
        ASSERT_TRUE(run(*heir, request("echo", "after")));
        const auto rows = runs(*heir);
        ASSERT_EQ(rows.size(), roll_back ? 1U : 2U);
        if (!roll_back) {
            EXPECT_EQ(rows.back().status, storage::RunStatus::interrupted);
            EXPECT_EQ(parse_stored_error(rows.back().error).code, base::ErrorCode::cancelled);
        }
        EXPECT_EQ(gate_.arrived(), arrived + 1);
        gate_.open();
        gate_.close();
    }
}

TEST_F(Takeover, ASuperstepThatALeavingEngineCannotEndCountsAsNoAttempt) {
    std::vector<std::unique_ptr<TestEngine>> left;
    const auto wanted = request("gated", "long");
    constexpr std::size_t kDepartures = 5;
    for (std::size_t i = 1; i <= kDepartures; ++i) {
        left.push_back(make_engine());
        if (i == 1) {
            ASSERT_TRUE(accept(*left.back(), wanted));
        }
        ASSERT_TRUE(wait_arrived(i));
        (void)left.back()->on_shard<bool>(thread_, [](ShardScheduler& on) -> base::Task<bool> {
            on.hand_over_all();
            on.hand_over_now();
            co_return true;
        });
        ASSERT_TRUE(wait_gone(*left.back()));
        left.back()->kill();
    }
    const auto heir = make_engine();
    ASSERT_TRUE(wait_arrived(kDepartures + 1));
    gate_.open();
    auto again = wanted;
    again.maybe_repeated = true;
    const auto outcome = run(*heir, again);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_EQ(runs(*heir).front().attempt, static_cast<std::int32_t>(kDepartures) + 1);
    EXPECT_EQ(contents(*heir), (std::vector<std::string>{"long", "echo long"}));
}

// At every turn of the loop from before the superstep's end to after its row is written.
TEST_P(TakeoverByDurability, ASuperstepThatEndsWhileTheEngineLeavesCountsAsNoAttempt) {
    std::size_t begun_again = 0;
    for (int turns = 0; turns < kTurnsMax; ++turns) {
        begun_again += leave_after(turns, GetParam(), Told::before_its_end);
    }
    EXPECT_GT(begun_again, 0U) << "no turn was before the superstep's end";
    EXPECT_LT(begun_again, std::size_t{kTurnsMax}) << "none was after it";
}

TEST_F(Takeover, ASuperstepWhoseCheckpointIsBeingWrittenHasEnded) {
    for (int turns = 0; turns < kTurnsMax; ++turns) {
        (void)leave_after(turns, Durability::sync, Told::when_time_is_over);
    }
}

INSTANTIATE_TEST_SUITE_P(All,
                         TakeoverByDurability,
                         testing::Values(Durability::sync, Durability::async, Durability::exit));

TEST_F(Takeover, ADeadEnginesAcceptedRunsFinishElsewhereOnce) {
    auto dead = make_engine();
    const auto first = accept(*dead, request("gated", "first"));
    const auto second = accept(*dead, request("gated", "second"));
    ASSERT_TRUE(first && second);
    dead->kill();

    const auto heir = make_engine();
    gate_.open();
    // A run through the heir waits behind what it took over.
    const auto outcome = run(*heir, request("echo", "third"));
    ASSERT_TRUE(outcome);
    EXPECT_EQ(contents(*heir), (std::vector<std::string>{"first", "echo first", "second",
                                                         "echo second", "third", "echo third"}));
    EXPECT_TRUE(is_linear(*heir));
    EXPECT_EQ(heir->metrics().runs_recovered_total.load(), 2);
}

TEST_F(Takeover, ARunThatEndsNoSuperstepIsGivenUpAfterItsAttempts) {
    const auto store = storage::make_memory_store(database_, long_lease(), store_metrics_);
    auto wanted = request("gated", "poison");
    const auto thread = thread_;
    const auto attempt_on_disk = [&] {
        std::int32_t attempt = 0;
        store->load_run(thread, wanted.run_id, [&](const base::Result<storage::RunRow>& row) {
            attempt = row ? row->attempt : 0;
        });
        return attempt;
    };
    std::vector<std::unique_ptr<TestEngine>> dead;  // their nodes wait at the gate to the end
    auto engine = make_engine();
    ASSERT_TRUE(accept(*engine, wanted));
    for (std::int32_t attempt = 1; attempt <= SchedulerLimits{}.attempts_max; ++attempt) {
        ASSERT_TRUE(comes_true([&] { return attempt_on_disk() >= attempt; }));
        ASSERT_EQ(attempt_on_disk(), attempt) << "though its node has not returned";
        engine->kill();
        dead.push_back(std::move(engine));
        engine = make_engine();
    }
    wanted.maybe_repeated = true;
    const auto outcome = run(*engine, wanted);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::error);
    EXPECT_EQ(outcome->error.message, "given up after 3 attempts");
    gate_.open();
}

}  // namespace
}  // namespace heddle::scheduler::test
