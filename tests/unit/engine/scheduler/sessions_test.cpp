#include <thread>

#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "tests/unit/engine/scheduler/test_engine.hpp"

namespace heddle::scheduler::test {
namespace {

OwnershipLimits quick_ownership() {
    OwnershipLimits limits;
    limits.lease = short_lease().lease;
    limits.heartbeat_every = std::chrono::milliseconds{50};
    limits.recovery_every = std::chrono::milliseconds{50};
    return limits;
}

class Sessions : public testing::Test {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine() {
        return std::make_unique<TestEngine>(
            storage::make_memory_store(database_, short_lease(), store_metrics_), catalog_,
            quick_ownership());
    }
    [[nodiscard]] RunRequest request(const std::string& graph, const std::string& text) const {
        RunRequest request;
        request.thread_id = thread_;
        request.run_id = base::RunId{base::make_uuid_v7()};
        request.assistant = *catalog_.find(graph);
        request.create_thread = true;
        request.input = base::Json{{"messages", {{{"role", "user"}, {"content", text}}}}};
        request.request_hash = text;
        request.stream_modes = {graph::StreamMode::updates};
        request.kwargs = encode_kwargs(request);
        return request;
    }
    // Submits and waits for the end.
    static base::Result<RunOutcome> run(TestEngine& engine, RunRequest request) {
        const auto thread = request.thread_id;
        return engine.on_shard<base::Result<RunOutcome>>(
            thread, [request](ShardScheduler& on) -> base::Task<base::Result<RunOutcome>> {
                auto run = co_await on.submit(request, true);
                if (!run) {
                    co_return std::move(run).error();
                }
                auto outcome = co_await (*run)->wait_finished(soon());
                co_return outcome;
            });
    }
    // Submits and comes back when the run's row is on disk.
    static base::Result<RunHandle> accept(TestEngine& engine, RunRequest request) {
        const auto thread = request.thread_id;
        return engine.on_shard<base::Result<RunHandle>>(
            thread, [request](ShardScheduler& on) -> base::Task<base::Result<RunHandle>> {
                auto run = co_await on.submit(request, true);
                if (!run) {
                    co_return run;
                }
                auto accepted = co_await (*run)->wait_accepted(soon());
                if (!accepted) {
                    co_return std::move(accepted).error();
                }
                co_return run;
            });
    }
    base::Result<RunOutcome> wait_for_end(TestEngine& engine, RunHandle handle) const {
        return engine.on_shard<base::Result<RunOutcome>>(
            thread_, [handle](ShardScheduler&) -> base::Task<base::Result<RunOutcome>> {
                auto outcome = co_await handle->wait_finished(soon());
                co_return outcome;
            });
    }
    [[nodiscard]] std::vector<StateAt> history(TestEngine& engine) const {
        auto loaded = engine.on_shard<base::Result<std::vector<StateAt>>>(
            thread_,
            [thread =
                 thread_](ShardScheduler& on) -> base::Task<base::Result<std::vector<StateAt>>> {
                auto states = co_await on.load_history(thread, std::nullopt, 1000);
                co_return states;
            });
        EXPECT_TRUE(loaded);
        return loaded ? std::move(*loaded) : std::vector<StateAt>{};
    }
    // Contents of the messages on disk, oldest first.
    [[nodiscard]] std::vector<std::string> contents(TestEngine& engine) const {
        std::vector<std::string> texts;
        const auto states = history(engine);
        if (states.empty()) {
            return texts;
        }
        const auto values = base::Json::parse(states.front().values);
        for (const auto& message : values.at("messages")) {
            texts.push_back(message.at("content"));
        }
        return texts;
    }
    // Newest first.
    [[nodiscard]] std::vector<storage::RunRow> runs(TestEngine& engine) const {
        using Rows = base::Result<std::vector<storage::RunRow>>;
        auto& store = engine.scheduler().store();
        auto rows = engine.on_shard<Rows>(
            thread_, [&store, thread = thread_](ShardScheduler&) -> base::Task<Rows> {
                co_return co_await base::from_callback<Rows>([&](auto done) {
                    store.list_runs(thread, storage::RunFilter{}, std::move(done));
                });
            });
        EXPECT_TRUE(rows);
        return rows ? std::move(*rows) : std::vector<storage::RunRow>{};
    }
    [[nodiscard]] bool wait_arrived(std::size_t executions) const {
        const auto until = soon();
        while (gate_.arrived() < executions && base::system_clock().now() < until) {
            std::this_thread::yield();
        }
        return gate_.arrived() >= executions;
    }
    // Until the engine has no thread any more.
    [[nodiscard]] static bool wait_gone(const TestEngine& engine) {
        const auto until = soon();
        while (engine.metrics().threads_owned.load() > 0 && base::system_clock().now() < until) {
            std::this_thread::yield();
        }
        return engine.metrics().threads_owned.load() == 0;
    }
    base::Status cancel(TestEngine& engine, base::RunId run, bool roll_back) const {
        return engine.on_shard<base::Status>(
            thread_,
            [run, roll_back, thread = thread_](ShardScheduler& on) -> base::Task<base::Status> {
                co_return co_await on.cancel_run(thread, run, roll_back);
            });
    }
    // Whether the thread's checkpoints form one line without a fork.
    [[nodiscard]] bool is_linear(TestEngine& engine) const {
        const auto states = history(engine);
        for (std::size_t i = 0; i + 1 < states.size(); ++i) {
            if (states[i].row.parent != states[i + 1].row.seq) {
                return false;
            }
            if (states[i].parent_checkpoint != states[i + 1].row.checkpoint_id) {
                return false;
            }
        }
        return !states.empty();
    }

    Gate gate_;
    Catalog catalog_{{make_echo_graph(), make_gated_graph(gate_), make_two_step_graph(gate_)}};
    observe::Metrics store_metrics_;
    storage::MemoryDatabase database_;  ///< the engines' common disk
    base::ThreadId thread_{base::make_uuid_v7()};
};

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

TEST_F(Sessions, ARunThatKilledItsEnginesTooOftenEndsAsErrorAndSaysSo) {
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

TEST_F(Sessions, ARollbackTakesBackARunThatHadAllItsAttempts) {
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

TEST_F(Sessions, ACancelledRunIsNotBegunAgainByWhoeverTakesItOver) {
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

TEST_F(Sessions, ASuperstepThatALeavingEngineCannotEndCountsAsNoAttempt) {
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

TEST_F(Sessions, ASuperstepThatEndsWhileTheEngineLeavesCountsAsNoAttempt) {
    // At every turn of the loop from before the superstep's end to after its row is written.
    constexpr int kTurnsMax = 12;
    std::size_t begun_again = 0;
    for (int turns = 0; turns < kTurnsMax; ++turns) {
        thread_ = base::ThreadId{base::make_uuid_v7()};
        gate_.close();
        const auto arrived = gate_.arrived();
        const auto leaving = make_engine();
        auto wanted = request("two_steps", "go");
        ASSERT_TRUE(accept(*leaving, wanted));
        ASSERT_TRUE(wait_arrived(arrived + 1));
        (void)leaving->on_shard<bool>(
            thread_, [this, turns](ShardScheduler& on) -> base::Task<bool> {
                on.hand_over_all();
                gate_.open();
                for (int i = 0; i < turns; ++i) {
                    co_await base::from_callback<bool>([](auto done) { done(true); });
                }
                on.hand_over_now();
                co_return true;
            });
        ASSERT_TRUE(wait_gone(*leaving));
        leaving->kill();

        const auto heir = make_engine();
        wanted.maybe_repeated = true;
        const auto outcome = run(*heir, wanted);
        ASSERT_TRUE(outcome);
        const auto again = gate_.arrived() - arrived - 1;
        EXPECT_EQ(runs(*heir).front().attempt, static_cast<std::int32_t>(1 + again)) << turns;
        EXPECT_EQ(contents(*heir), (std::vector<std::string>{"go", "echo go", "echo echo go"}));
        begun_again += again;
    }
    EXPECT_GT(begun_again, 0U) << "no turn was before the superstep's end";
    EXPECT_LT(begun_again, std::size_t{kTurnsMax}) << "none was after it";
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
    TestEngine engine{storage::make_memory_store(database_, short_lease(), store_metrics_),
                      catalog_, limits};
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

TEST_F(Sessions, ADeadEnginesAcceptedRunsFinishElsewhereOnce) {
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

TEST_F(Sessions, ARunThatEndsNoSuperstepIsGivenUpAfterItsAttempts) {
    const auto store = storage::make_memory_store(database_, short_lease(), store_metrics_);
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
        const auto deadline = soon();
        while (attempt_on_disk() < attempt && base::system_clock().now() < deadline) {
            std::this_thread::yield();
        }
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

TEST_F(Sessions, ARunIsDatedAfterThoseThatItWaitsFor) {
    const auto store = storage::make_memory_store(database_, short_lease(), store_metrics_);
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
    const auto until = soon();
    while (gate_.arrived() == arrived) {
        ASSERT_LT(base::system_clock().now(), until);
        std::this_thread::yield();
    }
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
