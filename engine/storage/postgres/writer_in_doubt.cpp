#include <algorithm>
#include <chrono>
#include <unordered_map>
#include <vector>

#include "engine/observe/log.hpp"
#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statements.hpp"
#include "engine/storage/postgres/writer.hpp"

/// What became of a batch whose connection was lost (ADR 0007).
namespace heddle::storage::postgres {
namespace {

// A lost connection is resolved even if the operation's own deadline is over: better late than in
// doubt.
constexpr std::chrono::seconds kReadBackGrace{3};

}  // namespace

// Asks until it is answered what became of a lost batch. A repeat finds what the first one left:
// the number of the fence is the same.
Executed Writer::fence(Writes writes, std::int64_t number, base::Instant deadline) {
    std::vector<ThreadKey> in_order;
    for (const auto* operation : writes) {
        in_order.push_back(operation->write.key);
    }
    std::sort(in_order.begin(), in_order.end());
    BinaryArray keys{ElementType::int8};
    for (const auto key : in_order) {
        keys.add_int8(key);
    }
    Parameters parameters;
    parameters.add(std::move(keys)).add(writes.front()->engine);
    parameters.add(number).add(next_number());
    for (;;) {
        auto* connection = connect(deadline);
        if (connection == nullptr) {
            return Executed{Fate::lost, {}};
        }
        auto executed = connection->execute(kFence, parameters, deadline);
        const bool may_succeed = executed.fate == Fate::lost || executed.fate == Fate::retry ||
                                 executed.fate == Fate::blocked;
        if (!may_succeed || base::system_clock().now() >= deadline) {
            return executed;
        }
        let_through(executed.fate, deadline);
    }
}

// What became of a statement whose connection was lost? It was one transaction, so one thread that
// only we could have changed since (still ours, same epoch) tells for all: the number is there, or
// nothing was done, and because of the fence nothing will be.
// @return false if nothing was done and the statement may be repeated
bool Writer::read_back(Writes writes, std::int64_t number, base::Instant deadline) {
    const auto until = std::max(deadline, base::system_clock().now() + kReadBackGrace);
    const auto executed = fence(writes, number, until);
    if (executed.fate != Fate::done) {
        set_all(writes, error_of(Fate::lost));
        return true;
    }
    std::unordered_map<ThreadKey, Seen> seen;
    for (const auto row : executed.rows) {
        if (row[0].is_null()) {
            break;  // none of the threads is there
        }
        seen[row[0].as<ThreadKey>()] =
            Seen{row[1].as<Epoch>(), row[2].as<std::int64_t>(), EngineId{read_uuid(row[3])}};
    }
    for (const auto* operation : writes) {
        if (operation->write.if_expires_at_us != 0) {
            continue;  // may be refused alone
        }
        const auto at = seen.find(operation->write.key);
        if (at != seen.end() && at->second.epoch == operation->write.epoch &&
            at->second.owner == operation->engine && at->second.batch != number) {
            observe::log(observe::LogLevel::info, "postgres", "a lost batch was not stored: again");
            return false;
        }
    }
    for (auto* operation : writes) {
        const auto at = seen.find(operation->write.key);
        const auto* found = at == seen.end() ? nullptr : &at->second;
        if (!conclude(*operation, found, number, until)) {
            operation->outcome = error_of(Fate::lost);
        }
    }
    return true;
}

// @return false if nothing tells what became of it
bool Writer::conclude(WriteOperation& operation,
                      const Seen* seen,
                      std::int64_t number,
                      base::Instant deadline) {
    const auto& write = operation.write;
    if (seen != nullptr && seen->epoch == write.epoch) {
        // No longer ours: this statement released it, or an earlier one did and this was refused.
        operation.outcome = seen->batch == number ? base::ok() : Status{stale_error()};
        return true;
    }
    if (write.delete_thread) {
        operation.outcome = seen == nullptr ? base::ok() : Status{stale_error()};
        return true;
    }
    auto* connection = connect(deadline);
    return connection != nullptr && examine(operation, *connection, deadline);
}

// The thread has changed hands since: only a row that this write alone would have left can tell.
bool Writer::examine(WriteOperation& operation, Connection& connection, base::Instant deadline) {
    const auto& write = operation.write;
    Executed executed{Fate::internal, {}};
    if (!write.journal.empty()) {
        const auto& row = write.journal.front();
        executed = connection.execute(
            kHasJournal, Parameters{}.add(write.key).add(row.seq).add(row.checkpoint_id), deadline);
    } else if (!write.new_runs.empty()) {
        executed = connection.execute(
            kHasRun, Parameters{}.add(write.key).add(write.new_runs.front().id), deadline);
    }
    if (executed.fate != Fate::done) {
        return false;
    }
    operation.outcome = executed.rows.empty() ? Status{stale_error()} : base::ok();
    return true;
}

}  // namespace heddle::storage::postgres
