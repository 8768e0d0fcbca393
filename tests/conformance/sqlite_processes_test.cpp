#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include <signal.h>

#include "engine/storage/sqlite/sqlite_store.hpp"
#include "tests/conformance/fixture.hpp"
#include "tests/conformance/other_process.hpp"

/// Several processes on one SQLite file: they take turns, and none can hold up the others for ever.
namespace heddle::conformance {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class SqliteProcesses : public testing::Test {
protected:
    [[nodiscard]] std::string path() const { return folder_.path() + "/store.db"; }
    std::unique_ptr<Engine> open_engine() {
        auto store = storage::open_sqlite_store(path(), limits_, metrics_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            std::abort();
        }
        return std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
    }
    // Writes rows until `until` says so. @return how many were stored
    storage::Seq write_rows(Engine& engine, const std::function<bool(storage::Seq)>& until) {
        const auto claimed = engine.claim(new_thread_id());
        storage::Seq seq = 0;
        while (!until(seq)) {
            auto write = make_write(claimed);
            write.journal = {make_row(seq, seq - seq % 64)};
            const auto status = engine.write(std::move(write));
            if (!status) {
                ADD_FAILURE() << status.error().message;
                break;
            }
            ++seq;
        }
        EXPECT_EQ(engine.thread(claimed.thread.id)->head, seq - 1);
        return seq;
    }

    TemporaryFolder folder_;
    observe::Metrics metrics_;
    storage::StoreLimits limits_;
};

TEST_F(SqliteProcesses, AKilledHolderOfTheWriteLockHoldsUpNobody) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    OtherProcess other{"hold", path()};
    ASSERT_TRUE(other.wait_until_ready());
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    const auto promise = std::make_shared<std::promise<base::Status>>();
    auto answer = promise->get_future();
    engine->store().write(std::move(write), [promise](base::Status status) {
        promise->set_value(std::move(status));
    });
    EXPECT_EQ(answer.wait_for(milliseconds{100}), std::future_status::timeout);
    const auto killed_at = steady_clock::now();
    other.kill_and_wait();
    ASSERT_EQ(answer.wait_for(std::chrono::seconds{30}), std::future_status::ready);
    EXPECT_TRUE(answer.get());
    EXPECT_LT(steady_clock::now() - killed_at, std::chrono::seconds{10});
    EXPECT_EQ(engine->thread(claimed.thread.id)->head, 0) << "the dead one's change is undone";
}

TEST_F(SqliteProcesses, AStoppedHolderMakesOthersTimeOutAndGoOnAfterwards) {
    auto patient = open_engine();
    const auto claimed = patient->claim(new_thread_id());
    patient.reset();
    limits_.wait_max = std::chrono::seconds{3};
    auto engine = open_engine();
    const auto mine = engine->claim(new_thread_id());
    OtherProcess other{"hold", path()};
    ASSERT_TRUE(other.wait_until_ready());
    other.send(SIGSTOP);
    auto write = make_write(mine);
    write.journal = {make_row(0)};
    const auto begun = steady_clock::now();
    EXPECT_EQ(code_of(engine->write(write)), ErrorCode::timeout);
    EXPECT_LT(steady_clock::now() - begun, std::chrono::seconds{30});
    EXPECT_TRUE(engine->thread(mine.thread.id)) << "readers never wait for a writer";
    other.kill_and_wait();
    EXPECT_TRUE(engine->write(write)) << "a write that timed out was not done";
}

TEST_F(SqliteProcesses, WritersOfSeveralProcessesTakeTurns) {
    auto engine = open_engine();
    OtherProcess first{"write", path()};
    OtherProcess second{"write", path()};
    ASSERT_TRUE(first.wait_until_ready());
    ASSERT_TRUE(second.wait_until_ready());
    // The slowest may be the machine's; of twenty rows a second one is not.
    auto slowest = steady_clock::duration::zero();
    auto next_slowest = steady_clock::duration::zero();
    auto before = steady_clock::now();
    constexpr storage::Seq kRowsMin = 20;
    const auto end = before + std::chrono::seconds{2};
    const auto last_end = before + std::chrono::seconds{30};
    const auto written = write_rows(*engine, [&](storage::Seq seq) {
        const auto now = steady_clock::now();
        next_slowest = std::max(next_slowest, std::min(slowest, now - before));
        slowest = std::max(slowest, now - before);
        before = now;
        return now >= last_end || (now >= end && seq > kRowsMin);
    });
    const auto slowest_ms = std::chrono::duration_cast<milliseconds>(slowest).count();
    RecordProperty("rows", std::to_string(written));
    RecordProperty("slowest_ms", std::to_string(slowest_ms));
    EXPECT_LT(next_slowest, std::chrono::seconds{1}) << "starved";
    EXPECT_GT(written, kRowsMin);
}

TEST_F(SqliteProcesses, KilledAndStoppedWritersNeverStopTheOthers) {
    const std::uint64_t seed = std::random_device{}();
    RecordProperty("seed", std::to_string(seed));
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random{seed};
    auto engine = open_engine();
    std::atomic<bool> is_over{false};
    std::atomic<storage::Seq> rows{0};
    std::thread writer{[&] {
        write_rows(*engine, [&](storage::Seq seq) {
            rows = seq;
            return is_over.load();
        });
    }};
    const auto wait_for_progress = [&] {
        const auto from = rows.load();
        const auto deadline = steady_clock::now() + std::chrono::seconds{30};
        while (rows.load() < from + 5 && steady_clock::now() < deadline) {
            std::this_thread::yield();
        }
        return rows.load() >= from + 5;
    };
    for (int round = 0; round < 6; ++round) {
        OtherProcess first{"write", path()};
        OtherProcess second{"write", path()};
        EXPECT_TRUE(first.wait_until_ready());
        EXPECT_TRUE(second.wait_until_ready());
        for (auto spin = random() % 20'000; spin > 0; --spin) {
            std::this_thread::yield();
        }
        first.kill_and_wait();
        EXPECT_TRUE(wait_for_progress()) << "after a kill";
    }
    is_over = true;
    writer.join();
}

}  // namespace
}  // namespace heddle::conformance
