#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "tests/unit/engine/scheduler/test_engine.hpp"

namespace heddle::scheduler::test {
namespace {

// What runs that have not ended hold in memory.
class OpenRuns : public testing::Test {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine(SchedulerLimits limits = {}) {
        return std::make_unique<TestEngine>(
            storage::make_memory_store(database_, {}, store_metrics_), catalog_, OwnershipLimits{},
            limits);
    }
    [[nodiscard]] RunRequest request(const std::string& text) const {
        RunRequest request;
        request.thread_id = thread_;
        request.run_id = base::RunId{base::make_uuid_v7()};
        request.assistant = *catalog_.find("gated");
        request.create_thread = true;
        request.input = base::Json{{"messages", {{{"role", "user"}, {"content", text}}}}};
        request.configurable = base::Json{{"who", text}};
        request.metadata = base::Json{{"from", text}};
        request.kwargs = encode_kwargs(request);
        return request;
    }
    base::Result<RunHandle> submit(TestEngine& engine, RunRequest request) const {
        return engine.on_shard<base::Result<RunHandle>>(
            thread_, [request](ShardScheduler& on) -> base::Task<base::Result<RunHandle>> {
                co_return co_await on.submit(request, true);
            });
    }
    base::Result<RunOutcome> end_of(TestEngine& engine, RunHandle run) const {
        return engine.on_shard<base::Result<RunOutcome>>(
            thread_, [run](ShardScheduler&) -> base::Task<base::Result<RunOutcome>> {
                run->expect_values();
                co_return co_await run->wait_finished(soon());
            });
    }

    Gate gate_;
    storage::MemoryDatabase database_;
    observe::Metrics store_metrics_;
    Catalog catalog_{{make_gated_graph(gate_)}};
    base::ThreadId thread_{base::make_uuid_v7()};
};

TEST_F(OpenRuns, WaitAsTheirRowsAndExecuteWithAllThatTheyCameWith) {
    const auto engine = make_engine();
    const auto first = submit(*engine, request("one"));
    const auto second = submit(*engine, request("two"));
    ASSERT_TRUE(first && second);
    EXPECT_FALSE((*second)->request().input);
    EXPECT_TRUE((*second)->request().metadata.empty());
    const auto again = (*second)->request_again();
    ASSERT_TRUE(again);
    EXPECT_EQ(encode_kwargs(*again), (*second)->row().kwargs);
    EXPECT_EQ(base::dump_json(again->metadata), (*second)->row().metadata);

    gate_.open();
    const auto outcome = end_of(*engine, *second);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_NE(outcome->values.find("echo two"), std::string::npos) << outcome->values;
}

TEST_F(OpenRuns, AreBoundedByWhatTheyHoldTogether) {
    SchedulerLimits limits;
    limits.open_runs_bytes_max = 4096;
    const auto engine = make_engine(limits);
    const auto large = std::string(5000, 'x');
    const auto first = submit(*engine, request(large));
    ASSERT_TRUE(first) << "one alone is taken, however large it is";
    EXPECT_GT(engine->metrics().runs_open_bytes.load(), 5000);
    const auto refused = submit(*engine, request("two"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, base::ErrorCode::overloaded);

    gate_.open();
    ASSERT_TRUE(end_of(*engine, *first));
    EXPECT_EQ(engine->metrics().runs_open_bytes.load(), 0);
    const auto third = submit(*engine, request("three"));
    ASSERT_TRUE(third) << "what has ended holds nothing";
    EXPECT_TRUE(end_of(*engine, *third));
}

}  // namespace
}  // namespace heddle::scheduler::test
