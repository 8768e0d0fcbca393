#include "tests/sim/database.hpp"

#include <algorithm>

#include "engine/graph/row_events.hpp"
#include "engine/storage/memory/memory_database.hpp"

// Shared pointers all over: operations go on when who asked for them is gone.
// NOLINTBEGIN
namespace heddle::sim {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using base::Status;
using storage::ClaimOutcome;
using storage::Completion;
using storage::EngineId;
using storage::ThreadId;

using Rows = std::vector<storage::JournalRow>;

constexpr double kSlow = 0.02;  // share of the messages that take forty times as long

/// One operation between its call and its answer.
struct Operation {
    Duration asked_at{};
    std::optional<ThreadId> thread;  ///< whose session fails with it
    bool changes = false;            ///< it writes: if its answer is lost, it is in doubt
    bool is_over = false;            ///< carried out, or never will be
    bool dies_with_process = false;  ///< it is not on its way yet, whatever was said
    base::UniqueFunction<void()> carry_out;
    base::UniqueFunction<void()> answer;     ///< set once carried out
    std::optional<Error> error;              ///< what is answered instead
    base::UniqueFunction<void(Error)> fail;  ///< empty: nobody waits any more
    base::UniqueFunction<void()> forget;     ///< destroys the completion
};
using OperationPtr = std::shared_ptr<Operation>;

}  // namespace

std::string_view to_string(Fault fault) noexcept {
    constexpr std::string_view kNames[] = {"none",
                                           "stale_epochs_pass",
                                           "writes_answered_early",
                                           "writes_vanish",
                                           "attempts_forgotten",
                                           "events_forgotten",
                                           "the_live_are_robbed",
                                           "orphans_stay",
                                           "rollbacks_forget_rows",
                                           "ended_runs_forgotten"};
    return kNames[static_cast<std::size_t>(fault)];
}

/// Carries an engine's operations to the database and the answers back, in time and under the
/// weather that the world has. Outlives its port as long as something is on its way.
class Database::Connection : public std::enable_shared_from_this<Database::Connection> {
public:
    enum class Doubt : std::uint8_t { never, possible };

    Connection(Database& database, Process& process)
        : db_{database},
          world_{database.world_},
          process_{&process},
          name_{process.name()},
          inner_{
              storage::make_memory_store(database.database_, database.limits_, database.metrics_)} {
        db_.connections_.push_back(this);
    }

    /// @param thread     that is changed
    /// @param carry_out  called on the database, with a completion
    /// @param of         that is read
    template <class Answer, class CarryOut>
    OperationPtr send(std::optional<ThreadId> thread,
                      Doubt doubt,
                      Completion<Answer> done,
                      CarryOut carry_out,
                      std::optional<ThreadId> of = std::nullopt) {
        auto kept = std::make_shared<Completion<Answer>>(std::move(done));
        auto operation = std::make_shared<Operation>();
        operation->asked_at = world_.now();
        operation->thread = thread ? thread : of;
        operation->changes = thread.has_value();
        operation->fail = [kept](Error error) { (*kept)(std::move(error)); };
        operation->forget = [kept] { *kept = {}; };
        operation->carry_out = [self = operation.get(), kept,
                                carry_out = std::move(carry_out)]() mutable {
            carry_out(Completion<Answer>{[self, kept](Answer answer) {
                if (self->fail) {
                    self->answer = [kept, answer = std::move(answer)]() mutable {
                        (*kept)(std::move(answer));
                    };
                }
            }});
        };
        begin(operation, std::move(thread), doubt);
        return operation;
    }
    /// @param of  whose session may have asked
    template <class T, class CarryOut>
    void read(Completion<Result<T>> done,
              CarryOut carry_out,
              std::optional<ThreadId> of = std::nullopt) {
        (void)send<Result<T>>({}, Doubt::never, std::move(done), std::move(carry_out), of);
    }

    void claim(const storage::ThreadClaim& claim, Completion<Result<ClaimOutcome>> done);
    void create(const storage::ThreadClaim& claim,
                const storage::ThreadWrite& first,
                Completion<Result<storage::ThreadKey>> done);
    void write(storage::ThreadWrite write, Completion<Status> done);

    /// The process is gone.
    void close() {
        db_.connections_.remove(this);
        for (const auto& each : std::exchange(pending_, {})) {
            each->answer = {};
            each->fail = {};
            each->forget();
            each->is_over = each->is_over || each->dies_with_process;
        }
        process_ = nullptr;
    }
    void cut() {
        for (const auto& each : pending_) {
            each->is_over = each->is_over || world_.random.chance(0.6);
            fail_later(each, each->changes ? Error{ErrorCode::in_doubt, "the connection broke"}
                                           : Error{ErrorCode::unavailable, "the connection broke"});
        }
    }

    [[nodiscard]] Fault fault() const noexcept { return db_.fault_; }
    [[nodiscard]] StoreWatch& watch() noexcept { return db_.watch_; }
    [[nodiscard]] World& world() noexcept { return world_; }
    [[nodiscard]] storage::Store& inner() noexcept { return *inner_; }

    EngineId engine;  ///< as it has registered

private:
    void begin(const OperationPtr& operation, std::optional<ThreadId> thread, Doubt doubt);
    void lose(const OperationPtr& operation, const std::optional<ThreadId>& thread);
    void arrive(const OperationPtr& operation);
    void finish(const OperationPtr& operation);
    void spoil(const Operation& operation) {
        if (operation.thread) {
            db_.watch_.spoiled(*operation.thread);
        }
    }
    void fail_later(const OperationPtr& operation, Error error);
    Duration trip() {
        const auto usual = db_.weather.latency;
        return world_.random.between(usual / 4,
                                     world_.random.chance(kSlow) ? usual * 40 : usual * 2);
    }

    Database& db_;
    World& world_;
    Process* process_;
    std::string name_;
    std::shared_ptr<storage::Store> inner_;
    std::list<OperationPtr> pending_;
    std::unordered_map<ThreadId, Duration> last_of_;
};

void Database::Connection::begin(const OperationPtr& operation,
                                 std::optional<ThreadId> thread,
                                 Doubt doubt) {
    const auto& weather = db_.weather;
    if (world_.random.chance(weather.refused / 4)) {
        operation->is_over = true;
        auto fail = std::exchange(operation->fail, {});
        spoil(*operation);
        fail({ErrorCode::overloaded, "too many operations wait for the store"});
        operation->forget();
        return;
    }
    pending_.push_back(operation);
    if (world_.random.chance(weather.refused)) {
        operation->is_over = true;
        fail_later(operation, Error{ErrorCode::unavailable, "no connection"});
        return;
    }
    if (doubt == Doubt::possible && world_.random.chance(weather.doubtful)) {
        lose(operation, thread);
        return;
    }
    auto at = world_.now() + trip();
    if (thread) {
        // The writes of one thread are carried out in the order of the calls.
        auto& last = last_of_[*thread];
        at = last = std::max(at, last);
    }
    world_.after(at - world_.now(),
                 [self = shared_from_this(), operation] { self->arrive(operation); });
}

// The answer is lost; the operation is done, is not, or will be unless a claim settles it first.
void Database::Connection::lose(const OperationPtr& operation,
                                const std::optional<ThreadId>& thread) {
    constexpr Duration kLateMost = std::chrono::seconds{3};
    const auto claims = thread ? db_.claims_[*thread] : 0;
    const auto late = world_.random.below(3);
    if (late != 0) {
        const auto wait = late == 1 ? trip() : world_.random.between(trip(), kLateMost);
        world_.after(wait, [self = shared_from_this(), operation, thread, claims] {
            if (thread && self->db_.claims_[*thread] != claims) {
                return;
            }
            self->world_.note("{} has done what was in doubt", self->name_);
            operation->is_over = true;
            operation->carry_out();
        });
    } else {
        operation->is_over = true;
    }
    fail_later(operation, Error{ErrorCode::in_doubt, "connection lost during commit"});
}

void Database::Connection::arrive(const OperationPtr& operation) {
    const auto& weather = db_.weather;
    if (operation->is_over) {
        return;
    }
    const auto deadline = operation->asked_at + db_.limits_.wait_max;
    if (world_.now() >= deadline) {
        operation->is_over = true;
        fail_later(operation, Error{ErrorCode::timeout, "the store did not answer in time"});
        return;
    }
    if (world_.now() < weather.stalled_until) {
        const auto until = std::min(weather.stalled_until, deadline);
        world_.after(until - world_.now(),
                     [self = shared_from_this(), operation] { self->arrive(operation); });
        return;
    }
    operation->is_over = true;
    if (world_.now() < weather.down_until) {
        fail_later(operation, Error{ErrorCode::unavailable, "database unreachable"});
        return;
    }
    operation->carry_out();
    world_.after(trip(), [self = shared_from_this(), operation] { self->finish(operation); });
}

void Database::Connection::finish(const OperationPtr& operation) {
    pending_.remove(operation);
    auto fail = std::exchange(operation->fail, {});
    auto answer = std::exchange(operation->answer, {});
    if (!fail) {
        return;
    }
    process_->enter([&] {
        if (operation->error) {
            spoil(*operation);
            fail(*operation->error);
        } else {
            answer();
        }
        operation->forget();
    });
    process_->touch();
}

void Database::Connection::fail_later(const OperationPtr& operation, Error error) {
    operation->error = std::move(error);
    world_.after(trip() + trip(),
                 [self = shared_from_this(), operation] { self->finish(operation); });
}

void Database::Connection::claim(const storage::ThreadClaim& claim,
                                 Completion<Result<ClaimOutcome>> done) {
    auto checked = [&, this](Result<ClaimOutcome> outcome) {
        watch().claimed(engine, claim, outcome);
        const bool taken = outcome && outcome->epoch != 0;
        if (taken) {
            ++db_.claims_[claim.thread_id];
            world_.note("{} has claimed {} epoch {}, {} unfinished", name_,
                        claim.thread_id.to_string(), outcome->epoch,
                        outcome->unfinished_runs.size());
        }
        if (taken && fault() == Fault::attempts_forgotten) {
            for (auto& run : outcome->unfinished_runs) {
                run.attempt = std::max(0, run.attempt - 1);
            }
        }
        done(std::move(outcome));
    };
    if (fault() == Fault::the_live_are_robbed) {
        checked(db_.database_.database().claim(engine, claim, Duration{}));
        return;
    }
    inner_->claim(claim, [&](Result<ClaimOutcome> outcome) { checked(std::move(outcome)); });
}

void Database::Connection::create(const storage::ThreadClaim& claim,
                                  const storage::ThreadWrite& first,
                                  Completion<Result<storage::ThreadKey>> done) {
    inner_->create(claim, first, [&, this](Result<storage::ThreadKey> key) {
        watch().created(engine, first, key);
        if (key) {
            world_.note("{} has made {}", name_, claim.thread_id.to_string());
        }
        done(std::move(key));
    });
}

void Database::Connection::write(storage::ThreadWrite write, Completion<Status> done) {
    auto* by = this;
    const auto asked = write;
    if (fault() == Fault::stale_epochs_pass) {
        const auto* thread = watch().find_thread(write.thread_id);
        for (auto* each : db_.connections_) {
            if (thread != nullptr && thread->owner == each->engine) {
                by = each;
                write.epoch = thread->epoch;
            }
        }
    }
    if (fault() == Fault::rollbacks_forget_rows) {
        write.rollback_to.reset();
    }
    if (fault() == Fault::writes_vanish && world_.random.chance(0.02)) {
        done(base::ok());
        return;
    }
    by->inner().write(std::move(write), [&, this](const Status& status) {
        auto seen = asked;
        if (fault() == Fault::rollbacks_forget_rows) {
            seen.rollback_to.reset();
        }
        watch().written(engine, seen, status);
        done(status);
    });
}

/// The port that the scheduler gets.
class Database::Port final : public storage::Store {
public:
    // NOLINTNEXTLINE: see above
    explicit Port(std::shared_ptr<Connection> connection) : wire_{std::move(connection)} {}
    ~Port() override { wire_->close(); }

    [[nodiscard]] std::string_view name() const noexcept override { return "memory"; }

    void register_engine(storage::EngineRow row, Completion<Status> done) override {
        (void)wire_->send<Status>({}, Doubt::never, std::move(done),
                                  [wire = wire_, row = std::move(row)](auto answer) {
                                      wire->engine = row.id;
                                      wire->watch().registered(row.id);
                                      wire->inner().register_engine(row, std::move(answer));
                                  });
    }
    void heartbeat(bool draining, Completion<Status> done) override {
        auto heard = [wire = wire_, asked_at = wire_->world().now(),
                      done = std::move(done)](const Status& status) mutable {
            wire->watch().heard(wire->engine, asked_at, status);
            done(status);
        };
        (void)wire_->send<Status>({}, Doubt::possible, std::move(heard),
                                  [wire = wire_, draining](auto answer) {
                                      wire->inner().heartbeat(draining, [&](const Status& status) {
                                          wire->watch().beaten(wire->engine, status);
                                          answer(status);
                                      });
                                  });
    }
    void unregister_engine(Completion<Status> done) override {
        (void)wire_->send<Status>({}, Doubt::never, std::move(done), [wire = wire_](auto answer) {
            wire->watch().unregistered(wire->engine);
            wire->inner().unregister_engine(std::move(answer));
        });
    }
    void list_engines(Completion<Result<std::vector<storage::EngineRow>>> done) override {
        wire_->read<std::vector<storage::EngineRow>>(std::move(done), [wire = wire_](auto answer) {
            wire->inner().list_engines(std::move(answer));
        });
    }
    void claim(storage::ThreadClaim claim, Completion<Result<ClaimOutcome>> done) override {
        const auto thread = claim.thread_id;
        (void)wire_->send<Result<ClaimOutcome>>(
            thread, Doubt::possible, std::move(done),
            [wire = wire_, claim = std::move(claim)](auto answer) {
                wire->claim(claim, std::move(answer));
            });
    }
    void find_orphans(std::int32_t limit, Completion<Result<std::vector<ThreadId>>> done) override {
        wire_->read<std::vector<ThreadId>>(std::move(done), [wire = wire_, limit](auto answer) {
            if (wire->fault() == Fault::orphans_stay) {
                answer(std::vector<ThreadId>{});
                return;
            }
            wire->inner().find_orphans(limit, std::move(answer));
        });
    }
    void write(storage::ThreadWrite write, Completion<Status> done) override {
        const auto thread = write.thread_id;
        const bool early = wire_->fault() == Fault::writes_answered_early;
        if (early) {
            (void)wire_->send<Status>({}, Doubt::never, std::move(done),
                                      [](auto answer) { answer(base::ok()); });
            done = [](const Status&) {};
        }
        const auto operation =
            wire_->send<Status>(thread, early ? Doubt::never : Doubt::possible, std::move(done),
                                [wire = wire_, write = std::move(write)](auto answer) mutable {
                                    wire->write(std::move(write), std::move(answer));
                                });
        operation->dies_with_process = early;
    }
    void create(storage::ThreadClaim claim,
                storage::ThreadWrite first,
                Completion<Result<storage::ThreadKey>> done) override {
        const auto thread = claim.thread_id;
        (void)wire_->send<Result<storage::ThreadKey>>(
            thread, Doubt::possible, std::move(done),
            [wire = wire_, claim = std::move(claim), first = std::move(first)](auto answer) {
                wire->create(claim, first, std::move(answer));
            });
    }
    void find_expired(std::int32_t limit,
                      Completion<Result<std::vector<storage::ExpiredThread>>> done) override {
        wire_->read<std::vector<storage::ExpiredThread>>(
            std::move(done), [wire = wire_, limit](auto answer) {
                wire->inner().find_expired(limit, std::move(answer));
            });
    }
    void claim_key(storage::KeyClaim claim, Completion<Result<storage::KeyHolder>> done) override {
        wire_->read<storage::KeyHolder>(std::move(done),
                                        [wire = wire_, claim = std::move(claim)](auto answer) {
                                            wire->inner().claim_key(claim, std::move(answer));
                                        });
    }
    void delete_expired_keys(std::int32_t limit, Completion<Result<std::int32_t>> done) override {
        wire_->read<std::int32_t>(std::move(done), [wire = wire_, limit](auto answer) {
            wire->inner().delete_expired_keys(limit, std::move(answer));
        });
    }
    void load_thread(ThreadId thread, Completion<Result<storage::ThreadRow>> done) override {
        wire_->read<storage::ThreadRow>(
            std::move(done),
            [wire = wire_, thread](auto answer) {
                wire->inner().load_thread(thread, std::move(answer));
            },
            thread);
    }
    void load_chain(ThreadId thread, storage::Seq at, Completion<Result<Rows>> done) override {
        wire_->read<Rows>(
            std::move(done),
            [wire = wire_, thread, at](auto answer) {
                wire->inner().load_chain(thread, at, with_faults(*wire, std::move(answer)));
            },
            thread);
    }
    void load_newest(ThreadId thread,
                     Completion<Result<std::optional<storage::StateRows>>> done) override {
        wire_->read<std::optional<storage::StateRows>>(
            std::move(done),
            [wire = wire_, thread](auto answer) {
                wire->inner().load_newest(thread, std::move(answer));
            },
            thread);
    }
    void load_chain_of(ThreadId thread,
                       storage::CheckpointId checkpoint,
                       Completion<Result<Rows>> done) override {
        wire_->read<Rows>(
            std::move(done),
            [wire = wire_, thread, checkpoint](auto answer) {
                wire->inner().load_chain_of(thread, checkpoint,
                                            with_faults(*wire, std::move(answer)));
            },
            thread);
    }
    void list_journal(ThreadId thread,
                      storage::Seq before,
                      std::int32_t limit,
                      Completion<Result<Rows>> done) override {
        wire_->read<Rows>(
            std::move(done),
            [wire = wire_, thread, before, limit](auto answer) {
                wire->inner().list_journal(thread, before, limit, std::move(answer));
            },
            thread);
    }
    void load_tool_calls(ThreadId thread,
                         storage::Seq seq,
                         Completion<Result<std::vector<storage::ToolCallRow>>> done) override {
        wire_->read<std::vector<storage::ToolCallRow>>(
            std::move(done),
            [wire = wire_, thread, seq](auto answer) {
                wire->inner().load_tool_calls(thread, seq, std::move(answer));
            },
            thread);
    }
    void load_run(ThreadId thread,
                  storage::RunId run,
                  Completion<Result<storage::RunRow>> done) override {
        wire_->read<storage::RunRow>(
            std::move(done),
            [wire = wire_, thread, run](auto answer) {
                const auto* known = wire->watch().find_run(thread, run);
                if (wire->fault() == Fault::ended_runs_forgotten && known != nullptr &&
                    storage::is_final(known->status)) {
                    answer(Error{ErrorCode::not_found, "run not found"});
                    return;
                }
                wire->inner().load_run(thread, run, std::move(answer));
            },
            thread);
    }
    void find_run(storage::RunId run, Completion<Result<storage::RunRow>> done) override {
        wire_->read<storage::RunRow>(std::move(done), [wire = wire_, run](auto answer) {
            wire->inner().find_run(run, std::move(answer));
        });
    }
    void list_runs(ThreadId thread,
                   storage::RunFilter filter,
                   Completion<Result<std::vector<storage::RunRow>>> done) override {
        wire_->read<std::vector<storage::RunRow>>(
            std::move(done),
            [wire = wire_, thread, filter](auto answer) {
                wire->inner().list_runs(thread, filter, std::move(answer));
            },
            thread);
    }
    void search_threads(storage::ThreadFilter filter,
                        Completion<Result<std::vector<storage::ThreadRow>>> done) override {
        wire_->read<std::vector<storage::ThreadRow>>(
            std::move(done), [wire = wire_, filter = std::move(filter)](auto answer) {
                wire->inner().search_threads(filter, std::move(answer));
            });
    }
    void count_threads(storage::ThreadFilter filter,
                       Completion<Result<std::int64_t>> done) override {
        wire_->read<std::int64_t>(std::move(done),
                                  [wire = wire_, filter = std::move(filter)](auto answer) {
                                      wire->inner().count_threads(filter, std::move(answer));
                                  });
    }

private:
    using Doubt = Connection::Doubt;

    static Completion<Result<Rows>> with_faults(Connection& wire, Completion<Result<Rows>> done) {
        if (wire.fault() != Fault::events_forgotten) {
            return done;
        }
        return [done = std::move(done)](Result<Rows> rows) mutable {
            for (std::size_t i = 0; rows && i < rows->size(); ++i) {
                auto& data = (*rows)[i].data;
                data.resize(graph::state_part(data).size());
            }
            done(std::move(rows));
        };
    }

    std::shared_ptr<Connection> wire_;
};

Database::Database(World& world, StoreWatch& watch, Fault fault)
    : world_{world}, watch_{watch}, fault_{fault} {}

std::unique_ptr<storage::Store> Database::connect(Process& process) {
    return std::make_unique<Port>(std::make_shared<Connection>(*this, process));
}

void Database::cut_connections() {
    for (auto* each : connections_) {
        each->cut();
    }
}

void Database::compare() {
    watch_.compare(*storage::make_memory_store(database_, limits_, metrics_));
}

}  // namespace heddle::sim
// NOLINTEND
