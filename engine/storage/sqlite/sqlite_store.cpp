#include "engine/storage/sqlite/sqlite_store.hpp"

#include <mutex>
#include <utility>

#include "engine/storage/checks.hpp"
#include "engine/storage/reader_pool.hpp"
#include "engine/storage/sqlite/connection.hpp"
#include "engine/storage/sqlite/queries.hpp"
#include "engine/storage/sqlite/schema.hpp"
#include "engine/storage/sqlite/turn.hpp"
#include "engine/storage/sqlite/writer.hpp"
#include "engine/storage/state_rows.hpp"

namespace heddle::storage {
namespace {

using sqlite::Connection;

constexpr std::size_t kReaders = 4;

class SqliteStore final : public Store {
public:
    struct Parts {
        std::string path;
        StoreLimits limits;
        observe::Metrics& metrics;
        const base::Clock& clock;
    };
    SqliteStore(const Parts& parts,
                std::unique_ptr<Connection> connection,
                std::unique_ptr<sqlite::Turn> turn)
        : limits_{parts.limits},
          clock_{parts.clock},
          readers_{kReaders, parts.limits,
                   [path = parts.path, wait_max = parts.limits.wait_max](base::Instant) {
                       return open_reader(path, wait_max);
                   }},
          writer_{std::move(connection), std::move(turn), parts.limits, parts.metrics,
                  parts.clock} {}

    [[nodiscard]] std::string_view name() const noexcept override { return "sqlite"; }

    void register_engine(EngineRow engine, Completion<Status> done) override {
        {
            const std::lock_guard lock{mutex_};
            engine_ = engine.id;
        }
        submit(sqlite::EngineOperation{sqlite::EngineOperation::Kind::register_engine,
                                       std::move(engine), std::move(done), base::ok()});
    }
    void heartbeat(bool draining, Completion<Status> done) override {
        submit(sqlite::EngineOperation{sqlite::EngineOperation::Kind::heartbeat,
                                       EngineRow{engine(), {}, draining}, std::move(done),
                                       base::ok()});
    }
    void unregister_engine(Completion<Status> done) override {
        submit(sqlite::EngineOperation{sqlite::EngineOperation::Kind::unregister,
                                       EngineRow{engine(), {}, false}, std::move(done),
                                       base::ok()});
    }
    void list_engines(Completion<Result<std::vector<EngineRow>>> done) override {
        read(std::move(done), [this](Connection& connection) {
            return Result{sqlite::list_engines(connection, clock_, limits_.lease)};
        });
    }

    void claim(ThreadClaim claim, Completion<Result<ClaimOutcome>> done) override {
        if (auto checked = check_claim(claim); !checked) {
            done(std::move(checked).error());
            return;
        }
        constexpr std::size_t kClaimBytes = 256;
        const std::size_t bytes = kClaimBytes + claim.metadata.size();
        writer_.submit({sqlite::ClaimOperation{engine(), std::move(claim), std::move(done)}, {}}, 1,
                       bytes);
    }
    void find_orphans(std::int32_t limit, Completion<Result<std::vector<ThreadId>>> done) override {
        read_page(limit, std::move(done), [this, limit](Connection& connection) {
            return Result{sqlite::find_orphans(connection, clock_, limits_.lease, limit)};
        });
    }
    void create(ThreadClaim claim, ThreadWrite first, Completion<Result<ThreadKey>> done) override {
        if (auto checked = check_create(claim, first); !checked) {
            done(std::move(checked).error());
            return;
        }
        const std::size_t rows = rows_of(first) + 1;
        const std::size_t bytes = bytes_of(first) + claim.metadata.size();
        writer_.submit({sqlite::CreateOperation{engine(), std::move(claim), std::move(first),
                                                std::move(done), ThreadKey{}},
                        {}},
                       rows, bytes);
    }
    void write(ThreadWrite write, Completion<Status> done) override {
        if (auto checked = check_write(write); !checked) {
            done(std::move(checked));
            return;
        }
        const std::size_t rows = rows_of(write);
        const std::size_t bytes = bytes_of(write);
        writer_.submit(
            {sqlite::WriteOperation{engine(), std::move(write), std::move(done), base::ok()}, {}},
            rows, bytes);
    }

    void find_expired(std::int32_t limit,
                      Completion<Result<std::vector<ExpiredThread>>> done) override {
        read_page(limit, std::move(done), [this, limit, id = engine()](Connection& connection) {
            return Result{sqlite::find_expired(connection, id, clock_, limits_.lease, limit)};
        });
    }
    void claim_key(KeyClaim claim, Completion<Result<KeyHolder>> done) override {
        if (auto checked = check_key(claim); !checked) {
            done(std::move(checked).error());
            return;
        }
        writer_.submit({sqlite::KeyOperation{std::move(claim), std::move(done)}, {}}, 1, 0);
    }
    void delete_expired_keys(std::int32_t limit, Completion<Result<std::int32_t>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        writer_.submit({sqlite::KeySweep{limit, std::move(done)}, {}}, 1, 0);
    }

    void load_thread(ThreadId thread, Completion<Result<ThreadRow>> done) override {
        read(std::move(done),
             [thread](Connection& connection) { return sqlite::load_thread(connection, thread); });
    }
    void load_chain(ThreadId thread,
                    Seq at,
                    Completion<Result<std::vector<JournalRow>>> done) override {
        read(std::move(done), [thread, at](Connection& connection) {
            return sqlite::load_chain(connection, thread, at);
        });
    }
    void load_newest(ThreadId thread, Completion<Result<std::optional<StateRows>>> done) override {
        read(std::move(done), [thread](Connection& connection) {
            return gather(sqlite::load_chain(connection, thread, kNoSeq));
        });
    }
    void load_chain_of(ThreadId thread,
                       CheckpointId checkpoint,
                       Completion<Result<std::vector<JournalRow>>> done) override {
        read(std::move(done), [thread, checkpoint](Connection& connection) {
            return sqlite::load_chain_of(connection, thread, checkpoint);
        });
    }
    void list_journal(ThreadId thread,
                      Seq before,
                      std::int32_t limit,
                      Completion<Result<std::vector<JournalRow>>> done) override {
        read_page(limit, std::move(done), [thread, before, limit](Connection& connection) {
            return sqlite::list_journal(connection, thread, before, limit);
        });
    }
    void load_tool_calls(ThreadId thread,
                         Seq seq,
                         Completion<Result<std::vector<ToolCallRow>>> done) override {
        read(std::move(done), [thread, seq](Connection& connection) {
            return Result{sqlite::load_tool_calls(connection, thread, seq)};
        });
    }
    void load_run(ThreadId thread, RunId run, Completion<Result<RunRow>> done) override {
        read(std::move(done), [thread, run](Connection& connection) {
            return sqlite::load_run(connection, thread, run);
        });
    }
    void find_run(RunId run, Completion<Result<RunRow>> done) override {
        read(std::move(done),
             [run](Connection& connection) { return sqlite::find_run(connection, run); });
    }
    void list_runs(ThreadId thread,
                   RunFilter filter,
                   Completion<Result<std::vector<RunRow>>> done) override {
        if (auto checked = check_page(filter.limit, filter.offset); !checked) {
            done(std::move(checked).error());
            return;
        }
        read(std::move(done), [thread, filter](Connection& connection) {
            return sqlite::list_runs(connection, thread, filter);
        });
    }
    void search_threads(ThreadFilter filter,
                        Completion<Result<std::vector<ThreadRow>>> done) override {
        if (auto checked = check_filter(filter); !checked) {
            done(std::move(checked).error());
            return;
        }
        read(std::move(done), [filter = std::move(filter)](Connection& connection) {
            return Result{sqlite::search_threads(connection, filter)};
        });
    }
    void count_threads(ThreadFilter filter, Completion<Result<std::int64_t>> done) override {
        if (auto checked = check_filter(filter); !checked) {
            done(std::move(checked).error());
            return;
        }
        read(std::move(done), [filter = std::move(filter)](Connection& connection) {
            return Result{sqlite::count_threads(connection, filter)};
        });
    }

private:
    static base::Result<std::unique_ptr<Connection>> open_reader(const std::string& path,
                                                                 base::Duration wait_max) try {
        return sqlite::open_reader(path, wait_max);
    } catch (const sqlite::SqliteError& error) {
        return sqlite::to_error("open", error);
    }

    [[nodiscard]] EngineId engine() const {
        const std::lock_guard lock{mutex_};
        return engine_;
    }
    void submit(sqlite::EngineOperation operation) {
        writer_.submit({std::move(operation), {}}, 1, 0);
    }
    template <class T, class Body>
    void read(Completion<Result<T>> done, Body body) {
        const auto deadline = base::system_clock().now() + limits_.wait_max;
        readers_.submit([done = std::move(done), body = std::move(body),
                         deadline](base::Result<Connection*> connection) mutable {
            if (!connection) {
                done(std::move(connection).error());
                return true;
            }
            done(run_read<T>(**connection, deadline, body));
            return true;
        });
    }
    template <class T, class Body>
    static Result<T> run_read(Connection& connection, base::Instant deadline, Body& body) try {
        connection.set_deadline(deadline);
        return body(connection);
    } catch (const sqlite::SqliteError& error) {
        return sqlite::to_error("read", error);
    }
    template <class T, class Body>
    void read_page(std::int32_t limit, Completion<Result<T>> done, Body body) {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        read(std::move(done), std::move(body));
    }

    const StoreLimits limits_;
    const base::Clock& clock_;
    mutable std::mutex mutex_;
    EngineId engine_;  // guarded by mutex_
    ReaderPool<Connection> readers_;
    sqlite::Writer writer_;
};

std::string path_of(std::string_view url) {
    for (const std::string_view prefix : {"sqlite:", "//"}) {
        if (url.starts_with(prefix)) {
            url.remove_prefix(prefix.size());
        }
    }
    return std::string{url};
}

}  // namespace

base::Result<std::unique_ptr<Store>> open_sqlite_store(std::string_view url,
                                                       const StoreLimits& limits,
                                                       observe::Metrics& metrics,
                                                       const base::Clock& clock) try {
    const SqliteStore::Parts parts{path_of(url), limits, metrics, clock};
    auto turn = sqlite::Turn::open(parts.path + "-turn");
    if (!turn) {
        return std::move(turn).error();
    }
    // Engines that start together create the schema one after another.
    if (!(*turn)->lock(base::system_clock().now() + limits.wait_max)) {
        return base::Error{base::ErrorCode::timeout, "another process holds the database"};
    }
    std::unique_ptr<Connection> connection;
    try {
        connection = sqlite::open_writer(parts.path, limits.wait_max);
    } catch (const sqlite::SqliteError&) {
        (*turn)->unlock();
        throw;
    }
    (*turn)->unlock();
    std::unique_ptr<Store> store =
        std::make_unique<SqliteStore>(parts, std::move(connection), std::move(turn).value());
    return store;
} catch (const sqlite::SqliteError& error) {
    return sqlite::to_error("open", error);
}

}  // namespace heddle::storage
