// Durable rows per second of one storage driver: producers that each wait for their write before
// the next one, 512-byte deltas. `heddle-storage-bench URL [producers] [seconds] [rows_per_thread]`
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/storage/postgres/postgres_store.hpp"
#include "engine/storage/sqlite/sqlite_store.hpp"

namespace {

using namespace heddle;  // NOLINT: one file, one main
using std::chrono::steady_clock;

base::Result<std::unique_ptr<storage::Store>> open(const std::string& url,
                                                   observe::Metrics& metrics) {
    const storage::StoreLimits limits;
    if (url.starts_with("sqlite:")) {
        return storage::open_sqlite_store(url, limits, metrics);
    }
    return storage::open_postgres_store(url, limits, metrics);
}

// One producer: writes the next row of its thread whenever the last one is durable; the next write
// starts in the completion of the one before, as in the engine.
class Producer {
public:
    Producer(storage::Store& store, std::atomic<bool>& is_over, storage::Seq rows_per_thread)
        : store_{store}, is_over_{is_over}, rows_per_thread_{rows_per_thread} {}

    void claim() {
        storage::ThreadClaim claim;
        claim.thread_id = base::ThreadId{base::make_uuid_v7()};
        claim.create_if_missing = true;
        claim.durable = false;
        store_.claim(std::move(claim), [this](base::Result<storage::ClaimOutcome> outcome) {
            if (!outcome) {
                fail(outcome.error());
                return;
            }
            claimed_ = std::move(outcome).value();
            seq_ = 0;
            write();
        });
    }
    void write() {
        storage::ThreadWrite write;
        write.key = claimed_.thread.key;
        write.thread_id = claimed_.thread.id;
        write.epoch = claimed_.epoch;
        storage::JournalRow row;
        row.seq = seq_;
        row.parent = seq_ - 1;
        row.base = seq_ - seq_ % 64;
        row.checkpoint_id = base::CheckpointId{base::make_uuid_v6()};
        row.run_id = run_;
        row.step = static_cast<std::int32_t>(seq_);
        row.head = R"({"source":"loop","step":1,"next":["assistant"]})";
        row.data.assign(512, 'x');
        row.created_at_us = base::unix_microseconds();
        write.journal.push_back(std::move(row));
        begun_ = steady_clock::now();
        store_.write(std::move(write), [this](base::Status status) { written(status); });
    }

    std::vector<float> latencies_ms;
    std::atomic<bool> is_done{false};

private:
    void written(const base::Status& status) {
        if (!status) {
            fail(status.error());
            return;
        }
        latencies_ms.push_back(
            std::chrono::duration<float, std::milli>(steady_clock::now() - begun_).count());
        if (is_over_) {
            is_done = true;
        } else if (++seq_ == rows_per_thread_) {
            claim();
        } else {
            write();
        }
    }
    void fail(const base::Error& error) {
        std::fprintf(stderr, "%s\n", error.message.c_str());
        is_done = true;
    }

    storage::Store& store_;
    std::atomic<bool>& is_over_;
    const storage::Seq rows_per_thread_;
    storage::ClaimOutcome claimed_;
    storage::Seq seq_ = 0;
    const base::RunId run_{base::make_uuid_v7()};
    steady_clock::time_point begun_;
};

int run(const std::string& url, std::size_t count, int seconds, storage::Seq rows_per_thread) {
    observe::Metrics metrics;
    auto opened = open(url, metrics);
    if (!opened) {
        std::fprintf(stderr, "%s\n", opened.error().message.c_str());
        return 1;
    }
    auto& store = **opened;
    std::atomic<bool> is_registered{false};
    store.register_engine({base::EngineId{base::make_uuid_v7()}, "ipc:///bench", false},
                          [&](base::Status) { is_registered = true; });
    while (!is_registered) {
        std::this_thread::yield();
    }

    std::atomic<bool> is_over{false};
    std::vector<std::unique_ptr<Producer>> producers;
    for (std::size_t i = 0; i < count; ++i) {
        producers.push_back(std::make_unique<Producer>(store, is_over, rows_per_thread));
    }
    const auto begun = steady_clock::now();
    for (auto& producer : producers) {
        producer->claim();
    }
    std::this_thread::sleep_until(begun + std::chrono::seconds{seconds});
    is_over = true;
    for (auto& producer : producers) {
        while (!producer->is_done) {
            std::this_thread::yield();
        }
    }
    const auto took = std::chrono::duration<double>(steady_clock::now() - begun).count();

    std::vector<float> all;
    for (const auto& producer : producers) {
        all.insert(all.end(), producer->latencies_ms.begin(), producer->latencies_ms.end());
    }
    std::sort(all.begin(), all.end());
    if (all.empty()) {
        return 1;
    }
    const auto batches = static_cast<double>(metrics.store_batches_total.load());
    std::printf(
        "%-8s %4zu producers: %8.0f rows/s, p50 %.2f ms, p99 %.2f ms, max %.1f ms, "
        "%.1f rows per batch\n",
        std::string{store.name()}.c_str(), count, static_cast<double>(all.size()) / took,
        static_cast<double>(all[all.size() / 2]), static_cast<double>(all[all.size() * 99 / 100]),
        static_cast<double>(all.back()), static_cast<double>(all.size()) / std::max(1.0, batches));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: heddle-storage-bench URL [producers] [seconds] [rows]\n");
        return 2;
    }
    const auto number = [&](int at, long otherwise) {
        return argc > at ? std::strtol(argv[at], nullptr, 10) : otherwise;
    };
    return run(argv[1], static_cast<std::size_t>(number(2, 64)), static_cast<int>(number(3, 5)),
               number(4, 256));
}
