#include "engine/storage/memory/memory_store.hpp"

#include <mutex>
#include <utility>

#include "engine/storage/checks.hpp"
#include "engine/storage/memory/memory_database.hpp"
#include "engine/storage/state_rows.hpp"

namespace heddle::storage {
namespace {

class MemoryStore final : public Store {
public:
    MemoryStore(std::unique_ptr<MemoryDatabase> own,
                MemoryDatabase& shared,
                const StoreLimits& limits,
                observe::Metrics& metrics)
        : own_{std::move(own)}, database_{shared.database()}, limits_{limits}, metrics_{metrics} {}

    [[nodiscard]] std::string_view name() const noexcept override { return "memory"; }

    void register_engine(EngineRow engine, Completion<Status> done) override {
        database_.register_engine(engine);
        {
            const std::lock_guard lock{mutex_};
            engine_ = engine.id;
        }
        done(base::ok());
    }
    void heartbeat(bool draining, Completion<Status> done) override {
        done(database_.heartbeat(engine(), draining, limits_.lease));
    }
    void unregister_engine(Completion<Status> done) override {
        database_.unregister_engine(engine());
        done(base::ok());
    }
    void list_engines(Completion<Result<std::vector<EngineRow>>> done) override {
        done(database_.list_engines(limits_.lease));
    }

    void claim(ThreadClaim claim, Completion<Result<ClaimOutcome>> done) override {
        if (auto checked = check_claim(claim); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.claim(engine(), claim, limits_.lease));
    }
    void find_orphans(std::int32_t limit, Completion<Result<std::vector<ThreadId>>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.find_orphans(limit, limits_.lease));
    }
    void create(ThreadClaim claim, ThreadWrite first, Completion<Result<ThreadKey>> done) override {
        if (auto checked = check_create(claim, first); !checked) {
            done(std::move(checked).error());
            return;
        }
        const auto rows = rows_of(first);
        auto created = database_.create(engine(), claim, std::move(first));
        if (created) {
            count(rows);
        }
        done(std::move(created));
    }
    void write(ThreadWrite write, Completion<Status> done) override {
        auto written = check_write(write);
        if (written) {
            written = database_.write(engine(), write);
        }
        if (written) {
            count(rows_of(write));
        } else if (written.error().code == base::ErrorCode::stale_epoch) {
            metrics_.stale_writes_total += 1;
        }
        done(std::move(written));
    }

    void find_expired(std::int32_t limit,
                      Completion<Result<std::vector<ExpiredThread>>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.find_expired(engine(), limit, limits_.lease));
    }
    void claim_key(KeyClaim claim, Completion<Result<KeyHolder>> done) override {
        if (auto checked = check_key(claim); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.claim_key(claim));
    }
    void delete_expired_keys(std::int32_t limit, Completion<Result<std::int32_t>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.delete_expired_keys(limit));
    }

    void load_thread(ThreadId thread, Completion<Result<ThreadRow>> done) override {
        done(database_.load_thread(thread));
    }
    void load_chain(ThreadId thread,
                    Seq at,
                    Completion<Result<std::vector<JournalRow>>> done) override {
        done(database_.load_chain(thread, at));
    }
    void load_newest(ThreadId thread, Completion<Result<std::optional<StateRows>>> done) override {
        done(gather(database_.load_chain(thread, kNoSeq)));
    }
    void load_chain_of(ThreadId thread,
                       CheckpointId checkpoint,
                       Completion<Result<std::vector<JournalRow>>> done) override {
        done(database_.load_chain_of(thread, checkpoint));
    }
    void list_journal(ThreadId thread,
                      Seq before,
                      std::int32_t limit,
                      Completion<Result<std::vector<JournalRow>>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.list_journal(thread, before, limit));
    }
    void load_tool_calls(ThreadId thread,
                         Seq seq,
                         Completion<Result<std::vector<ToolCallRow>>> done) override {
        done(database_.load_tool_calls(thread, seq));
    }
    void load_run(ThreadId thread, RunId run, Completion<Result<RunRow>> done) override {
        done(database_.load_run(thread, run));
    }
    void find_run(RunId run, Completion<Result<RunRow>> done) override {
        done(database_.find_run(run));
    }
    void list_runs(ThreadId thread,
                   RunFilter filter,
                   Completion<Result<std::vector<RunRow>>> done) override {
        if (auto checked = check_page(filter.limit, filter.offset); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.list_runs(thread, filter));
    }
    void search_threads(ThreadFilter filter,
                        Completion<Result<std::vector<ThreadRow>>> done) override {
        if (auto checked = check_filter(filter); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.search_threads(filter));
    }
    void count_threads(ThreadFilter filter, Completion<Result<std::int64_t>> done) override {
        if (auto checked = check_filter(filter); !checked) {
            done(std::move(checked).error());
            return;
        }
        done(database_.count_threads(filter));
    }

private:
    void count(std::size_t rows) {
        metrics_.store_batches_total += 1;
        metrics_.store_rows_total += static_cast<std::int64_t>(rows);
    }
    [[nodiscard]] EngineId engine() const {
        const std::lock_guard lock{mutex_};
        return engine_;
    }

    std::unique_ptr<MemoryDatabase> own_;  // null if the database is shared
    memory::Database& database_;
    const StoreLimits limits_;
    observe::Metrics& metrics_;
    mutable std::mutex mutex_;
    EngineId engine_;  // guarded by mutex_
};

}  // namespace

MemoryDatabase::MemoryDatabase(const base::Clock& clock)
    : database_{std::make_unique<memory::Database>(clock)} {}
MemoryDatabase::~MemoryDatabase() = default;

std::unique_ptr<Store> make_memory_store(const StoreLimits& limits, observe::Metrics& metrics) {
    auto own = std::make_unique<MemoryDatabase>();
    auto& shared = *own;
    return std::make_unique<MemoryStore>(std::move(own), shared, limits, metrics);
}

std::unique_ptr<Store> make_memory_store(MemoryDatabase& database,
                                         const StoreLimits& limits,
                                         observe::Metrics& metrics) {
    return std::make_unique<MemoryStore>(nullptr, database, limits, metrics);
}

}  // namespace heddle::storage
