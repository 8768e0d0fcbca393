#include <random>
#include <thread>

#include "tests/conformance/fixture.hpp"

/// Many producers at once: nothing is lost, doubled or mixed up.
namespace heddle::conformance {
namespace {

class HammerTest : public StoreTest {};

constexpr int kProducers = 64;
constexpr int kRounds = 40;

struct Written {
    base::ThreadId thread;
    storage::Seq head = storage::kNoSeq;
    std::vector<base::RunId> runs;
    std::vector<JournalRow> rows;
};

// One producer: a thread of its own, writes of random shape, sometimes a stale one, sometimes a
// claim in between. What it was told is what must be there.
void produce(Engine& engine, std::uint64_t seed, Written& written) {
    std::mt19937_64 random{seed};
    written.thread = new_thread_id();
    auto claimed = engine.claim(written.thread);
    for (int round = 0; round < kRounds; ++round) {
        auto write = make_write(claimed);
        const auto rows = random() % 3;
        for (std::uint64_t i = 0; i < rows; ++i) {
            auto row = make_row(written.head + 1 + static_cast<storage::Seq>(i));
            row.data.assign(random() % 2000, static_cast<char>('a' + random() % 26));
            write.journal.push_back(std::move(row));
        }
        if (random() % 4 == 0) {
            write.new_runs.push_back(make_run(written.thread));
        }
        if (!written.runs.empty()) {
            write.run_updates.push_back(
                {written.runs[random() % written.runs.size()], RunStatus::success, round, ""});
        }
        const bool is_stale = random() % 8 == 0;
        if (is_stale) {
            write.epoch -= 1;
        }
        const auto status = engine.write(write);
        if (is_stale) {
            EXPECT_EQ(code_of(status), ErrorCode::stale_epoch);
            continue;
        }
        ASSERT_TRUE(status) << status.error().message;
        for (auto& row : write.journal) {
            written.head = row.seq;
            written.rows.push_back(std::move(row));
        }
        for (const auto& run : write.new_runs) {
            written.runs.push_back(run.id);
        }
        if (random() % 10 == 0) {
            claimed = engine.claim(written.thread);
        }
    }
}

TEST_P(HammerTest, SixtyFourProducersOnTwoEngines) {
    const std::uint64_t seed = std::random_device{}();
    RecordProperty("seed", std::to_string(seed));
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::vector<std::unique_ptr<Engine>> engines;
    engines.push_back(open_engine());
    engines.push_back(open_engine());
    engines.back()->use_loop();
    std::vector<Written> written(kProducers);
    std::vector<std::thread> producers;
    for (std::size_t i = 0; i < kProducers; ++i) {
        producers.emplace_back([&, i] { produce(*engines[i % 2], seed + i, written[i]); });
    }
    for (auto& producer : producers) {
        producer.join();
    }

    for (const auto& one : written) {
        const auto row = engines[0]->thread(one.thread);
        ASSERT_TRUE(row);
        EXPECT_EQ(row->head, one.head);
        const auto chain = engines[0]->chain(one.thread);
        ASSERT_TRUE(chain);
        ASSERT_EQ(chain->size(), one.rows.size());
        for (std::size_t i = 0; i < one.rows.size(); ++i) {
            EXPECT_EQ((*chain)[i].seq, static_cast<storage::Seq>(i));
            EXPECT_EQ((*chain)[i].checkpoint_id, one.rows[i].checkpoint_id);
            EXPECT_EQ((*chain)[i].data, one.rows[i].data);
        }
        storage::RunFilter filter;
        filter.limit = 1000;
        EXPECT_EQ(engines[0]->runs(one.thread, filter)->size(), one.runs.size());
    }
    const auto& metrics = backend_->metrics;
    EXPECT_GT(metrics.store_rows_total.load(), 0);
    EXPECT_GT(metrics.store_batches_total.load(), 0);
}

INSTANTIATE_TEST_SUITE_P(Drivers, HammerTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});

}  // namespace
}  // namespace heddle::conformance
