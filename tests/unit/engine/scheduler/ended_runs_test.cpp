#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

namespace heddle::scheduler::test {
namespace {

// How long, and how many, runs that have ended stay in memory.
class EndedRuns : public SchedulerTest {
protected:
    // Runs to the end.
    base::RunId run(TestEngine& engine) const {
        const auto wanted = request("echo", "hi");
        EXPECT_TRUE(SchedulerTest::run(engine, wanted));
        return wanted.run_id;
    }
    [[nodiscard]] bool is_kept(TestEngine& engine, base::RunId id) const {
        return engine.on_shard<bool>(
            thread_, [thread = thread_, id](ShardScheduler& on) -> base::Task<bool> {
                co_return on.find_run(thread, id) != nullptr;
            });
    }
};

TEST_F(EndedRuns, AreKeptForLateJoiners) {
    const auto engine = make_engine({});
    const auto first = run(*engine);
    const auto second = run(*engine);
    EXPECT_TRUE(is_kept(*engine, first));
    EXPECT_TRUE(is_kept(*engine, second));
}

TEST_F(EndedRuns, GoWhenTheirTimeIsOverAlsoIfNoneEndsAfterThem) {
    SchedulerLimits limits;
    limits.ended_run_kept = std::chrono::milliseconds{30};
    const auto engine = make_engine(limits);
    for (int i = 0; i < 2; ++i) {  // and again, once nothing was left to wait for
        const auto last = run(*engine);
        EXPECT_TRUE(comes_true([&] { return !is_kept(*engine, last); }));
    }
}

TEST_F(EndedRuns, GoWhenTheyWeighTooMuchTogether) {
    SchedulerLimits limits;
    limits.ended_runs_bytes_max = sizeof(scheduler::Run);
    const auto engine = make_engine(limits);
    const auto first = run(*engine);
    const auto second = run(*engine);
    EXPECT_FALSE(is_kept(*engine, first)) << "a run weighs more than its events";
    (void)second;
}

TEST_F(EndedRuns, OneThatWasRolledBackIsNotMadeAnewForWhoAsksAgain) {
    const auto engine = make_engine({});
    auto first = request("gated", "first");
    first.strategy = MultitaskStrategy::rollback;
    const auto handle = accept(*engine, first);
    ASSERT_TRUE(handle);
    ASSERT_TRUE(wait_arrived(1));
    auto newer = request("echo", "newer");
    newer.strategy = MultitaskStrategy::rollback;
    ASSERT_TRUE(accept(*engine, newer));
    gate_.open();
    const auto told = wait_for_end(*engine, *handle);
    ASSERT_TRUE(told);
    EXPECT_EQ(told->error.code, base::ErrorCode::cancelled);

    first.maybe_repeated = true;
    const auto again = SchedulerTest::run(*engine, first);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->status, told->status);
    EXPECT_EQ(again->error.message, told->error.message);
    EXPECT_EQ(gate_.arrived(), 1U);
    ASSERT_TRUE(SchedulerTest::run(*engine, newer)) << "it has taken nothing back";
    EXPECT_EQ(contents(*engine), (std::vector<std::string>{"newer", "echo newer"}));
    EXPECT_EQ(runs(*engine).size(), 1U);
    EXPECT_FALSE(is_kept(*engine, first.run_id)) << "to everybody else it is not there";
}

}  // namespace
}  // namespace heddle::scheduler::test
