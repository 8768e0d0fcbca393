#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "engine/scheduler/sweeper.hpp"
#include "engine/storage/checks.hpp"
#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

/// What goes when its time is over, and that nothing else does (ADR 0008).
namespace heddle::scheduler::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using storage::TtlStrategy;

class Retention : public SchedulerTest {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine() {
        return std::make_unique<TestEngine>(
            storage::make_memory_store(still_, long_lease(), store_metrics_), catalog_,
            quick_ownership(), limits_);
    }
    [[nodiscard]] base::Result<storage::ThreadRow> thread(TestEngine& engine) const {
        return engine.on_shard<base::Result<storage::ThreadRow>>(
            thread_,
            [&, id = thread_](ShardScheduler&) -> base::Task<base::Result<storage::ThreadRow>> {
                co_return co_await base::from_callback<base::Result<storage::ThreadRow>>(
                    [&](auto done) {
                        engine.scheduler().store().load_thread(id, std::move(done));
                    });
            });
    }
    // What the sweep does to the thread when its time is over.
    std::size_t expire(TestEngine& engine) const {
        return engine.on_shard<std::size_t>(
            thread_, [&](ShardScheduler& on) -> base::Task<std::size_t> {
                auto found =
                    co_await base::from_callback<base::Result<std::vector<storage::ExpiredThread>>>(
                        [&](auto done) {
                            engine.scheduler().store().find_expired(10, std::move(done));
                        });
                if (!found) {
                    ADD_FAILURE() << found.error().message;
                    co_return 0U;
                }
                auto due = std::move(*found);
                co_return co_await on.expire(std::move(due));
            });
    }
    void let_expire(const storage::ThreadTtl& ttl) { clock_.advance(ttl.after + milliseconds{1}); }

    /// The database's clock stands until it is advanced.
    class StillClock final : public base::Clock {
    public:
        [[nodiscard]] base::Instant now() const noexcept override {
            return base::Instant{std::chrono::microseconds{us_.load()}};
        }
        [[nodiscard]] std::int64_t unix_us() const noexcept override { return us_.load(); }
        void advance(base::Duration by) {
            us_ += std::chrono::duration_cast<std::chrono::microseconds>(by).count();
        }

    private:
        std::atomic<std::int64_t> us_{1'700'000'000'000'000};
    };

    StillClock clock_;
    storage::MemoryDatabase still_{clock_};  ///< the engines' common disk
    SchedulerLimits limits_;
};

constexpr storage::ThreadTtl kDelete{TtlStrategy::delete_thread, std::chrono::hours{1}};
constexpr storage::ThreadTtl kKeepLatest{TtlStrategy::keep_latest, std::chrono::hours{1}};

TEST_F(Retention, TheSweepDeletesWhatHasExpired) {
    limits_.thread_ttl = kDelete;
    const auto engine = make_engine();
    ASSERT_TRUE(run(*engine, request("echo", "hello")));
    SweeperLimits quick;
    quick.every = milliseconds{1};
    Sweeper sweeper{engine->scheduler(), quick};
    sweeper.start();
    ASSERT_TRUE(thread(*engine));
    clock_.advance(kDelete.after - seconds{1});
    ASSERT_TRUE(thread(*engine)) << "not yet";
    clock_.advance(seconds{2});
    ASSERT_TRUE(comes_true([&] { return !thread(*engine).has_value(); })) << "the thread goes";
    ASSERT_TRUE(comes_true([&] { return engine->metrics().threads_expired_total.load() == 1; }))
        << "counted";
    sweeper.stop();
    const auto again = run(*engine, request("echo", "anew"));
    ASSERT_TRUE(again) << "it begins anew: " << again.error().message;
    EXPECT_EQ(history(*engine).size(), 3U);
}

TEST_F(Retention, AThreadThatRunsIsLeftAlone) {
    limits_.thread_ttl = kDelete;
    const auto engine = make_engine();
    auto running = engine->start<base::Result<RunOutcome>>(
        thread_,
        [each = request("gated", "x")](ShardScheduler& on) -> base::Task<base::Result<RunOutcome>> {
            auto run = co_await on.submit(each, true);
            if (!run) {
                co_return std::move(run).error();
            }
            co_return co_await (*run)->wait_finished(base::system_clock().now() + seconds{20});
        });
    ASSERT_TRUE(comes_true([&] { return gate_.arrived() == 1; })) << "it executes";
    let_expire(kDelete);
    EXPECT_EQ(expire(*engine), 0U);
    // Also if the store said otherwise a moment ago, when nothing ran yet.
    const auto row = thread(*engine);
    ASSERT_TRUE(row);
    std::vector<storage::ExpiredThread> stale{
        {row->key, thread_, 1, true, TtlStrategy::delete_thread, row->expires_at_us, 3}};
    EXPECT_EQ(engine->on_shard<std::size_t>(thread_,
                                            [stale](ShardScheduler& on) -> base::Task<std::size_t> {
                                                auto due = stale;
                                                co_return co_await on.expire(std::move(due));
                                            }),
              0U);
    gate_.open();
    const auto outcome = running.get();
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, storage::RunStatus::success);
    EXPECT_EQ(expire(*engine), 0U) << "it was used a moment ago";
    let_expire(kDelete);
    EXPECT_EQ(expire(*engine), 1U);
}

TEST_F(Retention, KeepLatestLeavesOneCheckpointFromWhichTheThreadGoesOn) {
    limits_.thread_ttl = kKeepLatest;
    limits_.key_kept = milliseconds{1};
    const auto engine = make_engine();
    for (const auto* text : {"one", "two", "three"}) {
        ASSERT_TRUE(run(*engine, request("echo", text)));
    }
    const auto before = history(*engine);
    ASSERT_EQ(before.size(), 9U);
    let_expire(kKeepLatest);
    EXPECT_EQ(expire(*engine), 1U);
    const auto kept = history(*engine);
    ASSERT_EQ(kept.size(), 1U);
    EXPECT_EQ(kept[0].values, before[0].values);
    EXPECT_EQ(kept[0].row.checkpoint_id, before[0].row.checkpoint_id);
    EXPECT_TRUE(kept[0].parent_checkpoint.is_nil()) << "it is gone";
    let_expire(kKeepLatest);
    EXPECT_EQ(expire(*engine), 0U) << "nothing more to do until it is used";
    const auto next = run(*engine, request("echo", "four"));
    ASSERT_TRUE(next);
    EXPECT_TRUE(next->values_left_out) << "its stream has had them";
    EXPECT_EQ(base::Json::parse(history(*engine).front().values).at("messages").size(), 8U);
    EXPECT_EQ(history(*engine).size(), 4U);
    let_expire(kKeepLatest);
    EXPECT_EQ(expire(*engine), 1U);
    EXPECT_EQ(history(*engine).size(), 1U);
}

TEST_F(Retention, ALongThreadGoesSliceBySlice) {
    limits_.thread_ttl = kDelete;
    const auto engine = make_engine();
    for (int turn = 0; turn < 350; ++turn) {
        ASSERT_TRUE(run(*engine, request("echo", "x")));
    }
    ASSERT_EQ(thread(*engine)->head, 1049);
    let_expire(kDelete);
    const auto batches = store_metrics_.store_batches_total.load();
    EXPECT_EQ(expire(*engine), 1U);
    EXPECT_FALSE(thread(*engine));
    EXPECT_EQ(store_metrics_.store_batches_total.load() - batches, 3) << "two slices, the thread";
}

TEST_F(Retention, EveryKeptCheckpointIsAsItWasBefore) {
    const auto seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937_64 random{seed};
    limits_.key_kept = milliseconds{1};
    limits_.checkpoints_kept = static_cast<std::int64_t>(1 + random() % 12);
    const auto kept = static_cast<std::size_t>(limits_.checkpoints_kept);
    auto engine = make_engine();
    std::map<base::CheckpointId, std::string> states;
    std::size_t made = 0;
    for (int turn = 0; turn < 60; ++turn) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " turn " + std::to_string(turn));
        auto each = request("echo", std::string(random() % 200, 'x') + std::to_string(turn));
        each.durability = static_cast<Durability>(random() % 3);
        const auto outcome = run(*engine, each);
        ASSERT_TRUE(outcome) << outcome.error().message;
        ASSERT_EQ(outcome->status, storage::RunStatus::success);
        made += 3;
        const auto now = history(*engine);
        ASSERT_GE(now.size(), std::min(kept, made));
        for (std::size_t i = 0; i < now.size(); ++i) {
            const auto [at, is_new] = states.emplace(now[i].row.checkpoint_id, now[i].values);
            EXPECT_EQ(at->second, now[i].values) << "seq " << now[i].row.seq;
            if (i + 1 < now.size()) {
                EXPECT_EQ(now[i].row.parent, now[i + 1].row.seq);
                EXPECT_EQ(now[i].parent_checkpoint, now[i + 1].row.checkpoint_id);
            }
        }
        if (random() % 10 == 0) {  // another engine reads what this one pruned
            engine.reset();
            engine = make_engine();
        }
    }
    const auto values = base::Json::parse(history(*engine).front().values);
    EXPECT_EQ(values.at("messages").size(), 120U) << "nothing of the state is lost";
    ASSERT_TRUE(comes_true([&] {
        (void)run(*engine, request("echo", "more"));
        return history(*engine).size() < kept + std::max<std::size_t>(kept, 16) + 6;
    })) << "old checkpoints go";
}

TEST_F(Retention, WhatIsYoungerThanAKeysTimeIsNotPruned) {
    limits_.checkpoints_kept = 3;
    const auto engine = make_engine();
    for (int turn = 0; turn < 20; ++turn) {
        ASSERT_TRUE(run(*engine, request("echo", std::to_string(turn))));
    }
    EXPECT_EQ(history(*engine).size(), 60U) << "a repeat would find the answers of a day";
}

TEST_F(Retention, TheEventsOfAPrunedRunAreSaidToBeCut) {
    limits_.thread_ttl = kKeepLatest;
    const auto engine = make_engine();
    const auto first = request("echo", "one");
    const auto last = request("echo", "two");
    ASSERT_TRUE(run(*engine, first));
    ASSERT_TRUE(run(*engine, last));
    const auto events_of = [&](const RunRequest& of) {
        return engine->on_shard<base::Result<LoadedEvents>>(
            thread_, [&](ShardScheduler& on) -> base::Task<base::Result<LoadedEvents>> {
                storage::RunRow row;
                row.thread_id = thread_;
                row.id = of.run_id;
                co_return co_await on.load_run_events(row);
            });
    };
    EXPECT_FALSE(events_of(first)->cut_at);
    EXPECT_FALSE(events_of(last)->cut_at);
    let_expire(kKeepLatest);
    ASSERT_EQ(expire(*engine), 1U);
    EXPECT_TRUE(events_of(first)->cut_at);
    EXPECT_TRUE(events_of(first)->events.empty());
    const auto cut = events_of(last);
    ASSERT_TRUE(cut->cut_at);
    EXPECT_EQ(cut->cut_at->rows, 5U) << "the last of six rows is there";
    EXPECT_EQ(cut->events.size(), 1U);
    storage::RunRow row;
    row.id = first.run_id;
    row.thread_id = thread_;
    row.status = storage::RunStatus::success;
    const auto outcome = engine->on_shard<base::Result<RunOutcome>>(
        thread_, [&](ShardScheduler& on) -> base::Task<base::Result<RunOutcome>> {
            co_return co_await on.load_outcome(row);
        });
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, base::ErrorCode::not_found);
}

TEST_F(Retention, ATemporaryThreadIsThereForARepeatAndThenGoes) {
    const auto engine = make_engine();
    auto stateless = request("echo", "hello");
    stateless.temporary_thread = true;
    const auto first = run(*engine, stateless);
    ASSERT_TRUE(first);
    EXPECT_EQ(engine->metrics().threads_owned.load(), 0) << "nothing of it stays in memory";
    auto repeat = stateless;
    repeat.maybe_repeated = true;
    repeat.create_thread = false;
    repeat.must_exist = true;
    const auto again = run(*engine, repeat);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->values, first->values);
    EXPECT_EQ(expire(*engine), 0U);
    clock_.advance(limits_.temporary_kept * 2);
    EXPECT_EQ(expire(*engine), 1U);
    EXPECT_FALSE(thread(*engine));
}

TEST_F(Retention, AKeyedTemporaryThreadStaysAsLongAsItsKey) {
    const auto engine = make_engine();
    auto stateless = request("echo", "hello");
    stateless.temporary_thread = true;
    stateless.keyed = true;
    ASSERT_TRUE(run(*engine, stateless));
    clock_.advance(limits_.key_kept - seconds{1});
    EXPECT_EQ(expire(*engine), 0U);
    clock_.advance(seconds{2});
    EXPECT_EQ(expire(*engine), 1U);
}

TEST_F(Retention, AKeyedRunKeepsItsThreadAsLongAsItsKey) {
    limits_.thread_ttl = kDelete;
    const auto engine = make_engine();
    auto keyed = request("echo", "hello");
    keyed.keyed = true;
    const auto first = run(*engine, keyed);
    ASSERT_TRUE(first);
    clock_.advance(limits_.key_kept - seconds{1});
    EXPECT_EQ(expire(*engine), 0U);
    keyed.maybe_repeated = true;
    const auto again = run(*engine, keyed);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->values, first->values);
    clock_.advance(seconds{2});
    EXPECT_EQ(expire(*engine), 1U);
}

TEST_F(Retention, ADeadEnginesThreadsAreSweptByAnother) {
    limits_.thread_ttl = kDelete;
    {
        const auto gone = make_engine();
        ASSERT_TRUE(run(*gone, request("echo", "hello")));
    }
    const auto heir = make_engine();
    EXPECT_EQ(expire(*heir), 0U);
    let_expire(kDelete);
    EXPECT_EQ(expire(*heir), 1U);
    EXPECT_FALSE(thread(*heir));
    EXPECT_EQ(heir->metrics().threads_owned.load(), 0);
}

}  // namespace
}  // namespace heddle::scheduler::test
