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

}  // namespace
}  // namespace heddle::scheduler::test
