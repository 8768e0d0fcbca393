#include <algorithm>

#include "tests/conformance/fixture.hpp"

/// Ownership: who may run a thread, and what is refused to who may not.
namespace heddle::conformance {
namespace {

using Kind = ClaimOutcome::Kind;

constexpr std::chrono::seconds kLease{30};

class ClaimTest : public StoreTest {};

TEST_P(ClaimTest, CreatesAMissingThreadOnlyIfAsked) {
    auto engine = open_engine();
    const auto thread = new_thread_id();

    const auto missing = engine->try_claim(thread, false);
    ASSERT_TRUE(missing);
    EXPECT_EQ(missing->kind, Kind::missing);
    EXPECT_EQ(code_of(engine->thread(thread)), ErrorCode::not_found);

    const auto created = engine->try_claim(thread, true, R"({"user":"ann","n":1})");
    ASSERT_TRUE(created);
    EXPECT_EQ(created->kind, Kind::created);
    EXPECT_EQ(created->thread.id, thread);
    EXPECT_EQ(created->thread.head, storage::kNoSeq);
    EXPECT_EQ(created->thread.status, ThreadStatus::idle);
    EXPECT_TRUE(created->unfinished_runs.empty());

    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->key, created->thread.key);
    EXPECT_EQ(parsed(row->metadata), parsed(R"({"n":1,"user":"ann"})"));
    EXPECT_EQ(parsed(row->interrupts), parsed("{}"));
    EXPECT_EQ(row->created_at_us, created->thread.created_at_us);
    EXPECT_GT(row->created_at_us, 0);
}

TEST_P(ClaimTest, EveryClaimRaisesTheEpoch) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto first = engine->claim(thread);
    const auto second = engine->claim(thread, R"({"ignored":true})");
    EXPECT_EQ(second.kind, Kind::claimed);
    EXPECT_GT(second.epoch, first.epoch);
    EXPECT_EQ(second.thread.key, first.thread.key);
    EXPECT_EQ(second.thread.metadata, "{}");
}

TEST_P(ClaimTest, ALiveOwnerKeepsItsThread) {
    auto owner = open_engine();
    auto other = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = owner->claim(thread);

    for (const bool create : {true, false}) {
        const auto refused = other->try_claim(thread, create);
        ASSERT_TRUE(refused);
        EXPECT_EQ(refused->kind, Kind::owned_elsewhere);
        EXPECT_EQ(refused->owner, owner->id());
        EXPECT_EQ(refused->owner_endpoint.rfind("ipc:///engine-", 0), 0U);
    }
    auto write = make_write(claimed);
    write.status = ThreadStatus::busy;
    EXPECT_TRUE(owner->write(std::move(write)));
}

TEST_P(ClaimTest, AReleasedThreadMayBeClaimedAtOnce) {
    auto first = open_engine();
    auto second = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = first->claim(thread);
    auto release = make_write(claimed);
    release.release = true;
    release.journal.push_back(make_row(0));
    ASSERT_TRUE(first->write(release));

    // Whoever released a thread has no business with it any more.
    auto late = make_write(claimed);
    late.journal.push_back(make_row(1));
    EXPECT_EQ(code_of(first->write(late)), ErrorCode::stale_epoch);

    const auto taken = second->claim(thread);
    EXPECT_EQ(taken.kind, Kind::claimed);
    EXPECT_GT(taken.epoch, claimed.epoch);
    EXPECT_EQ(taken.thread.head, 0);
}

TEST_P(ClaimTest, AnUnregisteredEngineOwnsNothing) {
    auto first = open_engine();
    auto second = open_engine();
    const auto thread = new_thread_id();
    (void)first->claim(thread);
    ASSERT_TRUE(first->unregister());
    EXPECT_EQ(second->claim(thread).kind, Kind::claimed);
    EXPECT_EQ(code_of(first->heartbeat()), ErrorCode::not_found);
}

TEST_P(ClaimTest, AnExpiredOwnerIsRobbedAndWritesNothing) {
    auto owner = open_engine();
    auto robber = open_engine(kLease);
    const auto thread = new_thread_id();
    const auto claimed = owner->claim(thread);
    backend_->pass(kLease);

    const auto robbed = robber->claim(thread);
    EXPECT_EQ(robbed.kind, Kind::claimed);
    EXPECT_GT(robbed.epoch, claimed.epoch);

    auto late = make_write(claimed);
    late.status = ThreadStatus::error;
    late.metadata = R"({"late":true})";
    late.journal.push_back(make_row(0));
    late.new_runs.push_back(make_run(thread));
    const auto run = late.new_runs[0].id;
    EXPECT_EQ(code_of(owner->write(late)), ErrorCode::stale_epoch);
    late.delete_thread = true;
    EXPECT_EQ(code_of(owner->write(late)), ErrorCode::stale_epoch);
    EXPECT_GE(backend_->metrics.stale_writes_total.load(), 2);

    const auto row = robber->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->status, ThreadStatus::idle);
    EXPECT_EQ(row->metadata, "{}");
    EXPECT_EQ(row->head, storage::kNoSeq);
    EXPECT_TRUE(robber->chain(thread)->empty());
    EXPECT_EQ(code_of(robber->find_run(run)), ErrorCode::not_found);
}

TEST_P(ClaimTest, AnOldEpochOfTheSameEngineIsStale) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto first = engine->claim(thread);
    const auto second = engine->claim(thread);
    auto write = make_write(first);
    write.journal.push_back(make_row(0));
    EXPECT_EQ(code_of(engine->write(write)), ErrorCode::stale_epoch);
    write.epoch = second.epoch;
    EXPECT_TRUE(engine->write(write));
    write.epoch = second.epoch + 1;
    write.journal[0] = make_row(1);
    EXPECT_EQ(code_of(engine->write(write)), ErrorCode::stale_epoch);
}

TEST_P(ClaimTest, AClaimBringsUnfinishedRunsOldestFirst) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    for (int i = 0; i < 5; ++i) {
        write.new_runs.push_back(make_run(thread, 5'000'000 - i));
    }
    write.new_runs[1].status = RunStatus::running;
    write.new_runs[1].attempt = 3;
    write.new_runs[2].status = RunStatus::success;
    const auto runs = write.new_runs;
    ASSERT_TRUE(engine->write(write));
    auto done = make_write(claimed);
    done.run_updates.push_back({runs[4].id, RunStatus::timeout, 1, R"({"error":"t"})"});
    ASSERT_TRUE(engine->write(done));

    const auto again = engine->claim(thread);
    ASSERT_EQ(again.unfinished_runs.size(), 3U);
    EXPECT_EQ(again.unfinished_runs[0].id, runs[3].id);
    EXPECT_EQ(again.unfinished_runs[1].id, runs[1].id);
    EXPECT_EQ(again.unfinished_runs[1].status, RunStatus::running);
    EXPECT_EQ(again.unfinished_runs[1].attempt, 3);
    EXPECT_EQ(again.unfinished_runs[1].thread_id, thread);
    EXPECT_EQ(again.unfinished_runs[2].id, runs[0].id);
    EXPECT_EQ(again.unfinished_runs[0].kwargs, runs[3].kwargs);
}

TEST_P(ClaimTest, OfManyEnginesThatClaimAtOnceOneWins) {
    std::vector<std::unique_ptr<Engine>> engines;
    for (int i = 0; i < 3; ++i) {
        engines.push_back(open_engine());
    }
    constexpr int kThreads = 100;
    std::vector<base::ThreadId> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.push_back(new_thread_id());
    }

    std::vector<std::future<base::Result<ClaimOutcome>>> answers;
    for (int i = 0; i < kThreads; ++i) {
        for (auto& engine : engines) {
            auto promise = std::make_shared<std::promise<base::Result<ClaimOutcome>>>();
            answers.push_back(promise->get_future());
            storage::ThreadClaim claim;
            claim.thread_id = threads[static_cast<std::size_t>(i)];
            claim.create_if_missing = true;
            engine->store().claim(std::move(claim), [promise](base::Result<ClaimOutcome> outcome) {
                promise->set_value(std::move(outcome));
            });
        }
    }
    int created = 0;
    int elsewhere = 0;
    for (auto& answer : answers) {
        const auto outcome = answer.get();
        ASSERT_TRUE(outcome) << outcome.error().message;
        created += outcome->kind == Kind::created ? 1 : 0;
        elsewhere += outcome->kind == Kind::owned_elsewhere ? 1 : 0;
    }
    EXPECT_EQ(created, kThreads);
    EXPECT_EQ(elsewhere, kThreads * 2);
}

TEST_P(ClaimTest, AHeartbeatAfterTheLeaseIsStale) {
    auto engine = open_engine(kLease);
    backend_->pass(kLease);
    EXPECT_EQ(code_of(engine->heartbeat()), ErrorCode::stale_epoch);
    EXPECT_EQ(code_of(engine->heartbeat()), ErrorCode::stale_epoch);
}

TEST_P(ClaimTest, AHeartbeatRenewsTheLease) {
    auto owner = open_engine();
    auto other = open_engine(kLease);
    const auto thread = new_thread_id();
    (void)owner->claim(thread);
    backend_->pass(kLease);
    EXPECT_TRUE(owner->heartbeat());
    const auto refused = other->try_claim(thread, false);
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->kind, Kind::owned_elsewhere);
}

TEST_P(ClaimTest, EnginesAreListedWhileTheyLive) {
    auto first = open_engine();
    auto second = open_engine();
    ASSERT_TRUE(second->heartbeat(true));
    const auto rows = first->engines();
    ASSERT_EQ(rows.size(), 2U);
    for (const auto& row : rows) {
        EXPECT_TRUE(row.id == first->id() || row.id == second->id());
        EXPECT_EQ(row.draining, row.id == second->id());
        EXPECT_EQ(row.endpoint.rfind("ipc:///engine-", 0), 0U);
    }
    ASSERT_TRUE(second->unregister());
    EXPECT_EQ(first->engines().size(), 1U);
    auto later = open_engine(kLease);
    backend_->pass(kLease);
    EXPECT_TRUE(later->engines().empty());
}

TEST_P(ClaimTest, OrphansAreUnfinishedAndWithoutALiveOwner) {
    auto dead = open_engine();
    std::vector<base::ThreadId> threads;
    for (int i = 0; i < 4; ++i) {
        threads.push_back(new_thread_id());
        const auto claimed = dead->claim(threads.back());
        auto write = make_write(claimed);
        write.new_runs.push_back(make_run(threads.back()));
        if (i == 0) {
            write.new_runs[0].status = RunStatus::success;
        }
        if (i == 1) {
            write.new_runs[0].status = RunStatus::running;
        }
        write.release = i == 2;
        ASSERT_TRUE(dead->write(write));
    }
    auto other = open_engine();
    EXPECT_EQ(other->orphans(), std::vector{threads[2]});

    ASSERT_TRUE(dead->unregister());
    auto found = other->orphans();
    std::sort(found.begin(), found.end());
    auto expected = std::vector{threads[1], threads[2], threads[3]};
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(found, expected);
    const auto claimed = other->claim(threads[1]);
    ASSERT_EQ(claimed.unfinished_runs.size(), 1U);
    EXPECT_EQ(other->orphans().size(), 2U);
}

TEST_P(ClaimTest, AnEngineComesBackUnderANewId) {
    auto engine = open_engine(kLease);
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    backend_->pass(kLease);
    ASSERT_EQ(code_of(engine->heartbeat()), ErrorCode::stale_epoch);
    const base::EngineId anew{base::make_uuid_v7()};
    const auto registered = call<base::Status>([&](auto done) {
        engine->store().register_engine(storage::EngineRow{anew, "ipc:///anew", false},
                                        std::move(done));
    });
    ASSERT_TRUE(registered);
    auto late = make_write(claimed);
    late.journal.push_back(make_row(0));
    EXPECT_EQ(code_of(engine->write(late)), ErrorCode::stale_epoch);
    EXPECT_GT(engine->claim(thread).epoch, claimed.epoch);
}

INSTANTIATE_TEST_SUITE_P(Drivers, ClaimTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});

}  // namespace
}  // namespace heddle::conformance
