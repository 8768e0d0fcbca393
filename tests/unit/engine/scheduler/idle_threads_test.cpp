#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

namespace heddle::scheduler::test {
namespace {

// Which threads stay in memory when none of their runs is there.
class IdleThreads : public SchedulerTest {
protected:
    base::Result<RunHandle> submit(TestEngine& engine,
                                   const base::ThreadId& thread,
                                   const std::string& graph,
                                   const std::string& text) const {
        auto wanted = request(graph, text);
        wanted.thread_id = thread;
        wanted.stream_modes.clear();  // the end of it brings the values
        return SchedulerTest::submit(engine, std::move(wanted));
    }
    static base::Result<RunOutcome> end_of(TestEngine& engine, const base::Result<RunHandle>& run) {
        return run ? wait_for_end(engine, *run) : base::Result<RunOutcome>{run.error()};
    }
    static std::vector<base::ThreadId> make_threads(std::size_t count) {
        std::vector<base::ThreadId> threads;
        for (std::size_t i = 0; i < count; ++i) {
            threads.emplace_back(base::make_uuid_v7());
        }
        return threads;
    }
};

TEST_F(IdleThreads, GoWhenAllTogetherHoldMoreThanTheyMay) {
    SchedulerLimits limits;
    limits.threads_bytes_max = 20'000;
    const auto engine = make_engine(limits);
    const auto threads = make_threads(24);
    for (const auto& thread : threads) {
        ASSERT_TRUE(end_of(*engine, submit(*engine, thread, "echo", std::string(3000, 'x'))));
    }
    const auto& metrics = engine->metrics();
    // They go after the write that made them idle, which nobody waits for.
    EXPECT_TRUE(comes_true([&] { return metrics.threads_owned.load() <= 6; })) << "three a shard";
    EXPECT_LE(metrics.threads_bytes.load(), 40'000);
    EXPECT_GE(metrics.threads_owned.load(), 2) << "those that fit stay";

    for (const auto& thread : threads) {
        const auto again = end_of(*engine, submit(*engine, thread, "echo", "again"));
        ASSERT_TRUE(again);
        EXPECT_EQ(again->status, storage::RunStatus::success);
        EXPECT_GT(again->values.size(), 6000U) << "it is read back whole";
        EXPECT_NE(again->values.find("echo again"), std::string::npos);
    }
}

TEST_F(IdleThreads, OneThatIsTooLargeAloneIsReadBackForEachRun) {
    SchedulerLimits limits;
    limits.threads_bytes_max = 0;
    const auto engine = make_engine(limits);
    const auto thread = make_threads(1).front();
    for (int turn = 1; turn <= 5; ++turn) {
        const auto run = submit(*engine, thread, "echo", "turn " + std::to_string(turn));
        const auto outcome = end_of(*engine, run);
        ASSERT_TRUE(outcome);
        EXPECT_NE(outcome->values.find("echo turn 1\""), std::string::npos);
        EXPECT_NE(outcome->values.find("echo turn " + std::to_string(turn)), std::string::npos);
        EXPECT_TRUE(wait_gone(*engine));
        EXPECT_EQ(engine->metrics().threads_bytes.load(), 0);
    }
}

TEST_F(IdleThreads, GoAlsoWhereThoseThatAreUsedLeastAreBusy) {
    SchedulerLimits limits;
    limits.sessions_max = 4;
    const auto engine = make_engine(limits);
    const auto busy = make_threads(40);
    std::vector<base::Result<RunHandle>> gated;
    for (const auto& thread : busy) {
        gated.push_back(submit(*engine, thread, "gated", "wait"));
        ASSERT_TRUE(gated.back());
    }
    for (const auto& thread : make_threads(60)) {
        ASSERT_TRUE(end_of(*engine, submit(*engine, thread, "echo", "short")));
    }
    EXPECT_LE(engine->metrics().threads_owned.load(), 60) << "of a hundred, forty of them busy";
    gate_.open();
    for (std::size_t i = 0; i < busy.size(); ++i) {
        const auto outcome = end_of(*engine, gated[i]);
        ASSERT_TRUE(outcome);
        EXPECT_EQ(outcome->status, storage::RunStatus::success);
    }
}

}  // namespace
}  // namespace heddle::scheduler::test
