#include <thread>

#include "tests/conformance/fixture.hpp"

/// Threads that begin with their first write.
namespace heddle::conformance {
namespace {

using base::Result;
using storage::ThreadKey;

class CreateTest : public StoreTest {
protected:
    static ThreadWrite make_first(const base::ThreadId& thread) {
        ThreadWrite first;
        first.status = ThreadStatus::busy;
        first.journal = {make_row(0), make_row(1)};
        first.new_runs = {make_run(thread)};
        return first;
    }
    static storage::ThreadClaim make_claim(const base::ThreadId& thread) {
        storage::ThreadClaim claim;
        claim.thread_id = thread;
        claim.metadata = R"({"graph_id":"echo"})";
        return claim;
    }
    static ClaimOutcome as_claimed(const base::ThreadId& thread, ThreadKey key) {
        ClaimOutcome outcome;
        outcome.thread.id = thread;
        outcome.thread.key = key;
        outcome.epoch = 1;
        return outcome;
    }
};

TEST_P(CreateTest, TheThreadIsThereWithItsFirstWrite) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    auto first = make_first(thread);
    first.interrupts = R"({"t":[]})";
    const auto run = first.new_runs[0].id;
    const auto key = engine->create(make_claim(thread), first);
    ASSERT_TRUE(key) << key.error().message;
    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->key, *key);
    EXPECT_EQ(row->status, ThreadStatus::busy);
    EXPECT_EQ(row->head, 1);
    EXPECT_EQ(parsed(row->metadata), parsed(R"({"graph_id":"echo"})"));
    EXPECT_EQ(parsed(row->interrupts), parsed(R"({"t":[]})"));
    EXPECT_EQ(row->ttl, std::nullopt);
    EXPECT_EQ(engine->chain(thread)->size(), 2U);
    EXPECT_TRUE(engine->run(thread, run));

    auto next = make_write(as_claimed(thread, *key));
    next.journal = {make_row(2, 0)};
    next.run_updates = {{run, RunStatus::success, 1, {}}};
    const auto written = engine->write(std::move(next));
    EXPECT_TRUE(written) << written.error().message;
    const auto again = engine->claim(thread);
    EXPECT_EQ(again.kind, ClaimOutcome::Kind::claimed);
    EXPECT_EQ(again.epoch, 2);
    EXPECT_EQ(again.thread.head, 2);
}

TEST_P(CreateTest, WhatTheFirstWriteSaysGoesBeforeTheClaim) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    auto claim = make_claim(thread);
    claim.ttl = storage::ThreadTtl{storage::TtlStrategy::delete_thread, std::chrono::minutes{1}};
    auto first = make_first(thread);
    first.metadata = R"({"a":1})";
    first.release = true;
    first.run_updates = {{first.new_runs[0].id, RunStatus::running, 1, {}}};
    first.tool_calls = {{1, base::make_uuid_v7(), 0, first.new_runs[0].id, {}}};
    ASSERT_TRUE(engine->create(claim, first));
    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(parsed(row->metadata), parsed(R"({"a":1})"));
    EXPECT_EQ(row->ttl, claim.ttl);
    EXPECT_GT(row->expires_at_us, row->created_at_us);
    EXPECT_EQ(engine->run(thread, first.new_runs[0].id)->status, RunStatus::running);
    EXPECT_EQ(engine->tool_calls(thread, 1).size(), 1U);
    auto other = open_engine();
    const auto taken = other->try_claim(thread, false);
    ASSERT_TRUE(taken);
    EXPECT_EQ(taken->kind, ClaimOutcome::Kind::claimed) << "it was released";
    EXPECT_EQ(taken->unfinished_runs.size(), 1U);
}

TEST_P(CreateTest, AThreadThatExistsStaysAsItIs) {
    auto engine = open_engine();
    auto other = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    for (auto* each : {engine.get(), other.get()}) {
        const auto first = make_first(thread);
        EXPECT_EQ(code_of(each->create(make_claim(thread), first)), ErrorCode::conflict);
        EXPECT_EQ(code_of(each->run(thread, first.new_runs[0].id)), ErrorCode::not_found);
    }
    EXPECT_TRUE(engine->chain(thread)->empty());
    EXPECT_TRUE(engine->write(make_write(claimed))) << "its owner has lost nothing";
}

TEST_P(CreateTest, ARunThatExistsKeepsTheThreadFromBeingMade) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto first = make_first(thread);
    ASSERT_TRUE(engine->create(make_claim(thread), first));
    const auto other = new_thread_id();
    EXPECT_EQ(code_of(engine->create(make_claim(other), first)), ErrorCode::conflict);
    EXPECT_EQ(code_of(engine->thread(other)), ErrorCode::not_found);
}

TEST_P(CreateTest, WhatStandsAloneBeginsNoThread) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    ThreadWrite first;
    first.delete_thread = true;
    EXPECT_EQ(code_of(engine->create(make_claim(thread), first)), ErrorCode::invalid_argument);
    first.delete_thread = false;
    first.rollback_to = storage::kNoSeq;
    EXPECT_EQ(code_of(engine->create(make_claim(thread), first)), ErrorCode::invalid_argument);
    auto claim = make_claim(thread);
    claim.metadata = "[]";
    EXPECT_EQ(code_of(engine->create(claim, {})), ErrorCode::invalid_argument);
    EXPECT_EQ(code_of(engine->thread(thread)), ErrorCode::not_found);
}

TEST_P(CreateTest, OfThoseWhoMakeTheSameThreadAtOnceOneDoes) {
    constexpr int kEngines = 4;
    constexpr int kThreads = 25;
    std::vector<base::ThreadId> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.push_back(new_thread_id());
    }
    std::vector<std::unique_ptr<Engine>> engines;
    for (int i = 0; i < kEngines; ++i) {
        engines.push_back(open_engine());
    }
    std::vector<std::vector<ThreadKey>> made(kEngines);
    std::vector<std::thread> os_threads;
    for (int i = 0; i < kEngines; ++i) {
        os_threads.emplace_back([&, i] {
            auto& engine = *engines[static_cast<std::size_t>(i)];
            for (const auto& thread : threads) {
                const auto key = engine.create(make_claim(thread), make_first(thread));
                if (key) {
                    made[static_cast<std::size_t>(i)].push_back(*key);
                    auto write = make_write(as_claimed(thread, *key));
                    write.journal = {make_row(2, 0)};
                    EXPECT_TRUE(engine.write(std::move(write)));
                } else {
                    EXPECT_EQ(key.error().code, ErrorCode::conflict) << key.error().message;
                }
            }
        });
    }
    for (auto& each : os_threads) {
        each.join();
    }
    std::size_t total = 0;
    for (const auto& keys : made) {
        total += keys.size();
    }
    EXPECT_EQ(total, threads.size());
    for (const auto& thread : threads) {
        EXPECT_EQ(engines.front()->chain(thread)->size(), 3U);
        EXPECT_EQ(engines.front()->runs(thread)->size(), 1U);
    }
}

// One transaction carries what several threads write: what is refused must not take others along.
TEST_P(CreateTest, InOneBatchEachGetsItsOwnAnswer) {
    auto engine = open_engine();
    const auto old = engine->claim(new_thread_id());
    const auto taken = engine->claim(new_thread_id());
    constexpr int kNew = 20;
    std::vector<std::future<Result<ThreadKey>>> answers;
    std::vector<std::future<base::Status>> writes;
    const auto create = [&](const base::ThreadId& thread) {
        auto promise = std::make_shared<std::promise<Result<ThreadKey>>>();
        answers.push_back(promise->get_future());
        engine->store().create(
            make_claim(thread), make_first(thread),
            [promise](Result<ThreadKey> key) { promise->set_value(std::move(key)); });
    };
    for (int i = 0; i < kNew; ++i) {
        create(i % 5 == 4 ? taken.thread.id : new_thread_id());
        auto write = make_write(old);
        write.journal = {make_row(i, 0)};
        if (i % 7 == 0) {
            write.tool_calls = {{i, base::make_uuid_v7(), 0, new_run_id(), {}}};
        }
        auto promise = std::make_shared<std::promise<base::Status>>();
        writes.push_back(promise->get_future());
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
    }
    for (int i = 0; i < kNew; ++i) {
        const auto key = answers[static_cast<std::size_t>(i)].get();
        EXPECT_EQ(key.has_value(), i % 5 != 4);
        const auto written = writes[static_cast<std::size_t>(i)].get();
        EXPECT_TRUE(written) << written.error().message;
    }
    EXPECT_EQ(engine->thread(old.thread.id)->head, kNew - 1);
    EXPECT_TRUE(engine->chain(taken.thread.id)->empty());
}

INSTANTIATE_TEST_SUITE_P(Drivers, CreateTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});

}  // namespace
}  // namespace heddle::conformance
