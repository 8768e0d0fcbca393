#include <algorithm>
#include <iostream>
#include <map>
#include <random>
#include <thread>

#include <sqlite3.h>

#include "engine/storage/sqlite/sqlite_store.hpp"
#include "tests/conformance/fixture.hpp"

/// Times to live, prunes and keys: what goes, goes; what stays can be read as before (ADR 0008).
namespace heddle::conformance {
namespace {

using base::Result;
using std::chrono::milliseconds;
using std::chrono::minutes;
using storage::ExpiredThread;
using storage::KeyHolder;
using storage::Seq;
using storage::TtlStrategy;

// No machine takes so long from one line to the next, and it is well within a lease.
constexpr milliseconds kTtl = minutes{5};

class RetentionTest : public StoreTest {
protected:
    static std::vector<ExpiredThread> expired(Engine& engine, std::int32_t limit = 1000) {
        auto found = call<Result<std::vector<ExpiredThread>>>(
            [&](auto done) { engine.store().find_expired(limit, std::move(done)); });
        EXPECT_TRUE(found) << found.error().message;
        return found ? std::move(found).value() : std::vector<ExpiredThread>{};
    }
    static std::vector<base::ThreadId> ids(const std::vector<ExpiredThread>& found) {
        std::vector<base::ThreadId> all;
        for (const auto& each : found) {
            all.push_back(each.id);
        }
        return all;
    }
    static ClaimOutcome create(Engine& engine,
                               const base::ThreadId& thread,
                               std::optional<storage::ThreadTtl> ttl) {
        storage::ThreadClaim claim;
        claim.thread_id = thread;
        claim.create_if_missing = true;
        claim.ttl = ttl;
        auto outcome = call<Result<ClaimOutcome>>(
            [&](auto done) { engine.store().claim(std::move(claim), std::move(done)); });
        EXPECT_TRUE(outcome) << outcome.error().message;
        return outcome ? std::move(outcome).value() : ClaimOutcome{};
    }
    static base::Status remove(Engine& engine, const ExpiredThread& due) {
        ThreadWrite write;
        write.key = due.key;
        write.thread_id = due.id;
        write.epoch = due.epoch;
        write.delete_thread = true;
        write.if_expires_at_us = due.expires_at_us;
        return engine.write(std::move(write));
    }
    static KeyHolder key(Engine& engine,
                         const std::string& text,
                         const base::ThreadId& thread,
                         const base::RunId& run,
                         base::Duration kept = std::chrono::hours{1}) {
        storage::KeyClaim claim{text, thread, run, kept};
        auto holder = call<Result<KeyHolder>>(
            [&](auto done) { engine.store().claim_key(std::move(claim), std::move(done)); });
        EXPECT_TRUE(holder) << holder.error().message;
        return holder ? *holder : KeyHolder{};
    }
    static std::int32_t delete_keys(Engine& engine, std::int32_t limit = 1000) {
        auto deleted = call<Result<std::int32_t>>(
            [&](auto done) { engine.store().delete_expired_keys(limit, std::move(done)); });
        EXPECT_TRUE(deleted) << deleted.error().message;
        return deleted ? *deleted : -1;
    }
};

constexpr storage::ThreadTtl kDelete{TtlStrategy::delete_thread, kTtl};

// ---- times to live

TEST_P(RetentionTest, AThreadExpiresWhenItsTimeIsOver) {
    auto engine = open_engine();
    const auto mortal = new_thread_id();
    const auto immortal = new_thread_id();
    const auto made = create(*engine, mortal, kDelete);
    EXPECT_EQ(made.thread.ttl, kDelete);
    EXPECT_GT(made.thread.expires_at_us, 0);
    EXPECT_EQ(create(*engine, immortal, std::nullopt).thread.ttl, std::nullopt);
    EXPECT_TRUE(expired(*engine).empty()) << "not yet";
    backend_->pass(kTtl);
    const auto found = expired(*engine);
    ASSERT_EQ(ids(found), std::vector{mortal});
    EXPECT_TRUE(found[0].is_ours);
    EXPECT_EQ(found[0].expires_at_us, engine->thread(mortal)->expires_at_us);
    EXPECT_EQ(found[0].epoch, made.epoch);
    ASSERT_TRUE(remove(*engine, found[0]));
    EXPECT_EQ(code_of(engine->thread(mortal)), ErrorCode::not_found);
    EXPECT_TRUE(engine->thread(immortal));
    EXPECT_TRUE(expired(*engine).empty());
}

TEST_P(RetentionTest, EveryWriteMovesTheEndOn) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = create(*engine, thread, kDelete);
    backend_->pass(kTtl);
    const auto found = expired(*engine);
    ASSERT_EQ(found.size(), 1U);
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    ASSERT_TRUE(engine->write(write));
    EXPECT_TRUE(expired(*engine).empty()) << "it was used";
    EXPECT_EQ(code_of(remove(*engine, found[0])), ErrorCode::stale_epoch)
        << "what was found before no longer holds";
    EXPECT_TRUE(engine->thread(thread));
    backend_->pass(kTtl);
    EXPECT_EQ(expired(*engine).size(), 1U);
}

TEST_P(RetentionTest, AThreadWithAnUnfinishedRunDoesNotExpire) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = create(*engine, thread, kDelete);
    auto write = make_write(claimed);
    write.new_runs = {make_run(thread)};
    const auto run = write.new_runs[0].id;
    ASSERT_TRUE(engine->write(write));
    backend_->pass(kTtl);
    EXPECT_TRUE(expired(*engine).empty());
    auto end = make_write(claimed);
    end.run_updates = {{run, RunStatus::success, 1, ""}};
    ASSERT_TRUE(engine->write(end));
    backend_->pass(kTtl);
    EXPECT_EQ(expired(*engine).size(), 1U);
}

TEST_P(RetentionTest, AThreadOfALiveEngineExpiresForItAlone) {
    auto owner = open_engine();
    auto other = open_engine();
    const auto thread = new_thread_id();
    create(*owner, thread, kDelete);
    backend_->pass(kTtl);
    EXPECT_TRUE(expired(*other).empty());
    ASSERT_EQ(expired(*owner).size(), 1U);
    ASSERT_TRUE(owner->unregister());
    const auto found = expired(*other);
    ASSERT_EQ(ids(found), std::vector{thread});
    EXPECT_FALSE(found[0].is_ours);
    EXPECT_EQ(code_of(remove(*other, found[0])), ErrorCode::stale_epoch) << "it claims it first";
    auto claimed = other->claim(thread);
    auto due = found[0];
    due.epoch = claimed.epoch;
    EXPECT_TRUE(remove(*other, due));
}

TEST_P(RetentionTest, ATimeToLiveCanBeChangedAndStopped) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = create(*engine, thread, std::nullopt);
    auto write = make_write(claimed);
    write.ttl = storage::ThreadTtl{TtlStrategy::keep_latest, kTtl};
    ASSERT_TRUE(engine->write(write));
    EXPECT_EQ(engine->thread(thread)->ttl, write.ttl);
    backend_->pass(kTtl);
    const auto found = expired(*engine);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].strategy, TtlStrategy::keep_latest);
    auto done = make_write(claimed);
    done.prune.emplace();
    done.prune->stop_ttl = true;
    ASSERT_TRUE(engine->write(done));
    EXPECT_TRUE(expired(*engine).empty());
    EXPECT_EQ(engine->thread(thread)->expires_at_us, 0);
    auto use = make_write(claimed);
    use.status = ThreadStatus::idle;
    ASSERT_TRUE(engine->write(use));
    EXPECT_GT(engine->thread(thread)->expires_at_us, 0) << "used again, it expires again";
    write.ttl->after = minutes{10};
    ASSERT_TRUE(engine->write(write));
    backend_->pass(kTtl);
    EXPECT_TRUE(expired(*engine).empty());
}

TEST_P(RetentionTest, AThreadCanBeKeptOnceForLongerThanItsTimeToLive) {
    auto engine = open_engine();
    auto write = make_write(create(*engine, new_thread_id(), kDelete));
    write.ttl = storage::ThreadTtl{TtlStrategy::delete_thread, kTtl};
    write.ttl_kept = 2 * kTtl;
    ASSERT_TRUE(engine->write(write));
    backend_->pass(kTtl);
    EXPECT_TRUE(expired(*engine).empty());
    backend_->pass(kTtl);
    EXPECT_EQ(expired(*engine).size(), 1U);
}

TEST_P(RetentionTest, TemporaryThreadsAreNotSearchedFor) {
    auto engine = open_engine();
    const auto hidden = new_thread_id();
    const auto shown = new_thread_id();
    create(*engine, hidden, storage::ThreadTtl{TtlStrategy::temporary, minutes{1}});
    create(*engine, shown, storage::ThreadTtl{TtlStrategy::delete_thread, minutes{1}});
    const auto found = engine->search({});
    ASSERT_TRUE(found);
    ASSERT_EQ(found->size(), 1U);
    EXPECT_EQ(found->front().id, shown);
    EXPECT_EQ(*engine->count({}), 1);
    storage::ThreadFilter named;
    named.ids = {hidden};
    EXPECT_EQ(*engine->count(named), 0);
    EXPECT_TRUE(engine->thread(hidden)) << "whoever knows it can read it";
}

TEST_P(RetentionTest, TwoSweepersDeleteEveryThreadOnce) {
    constexpr int kThreads = 120;
    std::vector<base::ThreadId> all;
    {
        auto gone = open_engine();
        for (int i = 0; i < kThreads; ++i) {
            all.push_back(new_thread_id());
            create(*gone, all.back(), kDelete);
        }
        ASSERT_TRUE(gone->unregister());
    }
    auto one = open_engine();
    auto two = open_engine();
    backend_->pass(kTtl);
    std::atomic<int> deleted{0};
    const auto sweep = [&](Engine& engine) {
        for (auto found = expired(engine, 50); !found.empty(); found = expired(engine, 50)) {
            for (auto& due : found) {
                auto claimed = engine.try_claim(due.id, false);
                ASSERT_TRUE(claimed);
                if (claimed->kind != ClaimOutcome::Kind::claimed) {
                    continue;
                }
                due.epoch = claimed->epoch;
                deleted += remove(engine, due) ? 1 : 0;
            }
        }
    };
    std::thread other{[&] { sweep(*two); }};
    sweep(*one);
    other.join();
    EXPECT_EQ(deleted, kThreads);
    for (const auto& thread : all) {
        EXPECT_EQ(code_of(one->thread(thread)), ErrorCode::not_found);
    }
}

// ---- prunes

// A state that is a text: a delta appends, a snapshot says the whole.
std::string state_of(const std::vector<JournalRow>& chain) {
    std::string state;
    for (const auto& row : chain) {
        state = row.data.front() == '=' ? row.data.substr(1) : state + row.data;
    }
    return state;
}

// A journal of random length with snapshots at random places, and forks: rows whose parent lies
// further back and that are snapshots therefore.
std::vector<JournalRow> random_journal(std::mt19937_64& random,
                                       std::map<Seq, std::string>& states) {
    std::vector<JournalRow> rows;
    const auto count = static_cast<Seq>(1 + random() % 150);
    Seq base = 0;
    for (Seq seq = 0; seq < count; ++seq) {
        auto row = make_row(seq);
        const bool forks = seq > 3 && random() % 25 == 0;
        if (forks) {
            row.parent = static_cast<Seq>(random() % static_cast<std::uint64_t>(seq - 1));
        }
        auto state = seq == 0 ? std::string{} : states[row.parent];
        const std::string delta = "[" + std::to_string(random() % 1'000'000) + "]";
        state += delta;
        const bool is_snapshot = seq == 0 || forks || random() % 30 == 0;
        base = is_snapshot ? seq : base;
        row.base = base;
        row.data = is_snapshot ? "=" + state : delta;
        states[seq] = state;
        rows.push_back(std::move(row));
    }
    return rows;
}

TEST_P(RetentionTest, AfterAnyPruneEveryKeptCheckpointLoadsToTheSameState) {
    const auto seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937_64 random{seed};
    auto engine = open_engine();
    for (int round = 0; round < 12; ++round) {
        SCOPED_TRACE("seed " + std::to_string(seed) + " round " + std::to_string(round));
        const auto thread = new_thread_id();
        auto claimed = engine->claim(thread);
        std::map<Seq, std::string> states;
        auto rows = random_journal(random, states);
        for (std::size_t from = 0; from < rows.size(); from += 40) {
            auto write = make_write(claimed);
            const auto to = std::min(rows.size(), from + 40);
            write.journal.assign(rows.begin() + static_cast<std::ptrdiff_t>(from),
                                 rows.begin() + static_cast<std::ptrdiff_t>(to));
            ASSERT_TRUE(engine->write(std::move(write)));
        }
        Seq first = 0;
        for (int prune = 0; prune < 4; ++prune) {
            const auto newest = static_cast<Seq>(rows.size()) - 1;
            first += static_cast<Seq>(random() % static_cast<std::uint64_t>(newest - first + 1));
            auto write = make_write(claimed);
            write.prune.emplace();
            write.prune->first = first;
            const auto chain = engine->chain(thread, first);
            ASSERT_TRUE(chain);
            write.prune->snapshot = chain->size() == 1 ? "" : "=" + state_of(*chain);
            // As a sweep that is broken off anywhere leaves it: some rows are not deleted yet.
            write.prune->delete_below =
                static_cast<Seq>(random() % static_cast<std::uint64_t>(first + 1));
            ASSERT_TRUE(engine->write(std::move(write)));
            if (random() % 2 == 0) {  // another engine's next claim finds the same
                claimed = engine->claim(thread);
            }
            EXPECT_EQ(engine->thread(thread)->first, first);
            const auto listed = engine->journal(thread);
            ASSERT_TRUE(listed);
            ASSERT_EQ(listed->size(), static_cast<std::size_t>(newest - first + 1));
            for (const auto& row : *listed) {
                EXPECT_GE(row.seq, first);
                const auto at = static_cast<std::size_t>(row.seq);
                for (const auto& loaded : {engine->chain(thread, row.seq),
                                           engine->chain_of(thread, rows[at].checkpoint_id)}) {
                    ASSERT_TRUE(loaded) << "seq " << row.seq;
                    EXPECT_EQ(state_of(*loaded), states[row.seq]) << "seq " << row.seq;
                    EXPECT_EQ(loaded->front().seq, loaded->front().base);
                    EXPECT_EQ(loaded->back().base, loaded->front().seq);
                    EXPECT_GE(loaded->front().seq, first);
                }
            }
            EXPECT_EQ(state_of(*engine->chain(thread)), states[newest]);
            if (first > 0) {
                EXPECT_EQ(code_of(engine->chain(thread, first - 1)), ErrorCode::not_found);
                EXPECT_EQ(code_of(engine->chain_of(thread, rows[0].checkpoint_id)),
                          ErrorCode::not_found);
            }
            auto more = make_write(claimed);
            auto row = make_row(newest + 1, rows.back().base);
            row.data = "[more]";
            states[newest + 1] = states[newest] + row.data;
            rows.push_back(row);
            more.journal = {row};
            ASSERT_TRUE(engine->write(std::move(more)));
            EXPECT_EQ(state_of(*engine->chain(thread)), states[newest + 1]);
        }
    }
}

TEST_P(RetentionTest, ARollbackGoesOnWorkingAfterAPrune) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    for (Seq seq = 0; seq < 10; ++seq) {
        write.journal.push_back(make_row(seq));
    }
    ASSERT_TRUE(engine->write(std::move(write)));
    auto prune = make_write(claimed);
    prune.prune.emplace();
    prune.prune->first = 5;
    prune.prune->snapshot = "=whole";
    prune.prune->delete_below = 5;
    ASSERT_TRUE(engine->write(std::move(prune)));
    auto back = make_write(claimed);
    back.rollback_to = 6;
    ASSERT_TRUE(engine->write(std::move(back)));
    EXPECT_EQ(seqs(*engine->journal(thread)), (std::vector<Seq>{6, 5}));
    EXPECT_EQ(seqs(*engine->chain(thread)), (std::vector<Seq>{5, 6}));
    auto empty = make_write(claimed);
    empty.rollback_to = storage::kNoSeq;
    ASSERT_TRUE(engine->write(std::move(empty)));
    auto again = make_write(claimed);
    again.journal = {make_row(0)};
    ASSERT_TRUE(engine->write(std::move(again)));
    EXPECT_EQ(seqs(*engine->journal(thread)), (std::vector<Seq>{0})) << "a new beginning is seen";
}

TEST_P(RetentionTest, RunsGoWithTheirLastCheckpointWhenTheyAreOldEnough) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    for (int i = 0; i < 4; ++i) {
        write.new_runs.push_back(make_run(thread, 1'600'000'000'000'000));
        write.new_runs.back().status = i == 3 ? RunStatus::running : RunStatus::success;
        write.journal.push_back(make_row(i));
        write.journal.back().run_id = write.new_runs.back().id;
    }
    const auto runs = write.new_runs;
    write.journal[2].run_id = runs[0].id;  // run 0 has a row that stays
    ASSERT_TRUE(engine->write(std::move(write)));
    const auto prune_with = [&](base::Duration kept) {
        auto prune = make_write(claimed);
        prune.prune.emplace();
        prune.prune->first = 2;
        prune.prune->snapshot = "=whole";
        prune.prune->delete_below = 2;
        prune.prune->runs_kept = kept;
        EXPECT_TRUE(engine->write(std::move(prune)));
    };
    prune_with(storage::kTtlMax);
    EXPECT_EQ(engine->runs(thread)->size(), 4U) << "not old enough";
    prune_with(minutes{1});
    EXPECT_TRUE(engine->run(thread, runs[0].id));
    EXPECT_EQ(code_of(engine->run(thread, runs[1].id)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->find_run(runs[1].id)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->run(thread, runs[2].id)), ErrorCode::not_found);
    EXPECT_TRUE(engine->run(thread, runs[3].id)) << "it runs";
}

TEST_P(RetentionTest, AStaleEnginePrunesNothing) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto old = engine->claim(thread);
    auto write = make_write(old);
    write.journal = {make_row(0), make_row(1)};
    ASSERT_TRUE(engine->write(std::move(write)));
    (void)engine->claim(thread);
    auto prune = make_write(old);
    prune.prune.emplace();
    prune.prune->first = 1;
    prune.prune->delete_below = 1;
    prune.prune->snapshot = "=x";
    EXPECT_EQ(code_of(engine->write(prune)), ErrorCode::stale_epoch);
    auto ttl = make_write(old);
    ttl.ttl = kDelete;
    EXPECT_EQ(code_of(engine->write(ttl)), ErrorCode::stale_epoch);
    EXPECT_EQ(engine->journal(thread)->size(), 2U);
    EXPECT_EQ(engine->thread(thread)->ttl, std::nullopt);
}

// ---- keys

TEST_P(RetentionTest, AKeyNamesItsFirstRunUntilItsTimeIsOver) {
    auto engine = open_engine();
    auto other = open_engine();
    const auto thread = new_thread_id();
    const auto run = new_run_id();
    const auto first = key(*engine, "order 7", thread, run, kTtl);
    EXPECT_TRUE(first.is_new);
    EXPECT_EQ(first.thread, thread);
    EXPECT_EQ(first.run, run);
    const auto repeat = key(*other, "order 7", new_thread_id(), new_run_id(), kTtl);
    EXPECT_FALSE(repeat.is_new);
    EXPECT_EQ(repeat.thread, thread);
    EXPECT_EQ(repeat.run, run);
    EXPECT_TRUE(key(*other, "order 8", thread, new_run_id()).is_new);
    EXPECT_EQ(delete_keys(*engine), 0);
    backend_->pass(kTtl);
    const auto next = new_run_id();
    const auto later = key(*other, "order 7", thread, next, kTtl);
    EXPECT_TRUE(later.is_new) << "free again";
    EXPECT_EQ(later.run, next);
    EXPECT_EQ(delete_keys(*engine), 0) << "its time has begun anew";
    backend_->pass(kTtl);
    EXPECT_EQ(delete_keys(*engine), 1);
    EXPECT_EQ(delete_keys(*engine), 0) << "the other one is kept longer";
}

TEST_P(RetentionTest, AKeyIsNotFreeWhileItsRunGoesOn) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.new_runs = {make_run(thread)};
    const auto run = write.new_runs[0].id;
    ASSERT_TRUE(engine->write(std::move(write)));
    ASSERT_TRUE(key(*engine, "k", thread, run, milliseconds{1}).is_new);
    backend_->pass(milliseconds{1});
    EXPECT_EQ(delete_keys(*engine), 0);
    EXPECT_EQ(key(*engine, "k", thread, new_run_id()).run, run);
    auto end = make_write(claimed);
    end.run_updates = {{run, RunStatus::error, 1, ""}};
    ASSERT_TRUE(engine->write(std::move(end)));
    EXPECT_TRUE(key(*engine, "k", thread, new_run_id()).is_new);
}

TEST_P(RetentionTest, OfManyClaimsOfOneKeyOneWins) {
    constexpr int kAtOnce = 32;
    auto engine = open_engine();
    auto other = open_engine();
    std::vector<std::thread> clients;
    std::vector<KeyHolder> holders(kAtOnce);
    for (std::size_t i = 0; i < kAtOnce; ++i) {
        clients.emplace_back([&, i] {
            auto& through = i % 2 == 0 ? *engine : *other;
            holders[i] = key(through, "one", new_thread_id(), new_run_id());
        });
    }
    for (auto& client : clients) {
        client.join();
    }
    int winners = 0;
    for (const auto& holder : holders) {
        winners += holder.is_new ? 1 : 0;
        EXPECT_EQ(holder.run, holders[0].run);
        EXPECT_EQ(holder.thread, holders[0].thread);
    }
    EXPECT_EQ(winners, 1);
}

TEST_P(RetentionTest, WhatIsOutOfBoundsIsRefused) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    const auto refused = [&](auto change) {
        auto write = make_write(claimed);
        change(write);
        EXPECT_EQ(code_of(engine->write(std::move(write))), ErrorCode::invalid_argument);
    };
    refused([](ThreadWrite& write) { write.ttl.emplace(); });
    refused([](ThreadWrite& write) {
        write.ttl = kDelete;
        write.ttl->after = storage::kTtlMax + minutes{1};
    });
    refused([](ThreadWrite& write) {
        write.ttl = kDelete;
        write.status = ThreadStatus::idle;
    });
    refused([](ThreadWrite& write) {
        write.prune.emplace();
        write.prune->delete_below = 1;
    });
    refused([](ThreadWrite& write) {
        write.prune.emplace();
        write.journal = {make_row(0)};
    });
    for (const auto& text : {std::string{}, std::string(65, 'k')}) {
        storage::KeyClaim claim{text, thread, new_run_id(), minutes{1}};
        EXPECT_EQ(code_of(call<Result<KeyHolder>>(
                      [&](auto done) { engine->store().claim_key(claim, std::move(done)); })),
                  ErrorCode::invalid_argument);
    }
    EXPECT_EQ(code_of(call<Result<std::vector<ExpiredThread>>>(
                  [&](auto done) { engine->store().find_expired(0, std::move(done)); })),
              ErrorCode::invalid_argument);
}

TEST(SqliteSchema, ThreadsFromBeforeRetentionAreReadAsTheyWere) {
    const TemporaryFolder folder;
    const auto path = folder.path() + "/store.db";
    observe::Metrics metrics;
    const auto open = [&] {
        auto store = storage::open_sqlite_store("sqlite:" + path, {}, metrics);
        EXPECT_TRUE(store) << store.error().message;
        return std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
    };
    const auto thread = new_thread_id();
    {
        auto engine = open();
        auto write = make_write(engine->claim(thread));
        write.journal = {make_row(0), make_row(1)};
        ASSERT_TRUE(engine->write(std::move(write)));
    }
    sqlite3* file = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &file), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(file,
                           "DROP INDEX threads_expires_at; DROP INDEX threads_created_at;"
                           "DROP TABLE tool_calls;"
                           "ALTER TABLE threads DROP COLUMN first_seq;"
                           "ALTER TABLE threads DROP COLUMN ttl;"
                           "ALTER TABLE threads DROP COLUMN ttl_strategy;"
                           "ALTER TABLE threads DROP COLUMN expires_at;"
                           "CREATE INDEX threads_created_at ON threads (created_at);"
                           "DROP TABLE idempotency_keys; PRAGMA user_version = 1",
                           nullptr, nullptr, nullptr),
              SQLITE_OK)
        << sqlite3_errmsg(file);
    sqlite3_close(file);
    auto engine = open();
    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->first, 0);
    EXPECT_EQ(row->ttl, std::nullopt);
    EXPECT_EQ(seqs(*engine->chain(thread)), (std::vector<Seq>{0, 1}));
    EXPECT_EQ(engine->search({})->size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Drivers, RetentionTest, testing::ValuesIn(kDrivers), [](const auto& each) {
    return std::string{each.param};
});

}  // namespace
}  // namespace heddle::conformance
