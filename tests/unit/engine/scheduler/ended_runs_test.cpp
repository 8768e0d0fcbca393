#include <thread>

#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "tests/unit/engine/scheduler/test_engine.hpp"

namespace heddle::scheduler::test {
namespace {

// How long, and how many, runs that have ended stay in memory.
class EndedRuns : public testing::Test {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine(SchedulerLimits limits) {
        return std::make_unique<TestEngine>(
            storage::make_memory_store(database_, {}, store_metrics_), catalog_, OwnershipLimits{},
            limits);
    }
    // Runs to the end.
    base::RunId run(TestEngine& engine) {
        RunRequest request;
        request.thread_id = thread_;
        request.run_id = base::RunId{base::make_uuid_v7()};
        request.assistant = *catalog_.find("echo");
        request.create_thread = true;
        request.input = base::Json{{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
        request.stream_modes = {graph::StreamMode::updates};
        request.kwargs = encode_kwargs(request);
        const auto id = request.run_id;
        const bool is_done =
            engine.on_shard<bool>(thread_, [request](ShardScheduler& on) -> base::Task<bool> {
                auto handle = co_await on.submit(request, true);
                if (!handle) {
                    co_return false;
                }
                const auto outcome = co_await (*handle)->wait_finished(soon());
                co_return outcome.has_value();
            });
        EXPECT_TRUE(is_done);
        return id;
    }
    [[nodiscard]] bool is_kept(TestEngine& engine, base::RunId id) const {
        return engine.on_shard<bool>(
            thread_, [thread = thread_, id](ShardScheduler& on) -> base::Task<bool> {
                co_return on.find_run(thread, id) != nullptr;
            });
    }

    storage::MemoryDatabase database_;
    observe::Metrics store_metrics_;
    Catalog catalog_{{make_echo_graph()}};
    base::ThreadId thread_{base::make_uuid_v7()};
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
        const auto until = soon();
        while (is_kept(*engine, last) && base::system_clock().now() < until) {
            std::this_thread::yield();
        }
        EXPECT_FALSE(is_kept(*engine, last));
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
