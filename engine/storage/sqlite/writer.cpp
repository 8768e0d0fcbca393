#include "engine/storage/sqlite/writer.hpp"

#include <algorithm>
#include <chrono>

#include "engine/observe/log.hpp"
#include "engine/storage/checks.hpp"

namespace heddle::storage::sqlite {
namespace {

template <class... F>
struct Overloaded : F... {
    using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

void set_error(Operation& operation, const base::Error& error) {
    std::visit([&error](auto& body) { body.outcome = error; }, operation.body);
}

void call_completion(Operation& operation) {
    std::visit([](auto& body) { body.done(std::move(body.outcome)); }, operation.body);
}

void refuse(Operation& operation, const base::Error& error) {
    set_error(operation, error);
    call_completion(operation);
}

base::Error timed_out() {
    return base::Error{base::ErrorCode::timeout, "the database did not answer in time"};
}

}  // namespace

Writer::Writer(std::unique_ptr<Connection> connection,
               std::unique_ptr<Turn> turn,
               const StoreLimits& limits,
               observe::Metrics& metrics,
               const base::Clock& clock)
    : limits_{limits},
      metrics_{metrics},
      connection_{std::move(connection)},
      turn_{std::move(turn)},
      tables_{*connection_, clock, limits.lease},
      clock_{clock},
      queue_{limits},
      os_thread_{[this] { run(); }} {}

Writer::~Writer() {
    queue_.close();
    os_thread_.join();
}

void Writer::submit(Operation operation, std::size_t rows, std::size_t bytes) {
    operation.deadline = base::system_clock().now() + limits_.wait_max;
    // A lease must not wait behind a long queue.
    const auto* of_engine = std::get_if<EngineOperation>(&operation.body);
    const bool is_urgent = of_engine != nullptr;
    if (is_urgent && of_engine->kind != EngineOperation::Kind::heartbeat) {
        may_beat_.store(false, std::memory_order_relaxed);
    }
    const auto pushed = queue_.try_push(operation, rows, bytes, is_urgent);
    if (pushed != Pushed::taken) {
        refuse(operation, refusal(pushed));
    }
}

void Writer::run() {
    for (;;) {
        auto batch = queue_.take();
        if (batch.empty()) {
            return;
        }
        if (queue_.is_closed()) {
            for (auto& operation : batch) {
                refuse(operation, refusal(Pushed::closed));
            }
            continue;
        }
        serve(std::move(batch));
    }
}

// Waits for the turn as long as the oldest operation may wait; who waited too long is told, the
// rest of the batch tries again.
void Writer::serve(std::vector<Operation> batch) {
    while (!batch.empty()) {
        const auto oldest = std::min_element(
            batch.begin(), batch.end(),
            [](const Operation& a, const Operation& b) { return a.deadline < b.deadline; });
        if (turn_->lock(oldest->deadline)) {
            commit(batch);
            turn_->unlock();
            answer(batch);
            return;
        }
        const auto now = base::system_clock().now();
        const auto late = std::stable_partition(
            batch.begin(), batch.end(), [now](const Operation& op) { return op.deadline > now; });
        std::for_each(late, batch.end(), [](Operation& op) { refuse(op, timed_out()); });
        batch.erase(late, batch.end());
    }
}

void Writer::commit(std::span<Operation> batch) {
    try {
        try {
            try_commit(batch, Isolation::none);
        } catch (const SqliteError& error) {
            roll_back();
            if (error.code() != SQLITE_CONSTRAINT && error.code() != SQLITE_TOOBIG) {
                throw;
            }
            // Somebody's row is there already. That is rare, so only now each operation pays for a
            // savepoint of its own.
            try_commit(batch, Isolation::savepoints);
        }
    } catch (const SqliteError& error) {
        roll_back();
        const auto told = to_error("commit", error);
        for (auto& operation : batch) {
            set_error(operation, told);
        }
    }
}

void Writer::try_commit(std::span<Operation> batch, Isolation isolation) {
    // Others of ours wait for the turn; this wait is for a foreign program that has the file.
    connection_->set_busy_timeout(std::max(base::Duration{std::chrono::milliseconds{100}},
                                           batch.front().deadline - base::system_clock().now()));
    connection_->execute("BEGIN IMMEDIATE");
    for (auto& operation : batch) {
        if (isolation == Isolation::none) {
            carry_out(operation);
        } else {
            carry_out_alone(operation);
        }
    }
    beat_again();
    connection_->execute("COMMIT");
}

void Writer::carry_out(Operation& operation) {
    std::visit(Overloaded{
                   [this](WriteOperation& op) { op.outcome = tables_.write(op.engine, op.write); },
                   [this](ClaimOperation& op) { op.outcome = tables_.claim(op.engine, op.claim); },
                   [this](CreateOperation& op) {
                       // Not moved: without savepoints it may have to be carried out again.
                       op.outcome = tables_.create(op.engine, op.claim, op.first);
                   },
                   [this](KeyOperation& op) { op.outcome = tables_.claim_key(op.claim); },
                   [this](KeySweep& op) { op.outcome = tables_.delete_expired_keys(op.limit); },
                   [this](EngineOperation& op) {
                       op.outcome = base::ok();
                       switch (op.kind) {
                           case EngineOperation::Kind::register_engine:
                               tables_.register_engine(op.engine);
                               break;
                           case EngineOperation::Kind::heartbeat:
                               op.outcome = tables_.heartbeat(op.engine.id, op.engine.draining);
                               break;
                           case EngineOperation::Kind::unregister:
                               tables_.unregister_engine(op.engine.id);
                               break;
                       }
                       note_beat(op);
                   },
               },
               operation.body);
}

void Writer::note_beat(const EngineOperation& operation) {
    const bool lives = operation.outcome && operation.kind != EngineOperation::Kind::unregister;
    if (lives) {
        alive_ = operation.engine;
        beaten_at_us_ = clock_.unix_us();
    }
    may_beat_.store(lives, std::memory_order_relaxed);
}

// A batch may take long, and so may those of other engines before our next turn. Who writes is
// alive: that is said once more where the latest heartbeat is getting old, and not where it is too
// old already.
void Writer::beat_again() {
    constexpr int kBeatsALease = 4;
    const auto now = clock_.unix_us();
    if (alive_ && may_beat_.load(std::memory_order_relaxed) &&
        now - beaten_at_us_ >= base::microseconds(limits_.lease) / kBeatsALease) {
        (void)tables_.heartbeat(alive_->id, alive_->draining);
        beaten_at_us_ = now;
    }
}

void Writer::carry_out_alone(Operation& operation) {
    connection_->execute("SAVEPOINT one");
    try {
        carry_out(operation);
    } catch (const SqliteError& error) {
        // On some errors SQLite has ended the whole transaction: then all of it failed.
        if (connection_->is_idle()) {
            throw;
        }
        connection_->execute("ROLLBACK TO one");
        set_error(operation, to_error("write", error));
    }
    connection_->execute("RELEASE one");
}

void Writer::roll_back() noexcept {
    if (!connection_->is_idle()) {
        sqlite3_exec(connection_->handle(), "ROLLBACK", nullptr, nullptr, nullptr);
    }
}

void Writer::answer(std::span<Operation> batch) {
    metrics_.store_batches_total += 1;
    const base::machine::PostTogether together;
    for (auto& operation : batch) {
        if (const auto* made = std::get_if<CreateOperation>(&operation.body);
            made != nullptr && made->outcome) {
            metrics_.store_rows_total += static_cast<std::int64_t>(rows_of(made->first));
        }
        if (const auto* op = std::get_if<WriteOperation>(&operation.body)) {
            if (op->outcome) {
                metrics_.store_rows_total += static_cast<std::int64_t>(rows_of(op->write));
            } else if (op->outcome.error().code == base::ErrorCode::stale_epoch) {
                metrics_.stale_writes_total += 1;
            }
        }
        call_completion(operation);
    }
}

}  // namespace heddle::storage::sqlite
