#include "engine/storage/postgres/writer.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <unordered_map>
#include <unordered_set>

#include "engine/base/clock.hpp"
#include "engine/base/machine.hpp"
#include "engine/observe/log.hpp"
#include "engine/storage/checks.hpp"
#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statements.hpp"
#include "engine/storage/postgres/write_parameters.hpp"

namespace heddle::storage::postgres {
namespace {

// After the sequence of keys could not be asked.
constexpr std::chrono::milliseconds kKeysPause{20};

void tell(WriteOperation& operation) {
    if (operation.outcome) {
        operation.done(operation.write.key);
    } else {
        operation.done(std::move(operation.outcome).error());
    }
}

void tell(ClaimOperation& operation) {
    operation.done(std::move(operation.outcome));
}

void refuse(Operation& operation, const base::Error& error) {
    std::visit(
        [&error](auto& body) {
            body.outcome = error;
            tell(body);
        },
        operation.body);
}

auto execute_writes(base::Instant deadline) {
    return [deadline](Connection& connection, std::span<WriteOperation* const> writes,
                      std::int64_t number) {
        const auto bound = write_statement(writes, number);
        return connection.execute(bound.statement, bound.parameters, deadline);
    };
}

const EngineId& engine_of(const Operation& operation) {
    return std::visit([](const auto& body) -> const EngineId& { return body.engine; },
                      operation.body);
}

}  // namespace

void set_all(std::span<WriteOperation* const> writes, const base::Error& error) {
    for (auto* operation : writes) {
        operation->outcome = error;
    }
}

base::Error stale_error() {
    return base::Error{base::ErrorCode::stale_epoch, "another engine has claimed the thread"};
}

Writer::Writer(const Endpoint& endpoint,
               const StoreLimits& limits,
               observe::Metrics& metrics,
               BatchNumbers& numbers)
    : endpoint_{endpoint},
      limits_{limits},
      metrics_{metrics},
      numbers_{numbers},
      queue_{limits},
      link_{std::make_shared<Link>()},
      os_thread_{[this] { run(); }} {
    const std::lock_guard lock{link_->mutex};
    link_->writer = this;
}

Writer::~Writer() {
    {
        const std::lock_guard lock{link_->mutex};
        link_->writer = nullptr;
    }
    queue_.close();
    os_thread_.join();
}

void Writer::submit(Operation operation, std::size_t rows, std::size_t bytes) {
    operation.deadline = base::system_clock().now() + limits_.wait_max;
    if (try_start(operation, bytes)) {
        return;
    }
    const auto pushed = queue_.try_push(operation, rows, bytes);
    if (pushed != Pushed::taken) {
        refuse(operation, refusal(pushed));
    }
}

void Writer::run() {
    // One attempt before anybody waits for it.
    (void)connect(base::system_clock().now());
    for (;;) {
        auto batch = queue_.take();
        if (started_) {
            finish_started();
            continue;
        }
        if (batch.empty()) {
            return;
        }
        if (queue_.is_closed()) {
            for (auto& operation : batch) {
                refuse(operation, refusal(Pushed::closed));
            }
            continue;
        }
        serve(batch);
    }
}

namespace {

// Not one of those that go to the database as statements of their own kind (commit()).
bool is_plain(const ThreadWrite& write) {
    return !write.delete_thread && !write.rollback_to && !write.prune && !write.ttl;
}

}  // namespace

// A lone write waits for nobody, not even for the writer's OS thread to wake: the caller's sends
// it, and takes the answer if it runs a loop and nothing comes between.
bool Writer::try_start(Operation& operation, std::size_t bytes) {
    constexpr std::size_t kBytesMax = std::size_t{64} << 10U;  // a shard has others to serve
    auto* write = std::get_if<WriteOperation>(&operation.body);
    if (write == nullptr || bytes > kBytesMax || !is_plain(write->write) || !queue_.begin_alone()) {
        return false;
    }
    struct Turn {
        ~Turn() { writer.queue_.end_alone(end); }
        Writer& writer;
        Alone end = Alone::done;
    };
    Turn turn{*this};
    const bool is_ready = connection_ != nullptr && connection_->is_usable() &&
                          (!write->create || write->write.key != 0 || next_key_ != keys_end_);
    if (is_ready) {
        (void)give_keys(Writes{&write, 1}, operation.deadline);
        const auto number = next_number();
        const auto bound = write_statement(Writes{&write, 1}, number);
        if (connection_->try_start(bound.statement, bound.parameters)) {
            started_.emplace(Started{std::move(operation), number});
            turn.end = connection_->is_sent() && call_when_answered() ? Alone::caller_waits
                                                                      : Alone::writer_waits;
        }
    }
    return started_.has_value();
}

bool Writer::call_when_answered() {
    const auto& socket = connection_->socket();
    base::UniqueFunction<void()> body = [link = link_, socket] {
        const std::lock_guard lock{link->mutex};
        if (link->writer != nullptr) {
            link->writer->try_finish_started();
        }
    };
    return base::machine::call_when_readable(socket->descriptor(), body);
}

// Only a success: whatever has to be asked or repeated is for the writer.
void Writer::try_finish_started() {
    if (!queue_.resume_alone()) {
        return;
    }
    auto& started = *started_;
    started.executed = connection_->try_finish();
    auto& write = std::get<WriteOperation>(started.operation.body);
    const auto& executed = started.executed;
    if (!executed || executed->fate != Fate::done || executed->rows.size() != 1 ||
        executed->rows[0][0].as<ThreadKey>() != write.write.key) {
        queue_.end_alone(Alone::writer_waits);
        return;
    }
    auto operation = std::move(started.operation);
    started_.reset();
    queue_.end_alone(Alone::done);
    std::get<WriteOperation>(operation.body).outcome = base::ok();
    answer({&operation, 1});
}

void Writer::finish_started() {
    auto started = std::move(*started_);
    started_.reset();
    auto* write = &std::get<WriteOperation>(started.operation.body);
    const auto deadline = started.operation.deadline;
    const auto executed =
        started.executed ? std::move(*started.executed) : connection_->finish(deadline);
    if (!settle_attempt(Writes{&write, 1}, executed, started.number, deadline,
                        execute_writes(deadline))) {
        settle(Writes{&write, 1}, deadline, execute_writes(deadline));
    }
    answer({&started.operation, 1});
}

void Writer::serve(std::span<Operation> batch) {
    const auto now = base::system_clock().now();
    std::size_t from = 0;
    while (from < batch.size()) {
        if (batch[from].deadline <= now) {
            refuse(batch[from++], error_of(Fate::timeout));
            continue;
        }
        BatchCut cut;
        std::size_t to = from;
        while (to < batch.size() && batch[to].deadline > now &&
               engine_of(batch[to]) == engine_of(batch[from]) &&
               std::visit(
                   [&cut](const auto& body) {
                       if constexpr (requires { body.write; }) {
                           return cut.admit(body.write);
                       } else {
                           return cut.admit(body.claim);
                       }
                   },
                   batch[to].body)) {
            ++to;
        }
        commit(batch.subspan(from, to - from));
        answer(batch.subspan(from, to - from));
        from = to;
    }
}

void Writer::commit(std::span<Operation> part) {
    std::vector<ClaimOperation*> claims;
    std::vector<WriteOperation*> writes;
    std::vector<WriteOperation*> rollbacks;
    std::vector<WriteOperation*> prunes;
    std::vector<WriteOperation*> ttls;
    std::vector<WriteOperation*> removals;
    auto deadline = base::Instant::max();
    for (auto& operation : part) {
        deadline = std::min(deadline, operation.deadline);
        if (auto* body = std::get_if<WriteOperation>(&operation.body)) {
            auto& kind = body->write.delete_thread ? removals
                         : body->write.rollback_to ? rollbacks
                         : body->write.prune       ? prunes
                         : body->write.ttl         ? ttls
                                                   : writes;
            kind.push_back(body);
        } else {
            claims.push_back(&std::get<ClaimOperation>(operation.body));
        }
    }
    if (!claims.empty()) {
        claim(claims, deadline);
    }
    if (!writes.empty()) {
        write(writes, deadline);
    }
    if (!rollbacks.empty()) {
        roll_back(rollbacks, deadline);
    }
    if (!prunes.empty()) {
        prune(prunes, deadline);
    }
    if (!ttls.empty()) {
        set_ttl(ttls, deadline);
    }
    if (!removals.empty()) {
        remove(removals, deadline);
    }
}

void Writer::answer(std::span<Operation> part) {
    metrics_.store_batches_total += 1;
    const base::machine::PostTogether together;
    for (auto& operation : part) {
        if (const auto* body = std::get_if<WriteOperation>(&operation.body)) {
            if (body->outcome) {
                metrics_.store_rows_total += static_cast<std::int64_t>(rows_of(body->write));
            } else if (body->outcome.error().code == base::ErrorCode::stale_epoch) {
                metrics_.stale_writes_total += 1;
            }
        }
        std::visit([](auto& body) { tell(body); }, operation.body);
    }
}

// ---- connection

Connection* Writer::connect(base::Instant deadline) {
    if (connection_ == nullptr || !connection_->is_usable()) {
        connection_.reset();
        if (auto connected = Connection::connect_until(endpoint_, Role::writer, deadline)) {
            connection_ = std::move(connected).value();
        }
    }
    return connection_.get();
}

// ---- writes

std::int64_t Writer::next_number() {
    return numbers_.fetch_add(1, std::memory_order_relaxed) + 1;
}

void Writer::write(Writes writes, base::Instant deadline) {
    for (;;) {
        // Without its key no thread is made, also if the database is there again a moment later.
        if (connect(deadline) == nullptr) {
            set_all(writes, error_of(Fate::unavailable));
            return;
        }
        if (give_keys(writes, deadline)) {
            break;
        }
        if (base::system_clock().now() >= deadline || !endpoint_.patience->pause(kKeysPause)) {
            set_all(writes, error_of(Fate::unavailable));
            return;
        }
    }
    settle(writes, deadline, execute_writes(deadline));
}

void Writer::remove(Writes writes, base::Instant deadline) {
    settle(writes, deadline, [deadline](Connection& connection, Writes part, std::int64_t number) {
        BinaryArray keys{ElementType::int8};
        BinaryArray epochs{ElementType::int8};
        BinaryArray expiries{ElementType::int8};
        for (const auto* operation : part) {
            keys.add_int8(operation->write.key);
            epochs.add_int8(operation->write.epoch);
            expiries.add_int8(operation->write.if_expires_at_us);
        }
        Parameters parameters;
        parameters.add(part.front()->engine).add(std::move(keys)).add(std::move(epochs));
        parameters.add(number).add(std::move(expiries));
        return connection.execute(kDelete, parameters, deadline);
    });
}

void Writer::roll_back(Writes writes, base::Instant deadline) {
    settle(writes, deadline, [deadline](Connection& connection, Writes part, std::int64_t number) {
        BinaryArray keys{ElementType::int8};
        BinaryArray epochs{ElementType::int8};
        BinaryArray seqs{ElementType::int8};
        BinaryArray statuses{ElementType::int2};
        BinaryArray run_keys{ElementType::int8};
        BinaryArray runs{ElementType::uuid};
        for (const auto* operation : part) {
            const auto& write = operation->write;
            keys.add_int8(write.key);
            epochs.add_int8(write.epoch);
            seqs.add_int8(*write.rollback_to);
            if (write.status) {
                statuses.add_int2(static_cast<std::int16_t>(*write.status));
            } else {
                statuses.add_null();
            }
            for (const auto& run : write.deleted_runs) {
                run_keys.add_int8(write.key);
                runs.add(run.uuid);
            }
        }
        Parameters parameters;
        parameters.add(part.front()->engine).add(base::unix_microseconds());
        parameters.add(std::move(keys)).add(std::move(epochs)).add(std::move(seqs));
        parameters.add(std::move(run_keys)).add(std::move(runs)).add(number);
        parameters.add(std::move(statuses));
        return connection.execute(kRollBack, parameters, deadline);
    });
}

void Writer::prune(Writes writes, base::Instant deadline) {
    settle(writes, deadline, [deadline](Connection& connection, Writes part, std::int64_t number) {
        BinaryArray keys{ElementType::int8};
        BinaryArray epochs{ElementType::int8};
        BinaryArray firsts{ElementType::int8};
        BinaryArray belows{ElementType::int8};
        BinaryArray kept{ElementType::int8};
        BinaryArray stops{ElementType::boolean};
        BinaryArray snapshots{ElementType::bytea};
        for (const auto* operation : part) {
            const auto& write = operation->write;
            keys.add_int8(write.key);
            epochs.add_int8(write.epoch);
            firsts.add_int8(write.prune->first);
            belows.add_int8(write.prune->delete_below);
            kept.add_int8(base::microseconds(write.prune->runs_kept));
            stops.add_bool(write.prune->stop_ttl);
            if (write.prune->snapshot.empty()) {
                snapshots.add_null();
            } else {
                snapshots.add_bytes(write.prune->snapshot);
            }
        }
        Parameters parameters;
        parameters.add(part.front()->engine);
        for (auto* array : {&keys, &epochs, &firsts, &belows, &kept, &stops, &snapshots}) {
            parameters.add(std::move(*array));
        }
        parameters.add(number);
        return connection.execute(kPrune, parameters, deadline);
    });
}

void Writer::set_ttl(Writes writes, base::Instant deadline) {
    settle(writes, deadline, [deadline](Connection& connection, Writes part, std::int64_t number) {
        BinaryArray keys{ElementType::int8};
        BinaryArray epochs{ElementType::int8};
        BinaryArray ttls{ElementType::int8};
        BinaryArray strategies{ElementType::int2};
        BinaryArray kept{ElementType::int8};
        for (const auto* operation : part) {
            const auto& write = operation->write;
            keys.add_int8(write.key);
            epochs.add_int8(write.epoch);
            ttls.add_int8(base::microseconds(write.ttl->after));
            strategies.add_int2(static_cast<std::int16_t>(write.ttl->strategy));
            kept.add_int8(base::microseconds(write.ttl_kept));
        }
        Parameters parameters;
        parameters.add(part.front()->engine).add(base::unix_microseconds());
        for (auto* array : {&keys, &epochs, &ttls, &strategies}) {
            parameters.add(std::move(*array));
        }
        parameters.add(number).add(std::move(kept));
        return connection.execute(kSetTtl, parameters, deadline);
    });
}

namespace {

// Whether a thread was made in a statement that was lost nothing in it can tell, and no fence holds
// one that comes late. A claim of the same thread settles both: it finds the thread or makes it.
// @return whether there were any
bool give_up_creates(std::span<WriteOperation* const> writes) {
    bool found = false;
    for (auto* operation : writes) {
        if (operation->create) {
            operation->outcome = error_of(Fate::lost);
            found = true;
        }
    }
    return found;
}

}  // namespace

// Repeats the statement until every operation has its outcome. A part that cannot be stored is
// halved until the row at fault is alone; the halves keep the order of the calls.
template <class Execute>
void Writer::settle(Writes writes, base::Instant deadline, Execute execute) {
    for (;;) {
        auto* connection = connect(deadline);
        if (connection == nullptr) {
            set_all(writes, error_of(Fate::unavailable));
            return;
        }
        const auto number = next_number();
        if (settle_attempt(writes, execute(*connection, writes, number), number, deadline,
                           execute)) {
            return;
        }
        // Nothing was done. What takes longer than it may would take as long again.
        if (base::system_clock().now() >= deadline) {
            set_all(writes, error_of(Fate::timeout));
            return;
        }
    }
}

// @return false if it has to be executed again
template <class Execute>
bool Writer::settle_attempt(Writes writes,
                            const Executed& executed,
                            std::int64_t number,
                            base::Instant deadline,
                            Execute execute) {
    const bool is_at_fault = executed.fate == Fate::conflict || executed.fate == Fate::bad_data;
    if (is_at_fault && writes.size() > 1) {
        const auto half = writes.size() / 2;
        settle(writes.first(half), deadline, execute);
        settle(writes.subspan(half), deadline, execute);
        return true;
    }
    if (executed.fate == Fate::lost && give_up_creates(writes)) {
        std::vector<WriteOperation*> others;
        std::copy_if(writes.begin(), writes.end(), std::back_inserter(others),
                     [](const WriteOperation* operation) { return !operation->create; });
        if (!others.empty() && !read_back(others, number, deadline)) {
            settle(others, deadline, execute);
        }
        return true;
    }
    return settle_once(writes, executed, number, deadline);
}

bool Writer::settle_once(Writes writes,
                         const Executed& executed,
                         std::int64_t number,
                         base::Instant deadline) {
    switch (executed.fate) {
        case Fate::done:
            tell_apart(writes, executed.rows, deadline);
            return true;
        case Fate::lost:
            return read_back(writes, number, deadline);
        case Fate::retry:
        case Fate::blocked:
            if (base::system_clock().now() < deadline) {
                let_through(executed.fate, deadline);
                return false;
            }
            break;
        default:
            break;
    }
    set_all(writes, error_of(executed.fate));
    return true;
}

// Ends those who kept a row from us, if it was that.
void Writer::let_through(Fate fate, base::Instant deadline) {
    if (fate == Fate::blocked && connection_->is_usable()) {
        (void)connection_->evict(deadline);
    }
}

void Writer::tell_apart(Writes writes, const Rows& changed, base::Instant deadline) {
    std::unordered_set<ThreadKey> ok;
    for (const auto row : changed) {
        ok.insert(row[0].as<ThreadKey>());
    }
    std::vector<WriteOperation*> refused;
    for (auto* operation : writes) {
        operation->outcome = base::ok();
        if (!ok.contains(operation->write.key)) {
            refused.push_back(operation);
        }
    }
    if (!refused.empty()) {
        refuse_changes(refused, deadline);
    }
}

// If nobody answers whether a thread is there: that it is no longer ours is true of both.
void Writer::refuse_changes(Writes writes, base::Instant deadline) {
    BinaryArray keys{ElementType::int8};
    bool asks = false;
    for (auto* operation : writes) {
        operation->outcome = stale_error();
        if (operation->create) {
            operation->outcome = base::Error{base::ErrorCode::conflict, "the thread exists"};
            continue;
        }
        keys.add_int8(operation->write.key);
        asks = true;
    }
    if (!asks) {
        return;
    }
    const auto existing =
        connection_->execute(kExisting, Parameters{}.add(std::move(keys)), deadline);
    if (existing.fate != Fate::done) {
        return;
    }
    std::unordered_set<ThreadKey> there;
    for (const auto row : existing.rows) {
        there.insert(row[0].as<ThreadKey>());
    }
    for (auto* operation : writes) {
        if (!operation->create && !there.contains(operation->write.key)) {
            operation->outcome = base::Error{base::ErrorCode::not_found, "thread not found"};
        }
    }
}

}  // namespace heddle::storage::postgres
