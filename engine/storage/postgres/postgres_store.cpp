#include "engine/storage/postgres/postgres_store.hpp"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "engine/storage/checks.hpp"
#include "engine/storage/postgres/engines.hpp"
#include "engine/storage/postgres/migrations.hpp"
#include "engine/storage/postgres/pending_writes.hpp"
#include "engine/storage/postgres/queries.hpp"
#include "engine/storage/postgres/server_settings.hpp"
#include "engine/storage/postgres/writer.hpp"
#include "engine/storage/reader_pool.hpp"

namespace heddle::storage {
namespace {

using postgres::Answer;
using postgres::Connection;

constexpr std::size_t kReaders = 4;
constexpr std::size_t kWriters = 1;

// Half a lease: an engine that waits for the rows of a dead one has them soon after they are free
// to take, and no batch that still moves takes that long.
base::Duration lock_wait_max(const StoreLimits& limits) {
    return std::clamp<base::Duration>(limits.lease / 2, std::chrono::milliseconds{250},
                                      std::chrono::seconds{5});
}

// A heartbeat that takes longer than a lease is of no use, and the next one must not wait for it.
StoreLimits control_limits(StoreLimits limits) {
    limits.wait_max =
        std::min(limits.wait_max, std::max<base::Duration>(limits.lease, std::chrono::seconds{1}));
    return limits;
}

ReaderPool<Connection>::Open reader_of(const postgres::Endpoint& endpoint) {
    return [endpoint](base::Instant deadline) {
        return Connection::connect_until(endpoint, postgres::Role::reader, deadline);
    };
}

class PostgresStore final : public Store {
public:
    PostgresStore(std::unique_ptr<postgres::Patience> patience,
                  const postgres::Endpoint& endpoint,
                  const StoreLimits& limits,
                  observe::Metrics& metrics)
        : limits_{limits},
          patience_{std::move(patience)},
          readers_{kReaders, limits, reader_of(endpoint)},
          control_{1, control_limits(limits), reader_of(endpoint)},
          claimer_{endpoint, limits, metrics, numbers_} {
        for (std::size_t i = 0; i < kWriters; ++i) {
            writers_.push_back(
                std::make_unique<postgres::Writer>(endpoint, limits, metrics, numbers_));
        }
    }
    ~PostgresStore() override { patience_->end(); }
    PostgresStore(const PostgresStore&) = delete;
    PostgresStore& operator=(const PostgresStore&) = delete;

    [[nodiscard]] std::string_view name() const noexcept override { return "postgres"; }

    void register_engine(EngineRow engine, Completion<Status> done) override {
        {
            const std::lock_guard lock{mutex_};
            engine_ = engine.id;
        }
        run(control_, without_value(std::move(done)),
            [engine = std::move(engine)](Connection& connection, base::Instant deadline) {
                return postgres::register_engine(connection, engine, deadline);
            });
    }
    void heartbeat(bool draining, Completion<Status> done) override {
        run(control_, without_value(std::move(done)),
            [row = EngineRow{engine(), {}, draining}, lease = limits_.lease](
                Connection& connection, base::Instant deadline) {
                return postgres::heartbeat(connection, row, lease, deadline);
            });
    }
    void unregister_engine(Completion<Status> done) override {
        run(control_, without_value(std::move(done)),
            [id = engine()](Connection& connection, base::Instant deadline) {
                return postgres::unregister_engine(connection, id, deadline);
            });
    }
    void list_engines(Completion<Result<std::vector<EngineRow>>> done) override {
        run(control_, std::move(done),
            [lease = limits_.lease](Connection& connection, base::Instant deadline) {
                return postgres::list_engines(connection, lease, deadline);
            });
    }

    void claim(ThreadClaim claim, Completion<Result<ClaimOutcome>> done) override {
        if (auto checked = check_claim(claim); !checked) {
            done(std::move(checked).error());
            return;
        }
        constexpr std::size_t kClaimBytes = 256;
        const std::size_t bytes = kClaimBytes + claim.metadata.size();
        postgres::ClaimOperation operation;
        operation.engine = engine();
        operation.claim = std::move(claim);
        operation.done = std::move(done);
        // What was written, released or deleted before must have happened before.
        const auto& thread = operation.claim.thread_id;
        auto& writer = pending_.contains(thread) ? writer_of(thread) : claimer_;
        writer.submit({std::move(operation), {}}, 1, bytes);
    }
    void find_orphans(std::int32_t limit, Completion<Result<std::vector<ThreadId>>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [limit, id = engine(), lease = limits_.lease](Connection& connection,
                                                          base::Instant deadline) {
                return postgres::find_orphans(connection, id, lease, limit, deadline);
            });
    }
    void create(ThreadClaim claim, ThreadWrite first, Completion<Result<ThreadKey>> done) override {
        if (auto checked = check_create(claim, first); !checked) {
            done(std::move(checked).error());
            return;
        }
        first.thread_id = claim.thread_id;
        first.key = 0;
        first.epoch = 1;
        submit({engine(), std::move(first), std::move(done), base::ok(), std::move(claim)});
    }
    void write(ThreadWrite write, Completion<Status> done) override {
        if (auto checked = check_write(write); !checked) {
            done(std::move(checked));
            return;
        }
        auto told = [done = std::move(done)](Result<ThreadKey> written) mutable {
            done(written ? base::ok() : Status{std::move(written).error()});
        };
        submit({engine(), std::move(write), std::move(told), base::ok()});
    }

    void find_expired(std::int32_t limit,
                      Completion<Result<std::vector<ExpiredThread>>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [limit, id = engine(), lease = limits_.lease](Connection& connection,
                                                          base::Instant deadline) {
                return postgres::find_expired(connection, id, lease, limit, deadline);
            });
    }
    void claim_key(KeyClaim claim, Completion<Result<KeyHolder>> done) override {
        if (auto checked = check_key(claim); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [claim = std::move(claim)](Connection& connection, base::Instant deadline) {
                return postgres::claim_key(connection, claim, deadline);
            });
    }
    void delete_expired_keys(std::int32_t limit, Completion<Result<std::int32_t>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done), [limit](Connection& connection, base::Instant deadline) {
            return postgres::delete_expired_keys(connection, limit, deadline);
        });
    }

    void load_thread(ThreadId thread, Completion<Result<ThreadRow>> done) override {
        run(readers_, std::move(done), [thread](Connection& connection, base::Instant deadline) {
            return postgres::load_thread(connection, thread, deadline);
        });
    }
    void load_chain(ThreadId thread,
                    Seq at,
                    Completion<Result<std::vector<JournalRow>>> done) override {
        run(readers_, std::move(done),
            [thread, at](Connection& connection, base::Instant deadline) {
                return postgres::load_chain(connection, thread, at, deadline);
            });
    }
    void load_newest(ThreadId thread, Completion<Result<std::optional<StateRows>>> done) override {
        run(readers_, std::move(done), [thread](Connection& connection, base::Instant deadline) {
            return postgres::load_newest(connection, thread, deadline);
        });
    }
    void load_chain_of(ThreadId thread,
                       CheckpointId checkpoint,
                       Completion<Result<std::vector<JournalRow>>> done) override {
        run(readers_, std::move(done),
            [thread, checkpoint](Connection& connection, base::Instant deadline) {
                return postgres::load_chain_of(connection, thread, checkpoint, deadline);
            });
    }
    void list_journal(ThreadId thread,
                      Seq before,
                      std::int32_t limit,
                      Completion<Result<std::vector<JournalRow>>> done) override {
        if (auto checked = check_page(limit, 0); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [thread, before, limit](Connection& connection, base::Instant deadline) {
                return postgres::list_journal(connection, thread, before, limit, deadline);
            });
    }
    void load_tool_calls(ThreadId thread,
                         Seq seq,
                         Completion<Result<std::vector<ToolCallRow>>> done) override {
        run(readers_, std::move(done),
            [thread, seq](Connection& connection, base::Instant deadline) {
                return postgres::load_tool_calls(connection, thread, seq, deadline);
            });
    }
    void load_run(ThreadId thread, RunId run_id, Completion<Result<RunRow>> done) override {
        run(readers_, std::move(done),
            [thread, run_id](Connection& connection, base::Instant deadline) {
                return postgres::load_run(connection, thread, run_id, deadline);
            });
    }
    void find_run(RunId run_id, Completion<Result<RunRow>> done) override {
        run(readers_, std::move(done), [run_id](Connection& connection, base::Instant deadline) {
            return postgres::find_run(connection, run_id, deadline);
        });
    }
    void list_runs(ThreadId thread,
                   RunFilter filter,
                   Completion<Result<std::vector<RunRow>>> done) override {
        if (auto checked = check_page(filter.limit, filter.offset); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [thread, filter](Connection& connection, base::Instant deadline) {
                return postgres::list_runs(connection, thread, filter, deadline);
            });
    }
    void search_threads(ThreadFilter filter,
                        Completion<Result<std::vector<ThreadRow>>> done) override {
        if (auto checked = check_filter(filter); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [filter = std::move(filter)](Connection& connection, base::Instant deadline) {
                return postgres::search_threads(connection, filter, deadline);
            });
    }
    void count_threads(ThreadFilter filter, Completion<Result<std::int64_t>> done) override {
        if (auto checked = check_filter(filter); !checked) {
            done(std::move(checked).error());
            return;
        }
        run(readers_, std::move(done),
            [filter = std::move(filter)](Connection& connection, base::Instant deadline) {
                return postgres::count_threads(connection, filter, deadline);
            });
    }

private:
    void submit(postgres::WriteOperation operation) {
        const auto thread = operation.write.thread_id;
        const std::size_t rows = rows_of(operation.write);
        const std::size_t bytes = bytes_of(operation.write);
        pending_.add(thread);
        operation.done = [this, thread,
                          done = std::move(operation.done)](Result<ThreadKey> written) mutable {
            pending_.remove(thread);
            done(std::move(written));
        };
        writer_of(thread).submit({std::move(operation), {}}, rows, bytes);
    }
    using Pool = ReaderPool<Connection>;

    [[nodiscard]] EngineId engine() const {
        const std::lock_guard lock{mutex_};
        return engine_;
    }
    // A thread always has the same writer: so its operations keep their order.
    [[nodiscard]] postgres::Writer& writer_of(const ThreadId& thread) {
        return *writers_[base::stable_hash(thread.uuid) % writers_.size()];
    }
    static Completion<Result<bool>> without_value(Completion<Status> done) {
        return [done = std::move(done)](Result<bool> result) mutable {
            done(result ? base::ok() : Status{std::move(result).error()});
        };
    }
    template <class T, class Body>
    void run(Pool& pool, Completion<Result<T>> done, Body body) {
        const auto deadline = base::system_clock().now() + pool.wait_max();
        pool.submit([done = std::move(done), body = std::move(body),
                     deadline](base::Result<Connection*> connection) mutable {
            if (!connection) {
                done(std::move(connection).error());
                return true;
            }
            auto answer = body(**connection, deadline);
            if (!answer) {
                return false;
            }
            done(std::move(*answer));
            return true;
        });
    }

    const StoreLimits limits_;
    mutable std::mutex mutex_;
    EngineId engine_;  // guarded by mutex_
    std::unique_ptr<postgres::Patience> patience_;
    postgres::BatchNumbers numbers_{base::unix_microseconds()};
    Pool readers_;
    Pool control_;
    postgres::PendingWrites pending_;  // outlives the writers, which complete into it
    // Claims have a connection of their own: they need no fsync, and behind a batch of writes each
    // new thread's first run would wait for one all the same.
    postgres::Writer claimer_;
    std::vector<std::unique_ptr<postgres::Writer>> writers_;
};

}  // namespace

base::Result<std::unique_ptr<Store>> open_postgres_store(std::string_view url,
                                                         const StoreLimits& limits,
                                                         observe::Metrics& metrics) {
    auto patience = std::make_unique<postgres::Patience>();
    const postgres::Endpoint endpoint{std::string{url}, limits.wait_max, lock_wait_max(limits),
                                      patience.get()};
    if (auto migrated = postgres::migrate(endpoint); !migrated) {
        return std::move(migrated).error();
    }
    if (auto inspected = postgres::inspect_server(endpoint); !inspected) {
        return std::move(inspected).error();
    }
    std::unique_ptr<Store> store =
        std::make_unique<PostgresStore>(std::move(patience), endpoint, limits, metrics);
    return store;
}

}  // namespace heddle::storage
