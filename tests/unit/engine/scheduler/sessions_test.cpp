
#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"
#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

namespace heddle::scheduler::test {
namespace {

class Sessions : public SchedulerTest {};

TEST_F(Sessions, ARunIsAnsweredAndEveryStepOfItIsOnDisk) {
    const auto engine = make_engine();
    const auto outcome = run(*engine, request("echo", "hello"));
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_EQ(contents(*engine), (std::vector<std::string>{"hello", "echo hello"}));
    const auto states = history(*engine);
    ASSERT_EQ(states.size(), 3U);
    EXPECT_EQ(states[0].head.step, 1);
    EXPECT_EQ(states[2].head.step, -1);
    EXPECT_EQ(states[2].head.source, "input");
    EXPECT_TRUE(is_linear(*engine));
}

TEST_F(Sessions, ConcurrentRunsOfOneThreadEndInTheOrderOfTheirAcceptance) {
    const auto engine = make_engine();
    std::vector<std::future<base::Result<RunHandle>>> started;
    for (int i = 0; i < 16; ++i) {
        auto each = request("echo", std::to_string(i));
        started.push_back(engine->start<base::Result<RunHandle>>(
            thread_, [each](ShardScheduler& on) -> base::Task<base::Result<RunHandle>> {
                auto run = co_await on.submit(each, false);
                co_return run;
            }));
    }
    std::vector<std::string> expected;
    for (int i = 0; i < 16; ++i) {
        auto handle = started[static_cast<std::size_t>(i)].get();
        ASSERT_TRUE(handle);
        const auto outcome = wait_for_end(*engine, *handle);
        ASSERT_TRUE(outcome);
        EXPECT_EQ(outcome->status, storage::RunStatus::success);
        expected.push_back(std::to_string(i));
        expected.push_back("echo " + std::to_string(i));
    }
    EXPECT_EQ(contents(*engine), expected);
    EXPECT_TRUE(is_linear(*engine));
}

TEST_F(Sessions, RejectRefusesWhileAnotherRunExecutes) {
    const auto engine = make_engine();
    const auto first = accept(*engine, request("gated", "first"));
    ASSERT_TRUE(first);
    auto second = request("gated", "second");
    second.strategy = MultitaskStrategy::reject;
    const auto refused = accept(*engine, second);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, base::ErrorCode::thread_busy);
    gate_.open();
    EXPECT_TRUE(wait_for_end(*engine, *first));
    EXPECT_EQ(contents(*engine), (std::vector<std::string>{"first", "echo first"}));
}

TEST_F(Sessions, CancelEndsAWaitingAndAnExecutingRunAsInterrupted) {
    const auto engine = make_engine();
    const auto executing = accept(*engine, request("gated", "executing"));
    const auto waiting = accept(*engine, request("gated", "waiting"));
    ASSERT_TRUE(executing && waiting);
    for (const auto& handle : {*waiting, *executing}) {
        const auto told = engine->on_shard<bool>(
            thread_, [id = handle->row().id, this](ShardScheduler& on) -> base::Task<bool> {
                const auto status = co_await on.cancel_run(thread_, id, false);
                co_return status.has_value();
            });
        EXPECT_TRUE(told);
    }
    gate_.open();
    for (const auto& handle : {*waiting, *executing}) {
        const auto outcome = wait_for_end(*engine, handle);
        ASSERT_TRUE(outcome);
        EXPECT_EQ(outcome->status, storage::RunStatus::interrupted);
    }
}

TEST_F(Sessions, ARepeatedRunIdJoinsAndNeverRunsTwice) {
    const auto engine = make_engine();
    const auto once = request("echo", "once");
    ASSERT_TRUE(run(*engine, once));
    auto again = once;
    again.maybe_repeated = true;
    const auto outcome = run(*engine, again);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_EQ(contents(*engine), (std::vector<std::string>{"once", "echo once"}));
    again.request_hash = "another body";
    const auto mismatch = run(*engine, again);
    ASSERT_FALSE(mismatch);
    EXPECT_EQ(mismatch.error().code, base::ErrorCode::idempotency_mismatch);
}

TEST_F(Sessions, ARunThatHasEndedElsewhereIsRefusedSoThatItIsAskedForAgain) {
    const auto once = request("echo", "once");
    ASSERT_TRUE(run(*make_engine(), once));
    const auto engine = make_engine();
    ASSERT_TRUE(run(*engine, request("echo", "other")));
    // Neither the session nor the engine has seen it, and nobody says that it may be a repeat.
    const auto refused = accept(*engine, once);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, base::ErrorCode::unavailable) << refused.error().message;
    auto again = once;
    again.maybe_repeated = true;
    const auto outcome = run(*engine, again);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_EQ(contents(*engine),
              (std::vector<std::string>{"once", "echo once", "other", "echo other"}));
}

TEST_F(Sessions, AQueuedAnswerToWhatIsNotAskedFailsAlone) {
    const auto engine = make_engine();
    const auto first = accept(*engine, request("gated", "one"));
    auto answer = request("echo", "");
    answer.input.reset();
    answer.resume = base::Json{{"action", "retry"}};
    answer.kwargs = encode_kwargs(answer);
    const auto second = accept(*engine, answer);
    const auto third = accept(*engine, request("echo", "three"));
    ASSERT_TRUE(first && second && third);
    gate_.open();
    const auto failed = wait_for_end(*engine, *second);
    ASSERT_TRUE(failed);
    EXPECT_EQ(failed->status, storage::RunStatus::error);
    EXPECT_EQ(failed->error.code, base::ErrorCode::invalid_argument);
    ASSERT_TRUE(wait_for_end(*engine, *third));
    EXPECT_EQ(contents(*engine),
              (std::vector<std::string>{"one", "echo one", "three", "echo three"}));
}

TEST_F(Sessions, AnEngineThatOwnsTheThreadIsNamedToOthers) {
    const auto owner = make_engine();
    const auto other = make_engine();
    ASSERT_TRUE(run(*owner, request("echo", "mine")));
    const auto refused = other->on_shard<base::Result<RunHandle>>(
        thread_,
        [each =
             request("echo", "yours")](ShardScheduler& on) -> base::Task<base::Result<RunHandle>> {
            auto run = co_await on.submit(each, false);
            co_return run;
        });
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, base::ErrorCode::owned_elsewhere);
    EXPECT_EQ(refused.error().field, owner->ownership().engine_id().to_string());
}

TEST_F(Sessions, AnEngineSaysNothingOfItsThreadsWhileItHasNoLease) {
    auto limits = quick_ownership();
    limits.heartbeat_every = std::chrono::hours{1};  // nobody but this test touches the lease
    limits.lease = std::chrono::hours{1};
    TestEngine engine{storage::make_memory_store(database_, long_lease(), store_metrics_), catalog_,
                      limits};
    const auto first = request("echo", "one");
    ASSERT_TRUE(run(engine, first));

    engine.scheduler().lease().end();
    const auto known = run(engine, first);
    ASSERT_FALSE(known);
    EXPECT_EQ(known.error().code, base::ErrorCode::unavailable);
    auto elsewhere = request("echo", "two");
    elsewhere.thread_id = base::ThreadId{base::make_uuid_v7()};
    EXPECT_FALSE(run(engine, elsewhere)) << "a thread that it would begin is anybody's";

    engine.scheduler().lease().extend(base::Instant::max());
    EXPECT_TRUE(run(engine, request("echo", "three")));
}

TEST_F(Sessions, ARunIsDatedAfterThoseThatItWaitsFor) {
    const auto store = storage::make_memory_store(database_, long_lease(), store_metrics_);
    const auto ahead_us = base::unix_microseconds() + 3'600'000'000;
    storage::EngineRow other;
    other.id = base::EngineId{base::make_uuid_v7()};
    store->register_engine(other, [](const base::Status& status) { ASSERT_TRUE(status); });
    storage::ThreadClaim claim;
    claim.thread_id = thread_;
    claim.create_if_missing = true;
    store->claim(claim, [&](const base::Result<storage::ClaimOutcome>& outcome) {
        ASSERT_TRUE(outcome);
        const auto waiting = request("gated", "first");
        storage::ThreadWrite write;
        write.key = outcome->thread.key;
        write.thread_id = thread_;
        write.epoch = outcome->epoch;
        write.release = true;
        storage::RunRow row;
        row.id = waiting.run_id;
        row.thread_id = thread_;
        row.assistant_id = waiting.assistant.id;
        row.kwargs = waiting.kwargs;
        row.created_at_us = ahead_us;
        write.new_runs.push_back(row);
        store->write(std::move(write), [](const base::Status& status) { ASSERT_TRUE(status); });
    });
    const auto engine = make_engine();
    const auto second = accept(*engine, request("echo", "second"));
    ASSERT_TRUE(second);
    EXPECT_GT((*second)->row().created_at_us, ahead_us);
    gate_.open();
    ASSERT_TRUE(wait_for_end(*engine, *second));
}

TEST_F(Sessions, AnotherAssistantGoesOnWithTheSameThread) {
    const auto engine = make_engine();
    gate_.open();
    ASSERT_TRUE(run(*engine, request("echo", "first")));
    ASSERT_TRUE(run(*engine, request("gated", "second")));
    EXPECT_EQ(contents(*engine),
              (std::vector<std::string>{"first", "echo first", "second", "echo second"}));
    EXPECT_TRUE(is_linear(*engine));
}

TEST_F(Sessions, TheStateInMemoryIsTheOneOnDisk) {
    // The owner has it in memory, the other engine reads it back.
    const auto owner = make_engine();
    const auto other = make_engine();
    const auto state = [this](TestEngine& engine) {
        using Found = base::Result<std::optional<StateAt>>;
        auto found = engine.on_shard<Found>(
            thread_, [thread = thread_](ShardScheduler& on) -> base::Task<Found> {
                co_return co_await on.load_state(thread, std::nullopt);
            });
        EXPECT_TRUE(found && *found);
        return found && *found ? **found : StateAt{};
    };
    const auto compare = [&] {
        const auto here = state(*owner);
        const auto there = state(*other);
        EXPECT_EQ(here.values, there.values);
        EXPECT_EQ(here.row.checkpoint_id, there.row.checkpoint_id);
        EXPECT_EQ(here.row.seq, there.row.seq);
        EXPECT_EQ(here.parent_checkpoint, there.parent_checkpoint);
        EXPECT_EQ(here.head.next, there.head.next);
        return here.row.seq;
    };
    gate_.open();
    for (const auto* text : {"one", "two"}) {
        ASSERT_TRUE(run(*owner, request("gated", text)));
        compare();
    }
    gate_.close();
    const auto arrived = gate_.arrived();
    auto held = request("gated", "three");
    held.durability = Durability::exit;
    const auto waits = accept(*owner, held);
    ASSERT_TRUE(waits);
    ASSERT_TRUE(wait_arrived(arrived + 1));
    EXPECT_EQ(compare(), 5) << "what it has made so far is not on disk";
    gate_.open();
    ASSERT_TRUE(wait_for_end(*owner, *waits));
    EXPECT_EQ(compare(), 8);
}

class SessionsByDurability : public Sessions, public testing::WithParamInterface<Durability> {};

TEST_P(SessionsByDurability, EveryDurabilityHasTheStepsOnDiskWhenTheRunHasEnded) {
    const auto engine = make_engine();
    auto each = request("echo", "hello");
    each.durability = GetParam();
    ASSERT_TRUE(run(*engine, each));
    EXPECT_EQ(history(*engine).size(), 3U);
    EXPECT_EQ(contents(*engine), (std::vector<std::string>{"hello", "echo hello"}));
}

INSTANTIATE_TEST_SUITE_P(All,
                         SessionsByDurability,
                         testing::Values(Durability::sync, Durability::async, Durability::exit));

}  // namespace
}  // namespace heddle::scheduler::test
