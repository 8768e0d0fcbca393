#include <limits>

#include "tests/conformance/fixture.hpp"

/// What a write changes, and that it changes nothing when it is refused.
namespace heddle::conformance {
namespace {

class WriteTest : public StoreTest {};

void expect_same(const JournalRow& found, const JournalRow& written) {
    EXPECT_EQ(found.seq, written.seq);
    EXPECT_EQ(found.parent, written.parent);
    EXPECT_EQ(found.base, written.base);
    EXPECT_EQ(found.checkpoint_id, written.checkpoint_id);
    EXPECT_EQ(found.run_id, written.run_id);
    EXPECT_EQ(found.step, written.step);
    EXPECT_EQ(found.head, written.head);
    EXPECT_EQ(found.created_at_us, written.created_at_us);
}

TEST_P(WriteTest, EverythingOfAWriteIsThereAfterwards) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.status = ThreadStatus::interrupted;
    write.metadata = R"({"graph_id":"echo","tags":["a"]})";
    write.interrupts = R"({"t1":[{"id":"i","value":"\u0000"}]})";
    write.journal = {make_row(0), make_row(1)};
    write.journal[1].run_id = base::RunId{};
    write.new_runs = {make_run(thread)};
    ASSERT_TRUE(engine->write(write));

    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->status, ThreadStatus::interrupted);
    EXPECT_EQ(parsed(row->metadata), parsed(*write.metadata));
    EXPECT_EQ(parsed(row->interrupts), parsed(*write.interrupts));
    EXPECT_EQ(row->head, 1);
    EXPECT_GE(row->updated_at_us, row->created_at_us);
    const auto chain = engine->chain(thread);
    ASSERT_TRUE(chain);
    ASSERT_EQ(chain->size(), 2U);
    expect_same((*chain)[0], write.journal[0]);
    expect_same((*chain)[1], write.journal[1]);
    EXPECT_EQ((*chain)[0].data, write.journal[0].data);
    const auto run = engine->run(thread, write.new_runs[0].id);
    ASSERT_TRUE(run);
    EXPECT_EQ(run->assistant_id, write.new_runs[0].assistant_id);
    EXPECT_EQ(run->metadata, write.new_runs[0].metadata);
    EXPECT_EQ(run->kwargs, write.new_runs[0].kwargs);
    EXPECT_EQ(run->request_hash, write.new_runs[0].request_hash);
    EXPECT_EQ(run->multitask_strategy, "enqueue");
    EXPECT_EQ(run->created_at_us, write.new_runs[0].created_at_us);
}

TEST_P(WriteTest, WhatAWriteLeavesOutStaysAsItWas) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread, R"({"a":1})");
    auto first = make_write(claimed);
    first.status = ThreadStatus::busy;
    first.interrupts = R"({"x":[]})";
    first.journal = {make_row(0)};
    ASSERT_TRUE(engine->write(first));
    ASSERT_TRUE(engine->write(make_write(claimed)));
    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->status, ThreadStatus::busy);
    EXPECT_EQ(parsed(row->metadata), parsed(R"({"a":1})"));
    EXPECT_EQ(parsed(row->interrupts), parsed(R"({"x":[]})"));
    EXPECT_EQ(row->head, 0);
}

TEST_P(WriteTest, ARunGoesThroughItsStates) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.new_runs = {make_run(thread), make_run(thread)};
    const auto run = write.new_runs[0].id;
    const auto both = write.new_runs;
    // A run that starts in the write that makes it.
    write.run_updates = {{both[1].id, RunStatus::running, 1, ""}};
    ASSERT_TRUE(engine->write(write));
    EXPECT_EQ(engine->run(thread, both[1].id)->status, RunStatus::running);
    EXPECT_EQ(engine->run(thread, run)->status, RunStatus::pending);

    auto update = make_write(claimed);
    update.run_updates = {{run, RunStatus::running, 1, ""}, {run, RunStatus::running, 2, ""}};
    ASSERT_TRUE(engine->write(update));
    auto end = make_write(claimed);
    end.run_updates = {{run, RunStatus::error, 2, R"({"error":"E","message":"m"})"},
                       {new_run_id(), RunStatus::success, 1, ""}};
    ASSERT_TRUE(engine->write(end));
    const auto found = engine->find_run(run);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->status, RunStatus::error);
    EXPECT_EQ(found->attempt, 2);
    EXPECT_EQ(found->error, R"({"error":"E","message":"m"})");
    EXPECT_EQ(found->thread_id, thread);
    EXPECT_EQ(found->kwargs, both[0].kwargs);
    EXPECT_GE(found->updated_at_us, found->created_at_us);

    auto removal = make_write(claimed);
    removal.deleted_runs = {run, new_run_id()};
    ASSERT_TRUE(engine->write(removal));
    EXPECT_EQ(code_of(engine->find_run(run)), ErrorCode::not_found);
    EXPECT_TRUE(engine->find_run(both[1].id));
}

TEST_P(WriteTest, ARollbackTakesRowsAndRunsBackAndTheirPlaceIsFreeAgain) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.journal = {make_row(0), make_row(1), make_row(2)};
    write.new_runs = {make_run(thread), make_run(thread)};
    ASSERT_TRUE(engine->write(write));

    auto back = make_write(claimed);
    back.rollback_to = 0;
    back.status = ThreadStatus::interrupted;
    back.deleted_runs = {write.new_runs[1].id};
    ASSERT_TRUE(engine->write(back));
    EXPECT_EQ(engine->thread(thread)->head, 0);
    EXPECT_EQ(engine->thread(thread)->status, ThreadStatus::interrupted);
    EXPECT_EQ(seqs(*engine->chain(thread)), std::vector<storage::Seq>{0});
    EXPECT_TRUE(engine->find_run(write.new_runs[0].id));
    EXPECT_EQ(code_of(engine->find_run(write.new_runs[1].id)), ErrorCode::not_found);

    auto again = make_write(claimed);
    again.journal = {make_row(1)};
    ASSERT_TRUE(engine->write(again)) << "the rows are gone, so their numbers are free";
    EXPECT_EQ((*engine->chain(thread))[1].checkpoint_id, again.journal[0].checkpoint_id);

    auto all = make_write(claimed);
    all.rollback_to = storage::kNoSeq;
    ASSERT_TRUE(engine->write(all));
    EXPECT_EQ(engine->thread(thread)->head, storage::kNoSeq);
    EXPECT_TRUE(engine->chain(thread)->empty());

    auto mixed = make_write(claimed);
    mixed.rollback_to = storage::kNoSeq;
    mixed.journal = {make_row(0)};
    EXPECT_EQ(code_of(engine->write(mixed)), ErrorCode::invalid_argument);
    auto stale = make_write(claimed);
    stale.rollback_to = storage::kNoSeq;
    stale.epoch -= 1;
    EXPECT_EQ(code_of(engine->write(stale)), ErrorCode::stale_epoch);
}

TEST_P(WriteTest, ARepeatedJournalRowIsAConflictAndNothingIsWritten) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto first = make_write(claimed);
    first.journal = {make_row(0)};
    ASSERT_TRUE(engine->write(first));
    auto again = make_write(claimed);
    again.status = ThreadStatus::error;
    again.journal = {make_row(1), make_row(0)};
    again.new_runs = {make_run(thread)};
    EXPECT_EQ(code_of(engine->write(again)), ErrorCode::conflict);
    EXPECT_EQ(engine->thread(thread)->status, ThreadStatus::idle);
    EXPECT_EQ(seqs(*engine->chain(thread)), std::vector<storage::Seq>{0});
    EXPECT_EQ((*engine->chain(thread))[0].checkpoint_id, first.journal[0].checkpoint_id);
    EXPECT_EQ(code_of(engine->find_run(again.new_runs[0].id)), ErrorCode::not_found);
}

TEST_P(WriteTest, ARunIdIsUniqueInTheWholeStore) {
    auto engine = open_engine();
    const auto first = engine->claim(new_thread_id());
    const auto second = engine->claim(new_thread_id());
    auto write = make_write(first);
    write.new_runs = {make_run(first.thread.id)};
    ASSERT_TRUE(engine->write(write));
    for (const auto& claimed : {first, second}) {
        auto again = make_write(claimed);
        again.new_runs = write.new_runs;
        again.new_runs[0].kwargs = R"({"other":1})";
        again.journal = {make_row(0)};
        EXPECT_EQ(code_of(engine->write(again)), ErrorCode::conflict);
        EXPECT_EQ(engine->thread(claimed.thread.id)->head, storage::kNoSeq);
    }
    EXPECT_EQ(engine->find_run(write.new_runs[0].id)->kwargs, write.new_runs[0].kwargs);
}

TEST_P(WriteTest, BadRowsOfABatchHarmNobodyElse) {
    auto engine = open_engine();
    constexpr int kThreads = 60;
    std::vector<ClaimOutcome> claimed;
    for (int i = 0; i < kThreads; ++i) {
        claimed.push_back(engine->claim(new_thread_id()));
    }
    auto taken = make_write(claimed[0]);
    taken.new_runs = {make_run(claimed[0].thread.id)};
    taken.journal = {make_row(0)};
    ASSERT_TRUE(engine->write(taken));

    // Pushed without waiting, so that many share a batch. Every seventh conflicts, every eleventh
    // is of an old epoch, every thirteenth of a thread that does not exist.
    std::vector<std::future<base::Status>> answers;
    for (int i = 1; i < kThreads; ++i) {
        auto write = make_write(claimed[static_cast<std::size_t>(i)]);
        write.journal = {make_row(0)};
        write.new_runs = {make_run(write.thread_id)};
        if (i % 7 == 0) {
            write.new_runs[0].id = taken.new_runs[0].id;
        }
        if (i % 11 == 0) {
            write.epoch -= 1;
        }
        if (i % 13 == 0) {
            write.key += 1'000'000'000;
        }
        auto promise = std::make_shared<std::promise<base::Status>>();
        answers.push_back(promise->get_future());
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
    }
    for (int i = 1; i < kThreads; ++i) {
        const auto status = answers[static_cast<std::size_t>(i - 1)].get();
        const auto& thread = claimed[static_cast<std::size_t>(i)].thread.id;
        const bool is_bad = i % 7 == 0 || i % 11 == 0 || i % 13 == 0;
        EXPECT_EQ(engine->chain(thread)->size(), is_bad ? 0U : 1U) << i;
        if (!is_bad) {
            EXPECT_TRUE(status) << i << ": " << status.error().message;
        } else if (i % 13 == 0) {
            EXPECT_EQ(code_of(status), ErrorCode::not_found) << i;
        } else if (i % 11 == 0) {
            EXPECT_EQ(code_of(status), ErrorCode::stale_epoch) << i;
        } else {
            EXPECT_EQ(code_of(status), ErrorCode::conflict) << i;
        }
    }
}

TEST_P(WriteTest, WritesOfOneThreadKeepTheirOrder) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto accept = make_write(claimed);
    accept.new_runs = {make_run(thread)};
    const auto run = accept.new_runs[0].id;
    constexpr int kWrites = 300;
    std::vector<std::future<base::Status>> answers;
    const auto push = [&](ThreadWrite write) {
        auto promise = std::make_shared<std::promise<base::Status>>();
        answers.push_back(promise->get_future());
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
    };
    push(accept);
    for (int i = 0; i < kWrites; ++i) {
        auto write = make_write(claimed);
        write.status = i % 2 == 0 ? ThreadStatus::busy : ThreadStatus::error;
        write.journal = {make_row(i, i - i % 64)};
        write.run_updates = {{run, RunStatus::running, i + 1, ""}};
        push(std::move(write));
    }
    auto end = make_write(claimed);
    end.run_updates = {{run, RunStatus::success, kWrites + 1, ""}};
    end.metadata = R"({"end":true})";
    push(std::move(end));
    for (auto& answer : answers) {
        ASSERT_TRUE(answer.get());
    }

    const auto row = engine->thread(thread);
    EXPECT_EQ(row->head, kWrites - 1);
    EXPECT_EQ(row->status, ThreadStatus::error);
    EXPECT_EQ(parsed(row->metadata), parsed(R"({"end":true})"));
    EXPECT_EQ(engine->find_run(run)->status, RunStatus::success);
    EXPECT_EQ(engine->find_run(run)->attempt, kWrites + 1);
    EXPECT_EQ(engine->journal(thread)->size(), static_cast<std::size_t>(kWrites));
}

TEST_P(WriteTest, AConflictInTheMiddleLeavesWhatCameBeforeAndAfter) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    std::vector<std::future<base::Status>> answers;
    for (const storage::Seq seq : {0, 1, 1, 2}) {
        auto write = make_write(claimed);
        write.journal = {make_row(seq)};
        auto promise = std::make_shared<std::promise<base::Status>>();
        answers.push_back(promise->get_future());
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
    }
    EXPECT_TRUE(answers[0].get());
    EXPECT_TRUE(answers[1].get());
    EXPECT_EQ(code_of(answers[2].get()), ErrorCode::conflict);
    EXPECT_TRUE(answers[3].get());
    EXPECT_EQ(seqs(*engine->chain(thread)), (std::vector<storage::Seq>{0, 1, 2}));
}

TEST_P(WriteTest, ReleaseClaimWriteAndDeleteInOneGoKeepTheirOrder) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    const auto push = [&](ThreadWrite write) {
        auto promise = std::make_shared<std::promise<base::Status>>();
        auto future = promise->get_future();
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
        return future;
    };
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    auto written = push(write);
    auto release = make_write(claimed);
    release.release = true;
    auto released = push(release);
    auto promise = std::make_shared<std::promise<base::Result<ClaimOutcome>>>();
    storage::ThreadClaim claim;
    claim.thread_id = thread;
    engine->store().claim(std::move(claim), [promise](base::Result<ClaimOutcome> outcome) {
        promise->set_value(std::move(outcome));
    });
    auto late = make_write(claimed);
    late.journal = {make_row(1)};
    auto refused = push(late);

    EXPECT_TRUE(written.get());
    EXPECT_TRUE(released.get());
    const auto outcome = promise->get_future().get();
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->kind, ClaimOutcome::Kind::claimed);
    EXPECT_EQ(outcome->thread.head, 0);
    EXPECT_EQ(code_of(refused.get()), ErrorCode::stale_epoch);

    late.epoch = outcome->epoch;
    auto last = push(late);
    late.delete_thread = true;
    auto deleted = push(late);
    late.delete_thread = false;
    auto gone = push(late);
    EXPECT_TRUE(last.get());
    EXPECT_TRUE(deleted.get());
    EXPECT_EQ(code_of(gone.get()), ErrorCode::not_found);
}

TEST_P(WriteTest, AClaimNeverOvertakesAWrite) {
    auto engine = open_engine();
    constexpr int kRounds = 40;
    const auto thread = new_thread_id();
    auto claimed = engine->claim(thread);
    for (storage::Seq seq = 0; seq < kRounds; ++seq) {
        // Work of other threads keeps the writers busy while the two wait.
        for (int i = 0; i < 20; ++i) {
            storage::ThreadClaim other;
            other.thread_id = new_thread_id();
            other.create_if_missing = true;
            engine->store().claim(std::move(other), [](base::Result<ClaimOutcome>) {});
        }
        auto write = make_write(claimed);
        write.journal = {make_row(seq)};
        write.release = seq % 2 == 0;
        auto promise = std::make_shared<std::promise<base::Status>>();
        auto written = promise->get_future();
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
        claimed = engine->claim(thread);
        EXPECT_TRUE(written.get()) << "round " << seq;
        EXPECT_EQ(claimed.thread.head, seq);
    }
}

TEST_P(WriteTest, ADeletedThreadLeavesNothing) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto other = engine->claim(new_thread_id());
    const auto claimed = engine->claim(thread);
    auto keep = make_write(other);
    keep.journal = {make_row(0)};
    keep.new_runs = {make_run(other.thread.id)};
    ASSERT_TRUE(engine->write(keep));
    auto write = make_write(claimed);
    write.journal = {make_row(0), make_row(1)};
    write.new_runs = {make_run(thread)};
    ASSERT_TRUE(engine->write(write));
    auto remove = make_write(claimed);
    remove.delete_thread = true;
    ASSERT_TRUE(engine->write(remove));

    EXPECT_EQ(code_of(engine->thread(thread)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->chain(thread)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->journal(thread)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->runs(thread)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->find_run(write.new_runs[0].id)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->write(make_write(claimed))), ErrorCode::not_found);
    EXPECT_EQ(engine->chain(other.thread.id)->size(), 1U);
    EXPECT_TRUE(engine->find_run(keep.new_runs[0].id));

    // The same id begins anew, with no row of the old one, and the run id is free again.
    const auto again = engine->claim(thread);
    EXPECT_EQ(again.kind, ClaimOutcome::Kind::created);
    EXPECT_TRUE(engine->chain(thread)->empty());
    auto anew = make_write(again);
    anew.journal = {make_row(0)};
    anew.new_runs = write.new_runs;
    EXPECT_TRUE(engine->write(anew));
}

TEST_P(WriteTest, WhatCannotBeStoredIsRefusedWithItsField) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    for (const std::string bad : {"[1]", "{", R"({"a":"\u0000"})", R"({"\u0000":1})", ""}) {
        auto write = make_write(claimed);
        write.metadata = bad;
        const auto status = engine->write(write);
        EXPECT_EQ(code_of(status), ErrorCode::invalid_argument) << bad;
        if (!status) {
            EXPECT_EQ(status.error().field, "metadata");
        }
        EXPECT_EQ(code_of(engine->try_claim(new_thread_id(), true, bad)),
                  ErrorCode::invalid_argument)
            << bad;
    }
    auto fine = make_write(claimed);
    fine.metadata = R"({"a":"\\u0000"})";
    EXPECT_TRUE(engine->write(fine));
    auto long_hash = make_write(claimed);
    long_hash.new_runs = {make_run(claimed.thread.id)};
    long_hash.new_runs[0].request_hash.assign(65, 'x');
    EXPECT_EQ(code_of(engine->write(long_hash)), ErrorCode::invalid_argument);
}

TEST_P(WriteTest, LargeRowsComeBackUnchanged) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    auto& data = write.journal[0].data;
    data.resize(3U << 20U);
    for (std::size_t i = 0; i < data.size(); ++i) {
        data[i] = static_cast<char>((i * 2654435761U) >> 13U);
    }
    write.new_runs = {make_run(thread)};
    write.new_runs[0].kwargs = R"({"text":")" + std::string(100'000, 'k') + "\"}";
    ASSERT_TRUE(engine->write(write));
    EXPECT_EQ((*engine->chain(thread))[0].data, data);
    EXPECT_EQ(engine->find_run(write.new_runs[0].id)->kwargs, write.new_runs[0].kwargs);
}

TEST_P(WriteTest, ADestroyedStoreAnswersEverything) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    constexpr int kWrites = 2000;
    std::atomic<int> answered{0};
    std::atomic<int> stored{0};
    for (int i = 0; i < kWrites; ++i) {
        auto write = make_write(claimed);
        write.journal = {make_row(i)};
        engine->store().write(std::move(write), [&](base::Status status) {
            if (status) {
                stored += 1;
            } else {
                EXPECT_EQ(status.error().code, ErrorCode::unavailable);
            }
            answered += 1;
        });
        engine->store().load_thread(claimed.thread.id,
                                    [&](base::Result<storage::ThreadRow>) { answered += 1; });
    }
    engine->close();
    EXPECT_EQ(answered.load(), kWrites * 2);
    auto reader = open_engine();
    const auto head = reader->thread(claimed.thread.id)->head;
    EXPECT_EQ(head, stored.load() - 1);
}

TEST_P(WriteTest, PastTheBoundWritesAreRefusedAndNotLost) {
    if (std::string{GetParam()} == "memory") {
        GTEST_SKIP() << "memory has no queue";
    }
    limits_.waiting_max = 8;
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    constexpr int kWrites = 4000;
    std::vector<std::future<base::Status>> answers;
    for (int i = 0; i < kWrites; ++i) {
        auto write = make_write(claimed);
        write.metadata = R"({"i":)" + std::to_string(i) + "}";
        auto promise = std::make_shared<std::promise<base::Status>>();
        answers.push_back(promise->get_future());
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
    }
    int refused = 0;
    for (auto& answer : answers) {
        const auto status = answer.get();
        if (!status) {
            EXPECT_EQ(status.error().code, ErrorCode::overloaded);
            refused += 1;
        }
    }
    EXPECT_GT(refused, 0);
    EXPECT_LT(refused, kWrites);
}

INSTANTIATE_TEST_SUITE_P(Drivers, WriteTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});

}  // namespace
}  // namespace heddle::conformance
