#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "engine/base/clock.hpp"
#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statements.hpp"
#include "engine/storage/postgres/writer.hpp"

/// The claims of a batch. A claim may be repeated at any time (it only raises the epoch again), so
/// a lost connection needs no reading back; its number keeps a lost one from coming after a repeat.
namespace heddle::storage::postgres {
namespace {

// Rounds in which threads come, go and change hands under our eyes before we give up.
constexpr int kRoundsMax = 10;

void set_all(std::span<ClaimOperation* const> claims, const base::Error& error) {
    for (auto* operation : claims) {
        if (!operation->is_settled) {
            operation->outcome = error;
        }
        operation->is_settled = true;
    }
}

}  // namespace

void Writer::claim(Claims claims, base::Instant deadline) {
    std::vector<ClaimOperation*> open{claims.begin(), claims.end()};
    // Every engine takes its locks in the same order.
    std::sort(open.begin(), open.end(), [](const ClaimOperation* a, const ClaimOperation* b) {
        return a->claim.thread_id < b->claim.thread_id;
    });
    bool is_in_doubt = false;
    for (int round = 0; round < kRoundsMax && !open.empty(); ++round) {
        auto* connection = connect(deadline);
        if (connection == nullptr || base::system_clock().now() >= deadline) {
            break;
        }
        Fate fate = give_keys(open, deadline) ? try_claim(open, *connection, deadline) : Fate::lost;
        if (fate == Fate::bad_data && open.size() > 1) {
            const Claims all{open};
            claim(all.first(open.size() / 2), deadline);
            claim(all.subspan(open.size() / 2), deadline);
            return;
        }
        if (fate == Fate::done) {
            fate = find_owners(open, *connection, deadline);
        }
        let_through(fate, deadline);
        is_in_doubt = is_in_doubt || fate == Fate::lost;
        // A conflict: an attempt whose connection was lost inserted the same key in the same
        // moment. Now it has ended, and the next round finds what it left.
        if (fate != Fate::done && fate != Fate::lost && fate != Fate::retry &&
            fate != Fate::blocked && fate != Fate::conflict) {
            set_all(open, error_of(fate));
            return;
        }
        std::erase_if(open, [](const ClaimOperation* operation) { return operation->is_settled; });
    }
    set_all(open, is_in_doubt ? base::Error{base::ErrorCode::in_doubt, "connection lost in a claim"}
                              : error_of(Fate::unavailable));
}

// The key of a thread that is created is made here, from a block of the sequence, so that it costs
// no round trip of its own and tells afterwards who created the thread.
bool Writer::give_key(ThreadKey& key, base::Instant deadline) {
    if (key != 0) {
        return true;
    }
    if (next_key_ == keys_end_) {
        const auto executed = connection_->execute(kNextKeys, Parameters{}, deadline);
        if (executed.fate != Fate::done) {
            return false;
        }
        next_key_ = executed.rows[0][0].as<ThreadKey>();
        keys_end_ = next_key_ + kKeyBlock;
    }
    key = next_key_++;
    return true;
}

bool Writer::give_keys(Claims claims, base::Instant deadline) {
    return std::all_of(claims.begin(), claims.end(), [&](ClaimOperation* operation) {
        return !operation->claim.create_if_missing || give_key(operation->new_key, deadline);
    });
}

bool Writer::give_keys(Writes writes, base::Instant deadline) {
    return std::all_of(writes.begin(), writes.end(), [&](WriteOperation* operation) {
        return !operation->create || give_key(operation->write.key, deadline);
    });
}

Fate Writer::try_claim(Claims claims, Connection& connection, base::Instant deadline) {
    BinaryArray new_id{ElementType::uuid};
    BinaryArray new_metadata{ElementType::text};
    BinaryArray new_key{ElementType::int8};
    BinaryArray new_ttl{ElementType::int8};
    BinaryArray new_strategy{ElementType::int2};
    BinaryArray old_id{ElementType::uuid};
    bool is_durable = false;
    std::unordered_map<ThreadId, ClaimOperation*> by_id;
    for (auto* operation : claims) {
        const auto& claim = operation->claim;
        by_id[claim.thread_id] = operation;
        is_durable = is_durable || claim.durable;
        if (claim.create_if_missing) {
            new_id.add(claim.thread_id);
            new_metadata.add_bytes(claim.metadata);
            new_key.add_int8(operation->new_key);
            if (claim.ttl) {
                new_ttl.add_int8(base::microseconds(claim.ttl->after));
                new_strategy.add_int2(static_cast<std::int16_t>(claim.ttl->strategy));
            } else {
                new_ttl.add_null();
                new_strategy.add_null();
            }
        } else {
            old_id.add(claim.thread_id);
        }
    }
    Parameters parameters;
    parameters.add(claims.front()->engine).add(base::unix_microseconds());
    parameters.add(base::microseconds(limits_.lease)).add(std::move(new_id));
    parameters.add(std::move(new_metadata)).add(std::move(new_key)).add(std::move(old_id));
    parameters.add_bool(is_durable).add(next_number());
    parameters.add(std::move(new_ttl)).add(std::move(new_strategy));
    const auto executed = connection.execute(kClaim, parameters, deadline);
    if (executed.fate != Fate::done) {
        return executed.fate;
    }
    std::vector<ClaimOperation*> with_past;
    std::vector<ClaimOperation*> claimed;
    for (const auto row : executed.rows) {
        auto thread = read_thread(row);
        auto* operation = by_id.at(thread.id);
        ClaimOutcome outcome;
        outcome.kind = thread.key == operation->new_key ? ClaimOutcome::Kind::created
                                                        : ClaimOutcome::Kind::claimed;
        outcome.epoch = row[kThreadColumns].as<Epoch>();
        outcome.thread = std::move(thread);
        if (outcome.epoch > 1) {
            with_past.push_back(operation);
        }
        operation->outcome = std::move(outcome);
        claimed.push_back(operation);
    }
    const auto fate = add_open_runs(with_past, connection, deadline);
    if (fate != Fate::done) {
        return fate;
    }
    for (auto* operation : claimed) {
        operation->is_settled = true;
    }
    return Fate::done;
}

// A statement of its own, after the claim: only now is it certain that the former owner commits
// nothing more. (Within the claim it would see the state of before it waited for the row.)
Fate Writer::add_open_runs(Claims claims, Connection& connection, base::Instant deadline) {
    if (claims.empty()) {
        return Fate::done;
    }
    BinaryArray keys{ElementType::int8};
    std::unordered_map<ThreadKey, ClaimOutcome*> by_key;
    for (auto* operation : claims) {
        auto& outcome = *operation->outcome;
        keys.add_int8(outcome.thread.key);
        by_key[outcome.thread.key] = &outcome;
    }
    Parameters parameters;
    parameters.add(std::move(keys));
    const auto executed = connection.execute(kOpenRuns, parameters, deadline);
    if (executed.fate != Fate::done) {
        return executed.fate;
    }
    for (const auto row : executed.rows) {
        auto& outcome = *by_key.at(row[kRunColumns].as<ThreadKey>());
        outcome.unfinished_runs.push_back(read_run(row, outcome.thread.id));
    }
    return Fate::done;
}

// For what was not claimed: missing, or owned by somebody alive. What is neither was let go or
// deleted in between, stays open and is tried again.
Fate Writer::find_owners(Claims claims, Connection& connection, base::Instant deadline) {
    BinaryArray ids{ElementType::uuid};
    std::unordered_map<ThreadId, ClaimOperation*> unclaimed;
    for (auto* operation : claims) {
        if (operation->is_settled) {
            continue;
        }
        ids.add(operation->claim.thread_id);
        unclaimed[operation->claim.thread_id] = operation;
    }
    if (unclaimed.empty()) {
        return Fate::done;
    }
    Parameters parameters;
    parameters.add(std::move(ids)).add(base::microseconds(limits_.lease));
    const auto executed = connection.execute(kOwners, parameters, deadline);
    if (executed.fate != Fate::done) {
        return executed.fate;
    }
    for (const auto row : executed.rows) {
        const auto at = unclaimed.find(ThreadId{read_uuid(row[0])});
        auto* operation = at->second;
        unclaimed.erase(at);
        const EngineId owner{read_uuid(row[1])};
        if (row[2].is_null() || owner == operation->engine) {
            continue;  // free, or a write of ours has overtaken the claim
        }
        ClaimOutcome outcome;
        outcome.kind = ClaimOutcome::Kind::owned_elsewhere;
        outcome.owner = owner;
        outcome.owner_endpoint = read_text(row[2]);
        operation->outcome = std::move(outcome);
        operation->is_settled = true;
    }
    for (const auto& [id, operation] : unclaimed) {
        if (operation->claim.create_if_missing) {
            continue;
        }
        operation->outcome = ClaimOutcome{};
        operation->is_settled = true;
    }
    return Fate::done;
}

}  // namespace heddle::storage::postgres
