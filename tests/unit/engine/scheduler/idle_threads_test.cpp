#include <thread>

#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "tests/unit/engine/scheduler/test_engine.hpp"

namespace heddle::scheduler::test {
namespace {

// Which threads stay in memory when none of their runs is there.
class IdleThreads : public testing::Test {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine(SchedulerLimits limits) {
        return std::make_unique<TestEngine>(
            storage::make_memory_store(database_, {}, store_metrics_), catalog_, OwnershipLimits{},
            limits);
    }
    base::Result<RunHandle> submit(TestEngine& engine,
                                   const base::ThreadId& thread,
                                   const std::string& graph,
                                   const std::string& text) const {
        RunRequest request;
        request.thread_id = thread;
        request.run_id = base::RunId{base::make_uuid_v7()};
        request.assistant = *catalog_.find(graph);
        request.create_thread = true;
        request.input = base::Json{{"messages", {{{"role", "user"}, {"content", text}}}}};
        request.kwargs = encode_kwargs(request);
        return engine.on_shard<base::Result<RunHandle>>(
            thread, [request](ShardScheduler& on) -> base::Task<base::Result<RunHandle>> {
                co_return co_await on.submit(request, false);
            });
    }
    static base::Result<RunOutcome> end_of(TestEngine& engine,
                                           const base::ThreadId& thread,
                                           const base::Result<RunHandle>& run) {
        return engine.on_shard<base::Result<RunOutcome>>(
            thread, [run](ShardScheduler&) -> base::Task<base::Result<RunOutcome>> {
                (*run)->expect_values();
                co_return co_await (*run)->wait_finished(soon());
            });
    }
    static std::vector<base::ThreadId> make_threads(std::size_t count) {
        std::vector<base::ThreadId> threads;
        for (std::size_t i = 0; i < count; ++i) {
            threads.emplace_back(base::make_uuid_v7());
        }
        return threads;
    }
    // They go after the write that made them idle, which nobody waits for.
    template <class Condition>
    static void wait_until(Condition condition, const char* what) {
        const auto until = soon();
        while (!condition()) {
            ASSERT_LT(base::system_clock().now(), until) << "waited in vain: " << what;
            std::this_thread::yield();
        }
    }

    Gate gate_;
    storage::MemoryDatabase database_;
    observe::Metrics store_metrics_;
    Catalog catalog_{{make_echo_graph(), make_gated_graph(gate_)}};
};

TEST_F(IdleThreads, GoWhenAllTogetherHoldMoreThanTheyMay) {
    SchedulerLimits limits;
    limits.threads_bytes_max = 20'000;
    const auto engine = make_engine(limits);
    const auto threads = make_threads(24);
    for (const auto& thread : threads) {
        ASSERT_TRUE(
            end_of(*engine, thread, submit(*engine, thread, "echo", std::string(3000, 'x'))));
    }
    const auto& metrics = engine->metrics();
    wait_until([&] { return metrics.threads_owned.load() <= 6; }, "three fit in each shard");
    EXPECT_LE(metrics.threads_bytes.load(), 40'000);
    EXPECT_GE(metrics.threads_owned.load(), 2) << "those that fit stay";

    for (const auto& thread : threads) {
        const auto again = end_of(*engine, thread, submit(*engine, thread, "echo", "again"));
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
        const auto outcome = end_of(*engine, thread, run);
        ASSERT_TRUE(outcome);
        EXPECT_NE(outcome->values.find("echo turn 1\""), std::string::npos);
        EXPECT_NE(outcome->values.find("echo turn " + std::to_string(turn)), std::string::npos);
        wait_until([&] { return engine->metrics().threads_owned.load() == 0; }, "it goes");
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
        ASSERT_TRUE(end_of(*engine, thread, submit(*engine, thread, "echo", "short")));
    }
    EXPECT_LE(engine->metrics().threads_owned.load(), 60) << "of a hundred, forty of them busy";
    gate_.open();
    for (std::size_t i = 0; i < busy.size(); ++i) {
        const auto outcome = end_of(*engine, busy[i], gated[i]);
        ASSERT_TRUE(outcome);
        EXPECT_EQ(outcome->status, storage::RunStatus::success);
    }
}

}  // namespace
}  // namespace heddle::scheduler::test
