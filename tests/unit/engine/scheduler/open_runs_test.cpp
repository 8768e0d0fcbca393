#include "engine/scheduler/run_kwargs.hpp"
#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

namespace heddle::scheduler::test {
namespace {

// What runs that have not ended hold in memory.
class OpenRuns : public SchedulerTest {
protected:
    [[nodiscard]] RunRequest request(const std::string& text) const {
        auto wanted = SchedulerTest::request("gated", text);
        wanted.configurable = base::Json{{"who", text}};
        wanted.metadata = base::Json{{"from", text}};
        wanted.stream_modes.clear();  // the end of it brings the values
        wanted.kwargs = encode_kwargs(wanted);
        return wanted;
    }
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
    const auto outcome = wait_for_end(*engine, *second);
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
    ASSERT_TRUE(wait_for_end(*engine, *first));
    EXPECT_EQ(engine->metrics().runs_open_bytes.load(), 0);
    const auto third = submit(*engine, request("three"));
    ASSERT_TRUE(third) << "what has ended holds nothing";
    EXPECT_TRUE(wait_for_end(*engine, *third));
}

TEST_F(OpenRuns, LargeOnesLeaveRoomForSmallOnes) {
    SchedulerLimits limits;
    limits.open_runs_bytes_max = 16'384;
    const auto engine = make_engine(limits);
    std::size_t taken = 0;
    for (int i = 0; i < 10; ++i) {
        taken += submit(*engine, request(std::string(1500, 'x'))) ? 1U : 0U;
    }
    EXPECT_EQ(taken, 2U);
    EXPECT_TRUE(submit(*engine, request("small"))) << "in a line of ten large ones";
    gate_.open();
}

}  // namespace
}  // namespace heddle::scheduler::test
