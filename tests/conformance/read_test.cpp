#include <algorithm>

#include "tests/conformance/fixture.hpp"

/// Chains, listings, searches.
namespace heddle::conformance {
namespace {

using storage::Seq;
using storage::ThreadFilter;

class ReadTest : public StoreTest {};

TEST_P(ReadTest, AChainBeginsWithItsSnapshot) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    EXPECT_TRUE(engine->chain(thread)->empty());
    auto write = make_write(claimed);
    for (Seq seq = 0; seq < 10; ++seq) {
        write.journal.push_back(make_row(seq, seq < 6 ? 0 : 6));
    }
    ASSERT_TRUE(engine->write(write));

    EXPECT_EQ(seqs(*engine->chain(thread)), (std::vector<Seq>{6, 7, 8, 9}));
    EXPECT_EQ(seqs(*engine->chain(thread, 9)), (std::vector<Seq>{6, 7, 8, 9}));
    EXPECT_EQ(seqs(*engine->chain(thread, 6)), (std::vector<Seq>{6}));
    EXPECT_EQ(seqs(*engine->chain(thread, 3)), (std::vector<Seq>{0, 1, 2, 3}));
    EXPECT_EQ((*engine->chain(thread, 3))[2].data, write.journal[2].data);
    EXPECT_EQ(seqs(*engine->chain_of(thread, write.journal[4].checkpoint_id)),
              (std::vector<Seq>{0, 1, 2, 3, 4}));
    EXPECT_EQ(code_of(engine->chain(thread, 10)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->chain_of(thread, base::CheckpointId{base::make_uuid_v6()})),
              ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->chain(new_thread_id())), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->chain_of(new_thread_id(), write.journal[4].checkpoint_id)),
              ErrorCode::not_found);
}

TEST_P(ReadTest, TheNewestChainIsReadInOnePiece) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    EXPECT_EQ(code_of(engine->newest(new_thread_id())), ErrorCode::not_found);
    EXPECT_EQ(*engine->newest(thread), std::nullopt);
    // Text, an empty row, and then what is no text at all.
    for (const auto& text :
         {std::string{"gr\xc3\xbc\xc3\x9f\n\\x00"}, std::string{}, std::string{"\0\xff", 2}}) {
        const auto head = engine->thread(thread)->head;
        auto write = make_write(claimed);
        for (Seq seq = head + 1; seq < head + 4; ++seq) {
            write.journal.push_back(make_row(seq, head < 2 ? 0 : 2));
            write.journal.back().data = text + (text.empty() ? "" : std::to_string(seq));
        }
        ASSERT_TRUE(engine->write(write));
        const auto chain = engine->chain(thread);
        const auto found = engine->newest(thread);
        ASSERT_TRUE(found) << found.error().message;
        ASSERT_TRUE(*found);
        const auto& rows = **found;
        const auto& last = chain->back();
        EXPECT_EQ(rows.newest.seq, last.seq);
        EXPECT_EQ(rows.newest.base, rows.first);
        EXPECT_EQ(rows.newest.head, last.head);
        EXPECT_EQ(rows.newest.checkpoint_id, last.checkpoint_id);
        EXPECT_EQ(rows.newest.run_id, last.run_id);
        EXPECT_EQ(rows.newest.step, last.step);
        EXPECT_TRUE(rows.newest.data.empty());
        EXPECT_EQ(rows.first, chain->front().seq);
        EXPECT_EQ(rows.parent, (*chain)[chain->size() - 2].checkpoint_id);
        ASSERT_EQ(rows.ends.size(), chain->size());
        std::size_t from = 0;
        for (std::size_t i = 0; i < chain->size(); ++i) {
            EXPECT_EQ(rows.data.substr(from, rows.ends[i] - from), (*chain)[i].data);
            from = rows.ends[i];
        }
    }
}

TEST_P(ReadTest, AForkIsALineOfItsOwn) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    for (Seq seq = 0; seq < 5; ++seq) {
        write.journal.push_back(make_row(seq));
    }
    ASSERT_TRUE(engine->write(write));
    auto fork = make_write(claimed);
    fork.journal = {make_row(5, 5), make_row(6, 5)};
    fork.journal[0].parent = 1;
    ASSERT_TRUE(engine->write(fork));

    EXPECT_EQ(engine->thread(thread)->head, 6);
    EXPECT_EQ(seqs(*engine->chain(thread)), (std::vector<Seq>{5, 6}));
    EXPECT_EQ((*engine->chain(thread))[0].parent, 1);
    EXPECT_EQ(seqs(*engine->chain(thread, 4)), (std::vector<Seq>{0, 1, 2, 3, 4}));
    EXPECT_EQ(seqs(*engine->journal(thread)), (std::vector<Seq>{6, 5, 4, 3, 2, 1, 0}));
}

TEST_P(ReadTest, TheJournalIsListedNewestFirstWithoutData) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    EXPECT_TRUE(engine->journal(thread)->empty());
    auto write = make_write(claimed);
    for (Seq seq = 0; seq < 8; ++seq) {
        write.journal.push_back(make_row(seq));
    }
    ASSERT_TRUE(engine->write(write));

    const auto rows = engine->journal(thread, storage::kNoSeq, 3);
    EXPECT_EQ(seqs(*rows), (std::vector<Seq>{7, 6, 5}));
    EXPECT_EQ((*rows)[0].head, write.journal[7].head);
    EXPECT_EQ((*rows)[0].checkpoint_id, write.journal[7].checkpoint_id);
    EXPECT_TRUE(std::all_of(rows->begin(), rows->end(),
                            [](const JournalRow& row) { return row.data.empty(); }));
    EXPECT_EQ(seqs(*engine->journal(thread, 5, 2)), (std::vector<Seq>{4, 3}));
    EXPECT_EQ(seqs(*engine->journal(thread, 1, 10)), (std::vector<Seq>{0}));
    EXPECT_TRUE(engine->journal(thread, 0, 10)->empty());
    EXPECT_EQ(code_of(engine->journal(new_thread_id())), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->journal(thread, 5, 0)), ErrorCode::invalid_argument);
    EXPECT_EQ(code_of(engine->journal(thread, 5, 1001)), ErrorCode::invalid_argument);
}

TEST_P(ReadTest, RunsAreListedNewestFirstByStatusAndPage) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    EXPECT_TRUE(engine->runs(thread)->empty());
    auto write = make_write(claimed);
    for (int i = 0; i < 7; ++i) {
        write.new_runs.push_back(make_run(thread, 1000 + i));
        if (i % 2 == 0) {
            write.new_runs.back().status = RunStatus::success;
        }
    }
    ASSERT_TRUE(engine->write(write));
    const auto ids = [](const base::Result<std::vector<RunRow>>& rows) {
        std::vector<base::RunId> found;
        for (const auto& row : *rows) {
            found.push_back(row.id);
        }
        return found;
    };
    const auto& runs = write.new_runs;
    storage::RunFilter filter;
    filter.limit = 3;
    EXPECT_EQ(ids(engine->runs(thread, filter)), (std::vector{runs[6].id, runs[5].id, runs[4].id}));
    filter.offset = 5;
    EXPECT_EQ(ids(engine->runs(thread, filter)), (std::vector{runs[1].id, runs[0].id}));
    filter.offset = 7;
    EXPECT_TRUE(engine->runs(thread, filter)->empty());
    filter.offset = 1;
    filter.status = RunStatus::success;
    EXPECT_EQ(ids(engine->runs(thread, filter)), (std::vector{runs[4].id, runs[2].id, runs[0].id}));
    filter.status = RunStatus::timeout;
    EXPECT_TRUE(engine->runs(thread, filter)->empty());
    filter.offset = -1;
    EXPECT_EQ(code_of(engine->runs(thread, filter)), ErrorCode::invalid_argument);
    EXPECT_EQ(code_of(engine->runs(new_thread_id())), ErrorCode::not_found);
    const auto other = engine->claim(new_thread_id());
    EXPECT_EQ(code_of(engine->run(other.thread.id, runs[0].id)), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->run(thread, new_run_id())), ErrorCode::not_found);
    EXPECT_EQ(code_of(engine->find_run(new_run_id())), ErrorCode::not_found);
}

class SearchTest : public StoreTest {
protected:
    void SetUp() override {
        StoreTest::SetUp();
        engine_ = open_engine();
        for (int i = 0; i < 6; ++i) {
            threads_.push_back(new_thread_id());
            const auto claimed = engine_->claim(
                threads_.back(), R"({"user":{"name":"u)" + std::to_string(i % 2) + R"(","n":)" +
                                     std::to_string(i) + R"(},"tags":["x","t)" + std::to_string(i) +
                                     "\"]}");
            auto write = make_write(claimed);
            write.status = i < 2 ? ThreadStatus::error : ThreadStatus::idle;
            if (!engine_->write(write)) {
                std::abort();
            }
        }
    }
    std::vector<int> found(const ThreadFilter& filter) {
        const auto rows = engine_->search(filter);
        std::vector<int> indexes;
        if (!rows) {
            ADD_FAILURE() << rows.error().message;
            return indexes;
        }
        for (const auto& row : *rows) {
            const auto at = std::find(threads_.begin(), threads_.end(), row.id);
            indexes.push_back(static_cast<int>(at - threads_.begin()));
        }
        return indexes;
    }

    std::unique_ptr<Engine> engine_;
    std::vector<base::ThreadId> threads_;
};

TEST_P(SearchTest, SortsAndPages) {
    ThreadFilter filter;
    EXPECT_EQ(found(filter), (std::vector{5, 4, 3, 2, 1, 0}));
    filter.limit = 2;
    filter.offset = 1;
    EXPECT_EQ(found(filter), (std::vector{4, 3}));
    filter.ascending = true;
    EXPECT_EQ(found(filter), (std::vector{1, 2}));
    filter.offset = 6;
    EXPECT_TRUE(found(filter).empty());
    filter = {};
    filter.ascending = true;
    filter.sort_by = ThreadFilter::SortBy::updated_at;
    EXPECT_EQ(found(filter), (std::vector{0, 1, 2, 3, 4, 5}));
    filter.sort_by = ThreadFilter::SortBy::thread_id;
    auto sorted = threads_;
    std::sort(sorted.begin(), sorted.end());
    const auto rows = engine_->search(filter);
    ASSERT_EQ(rows->size(), sorted.size());
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        EXPECT_EQ((*rows)[i].id, sorted[i]);
    }
    filter.sort_by = ThreadFilter::SortBy::status;
    filter.ascending = false;
    filter.limit = 2;
    auto errors = found(filter);
    std::sort(errors.begin(), errors.end());
    EXPECT_EQ(errors, (std::vector{0, 1}));
}

TEST_P(SearchTest, FiltersByIdStatusAndMetadata) {
    ThreadFilter filter;
    filter.ids = {threads_[3], new_thread_id(), threads_[1]};
    EXPECT_EQ(found(filter), (std::vector{3, 1}));
    EXPECT_EQ(*engine_->count(filter), 2);
    filter.status = ThreadStatus::error;
    EXPECT_EQ(found(filter), (std::vector{1}));
    filter = {};
    filter.status = ThreadStatus::error;
    EXPECT_EQ(found(filter), (std::vector{1, 0}));
    filter = {};
    filter.metadata_contains = R"({"user":{"name":"u1"}})";
    EXPECT_EQ(found(filter), (std::vector{5, 3, 1}));
    EXPECT_EQ(*engine_->count(filter), 3);
    filter.status = ThreadStatus::idle;
    filter.limit = 1;
    EXPECT_EQ(*engine_->count(filter), 2) << "a count has no page";
    filter.count_max = 1;
    EXPECT_EQ(*engine_->count(filter), 1) << "and goes so far";
    filter.count_max = 3;
    EXPECT_EQ(*engine_->count(filter), 2);
    filter = {};
    filter.metadata_contains = R"({"tags":["t4"]})";
    EXPECT_EQ(found(filter), (std::vector{4}));
    filter.metadata_contains = R"({"tags":["t4","absent"]})";
    EXPECT_TRUE(found(filter).empty());
    filter.metadata_contains = R"({"user":{"n":"4"}})";
    EXPECT_TRUE(found(filter).empty()) << "a number is not a text";
    filter.metadata_contains = "{}";
    EXPECT_EQ(found(filter).size(), 6U);
    // Text that would end a badly quoted statement.
    filter.metadata_contains = R"({"user":{"name":"u1'; DROP TABLE threads; --"}})";
    EXPECT_TRUE(found(filter).empty());
}

TEST_P(SearchTest, RefusesWhatIsOutOfBounds) {
    ThreadFilter filter;
    filter.limit = 0;
    EXPECT_EQ(code_of(engine_->search(filter)), ErrorCode::invalid_argument);
    filter.limit = 1001;
    EXPECT_EQ(code_of(engine_->search(filter)), ErrorCode::invalid_argument);
    filter = {};
    filter.metadata_contains = "[]";
    EXPECT_EQ(code_of(engine_->search(filter)), ErrorCode::invalid_argument);
    EXPECT_EQ(code_of(engine_->count(filter)), ErrorCode::invalid_argument);
    filter = {};
    filter.ids.assign(1001, threads_[0]);
    EXPECT_EQ(code_of(engine_->search(filter)), ErrorCode::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Drivers, ReadTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});
INSTANTIATE_TEST_SUITE_P(Drivers, SearchTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});

}  // namespace
}  // namespace heddle::conformance
