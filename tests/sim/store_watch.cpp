#include "tests/sim/store_watch.hpp"

#include <utility>

#include "engine/base/json.hpp"

namespace heddle::sim {
namespace {

using storage::RunStatus;

StoreWatch::Row row_of(const storage::JournalRow& row) {
    const auto head = base::parse_stored_json(row.head);
    StoreWatch::Row seen;
    seen.run = row.run_id;
    seen.step = row.step;
    if (head) {
        seen.is_input = head->value("source", std::string{}) == "input";
        const auto next = head->find("next");
        seen.next = next == head->end() ? 0 : next->size();
    }
    return seen;
}

bool may_follow(RunStatus from, RunStatus to) {
    return !storage::is_final(from) || from == to;
}

}  // namespace

void StoreWatch::registered(const storage::EngineId& engine) {
    beats_[engine] = world_.now();
    heard_[engine] = world_.now();
}

bool StoreWatch::is_alive(const storage::EngineId& engine) const {
    // The database's clock has whole microseconds.
    const auto at = [](Duration time) {
        return std::chrono::duration_cast<std::chrono::microseconds>(time);
    };
    const auto beat = beats_.find(engine);
    return beat != beats_.end() && at(world_.now()) - at(beat->second) <= lease_;
}

void StoreWatch::beaten(const storage::EngineId& engine, const base::Status& answer) {
    if (!answer) {
        lose_lease(engine);
        return;
    }
    if (!is_alive(engine)) {
        world_.fail("a lease that had passed was renewed");
    }
    beats_[engine] = world_.now();
}

void StoreWatch::heard(const storage::EngineId& engine,
                       Duration asked_at,
                       const base::Status& answer) {
    if (answer) {
        heard_[engine] = asked_at;
    } else if (world_.now() - heard_[engine] >= lease_ / 10 * 9) {  // by its own clock
        lose_lease(engine);
    }
}

// It gives its threads up, and knows of what it had begun that this was the store's fault: also of
// what it claims before it hears of it.
void StoreWatch::lose_lease(const storage::EngineId& engine) {
    for (const auto& thread : std::exchange(claims_[engine], {})) {
        spoiled(thread);
    }
    leaseless_.insert(engine);
}

void StoreWatch::took(const storage::EngineId& engine, const storage::ThreadId& thread) {
    if (leaseless_.contains(engine)) {
        spoiled(thread);
    } else {
        claims_[engine].insert(thread);
    }
}

void StoreWatch::claimed(const storage::EngineId& engine,
                         const storage::ThreadClaim& claim,
                         const base::Result<storage::ClaimOutcome>& outcome) {
    using Kind = storage::ClaimOutcome::Kind;
    if (!outcome || outcome->kind == Kind::missing || outcome->kind == Kind::owned_elsewhere) {
        return;
    }
    auto& thread = threads_[claim.thread_id];
    if (thread.owner && *thread.owner != engine) {
        if (is_alive(*thread.owner)) {
            world_.fail("the thread {} of a live engine was claimed", claim.thread_id.to_string());
        }
        ++takeovers_;
    }
    if (outcome->epoch <= thread.epoch) {
        world_.fail("a claim did not raise the epoch of thread {}", claim.thread_id.to_string());
    }
    thread.owner = engine;
    thread.epoch = outcome->epoch;
    took(engine, claim.thread_id);
}

void StoreWatch::created(const storage::EngineId& engine,
                         const storage::ThreadWrite& first,
                         const base::Result<storage::ThreadKey>& answer) {
    if (!answer) {
        if (!threads_.contains(first.thread_id)) {
            world_.fail("the thread {} was not made: {}", first.thread_id.to_string(),
                        answer.error().message);
        }
        return;
    }
    const auto [at, is_new] = threads_.try_emplace(first.thread_id);
    if (!is_new) {
        world_.fail("the thread {} was made twice", first.thread_id.to_string());
    }
    at->second.owner = engine;
    at->second.epoch = 1;
    took(engine, first.thread_id);
    auto write = first;
    write.epoch = 1;
    written(engine, write, base::ok());
}

void StoreWatch::written(const storage::EngineId& engine,
                         const storage::ThreadWrite& write,
                         const base::Status& answer) {
    const auto at = threads_.find(write.thread_id);
    const bool is_owner =
        at != threads_.end() && at->second.owner == engine && at->second.epoch == write.epoch;
    if (!answer) {
        const auto code = answer.error().code;
        stale_writes_ += code == base::ErrorCode::stale_epoch ? 1 : 0;
        if (code == base::ErrorCode::conflict || (is_owner && at != threads_.end())) {
            world_.fail("the owner's write for thread {} was refused: {}",
                        write.thread_id.to_string(), answer.error().message);
        }
        return;
    }
    if (!is_owner) {
        world_.fail("a write of epoch {} was accepted for thread {}, whose epoch is {}",
                    write.epoch, write.thread_id.to_string(),
                    at == threads_.end() ? 0 : at->second.epoch);
        return;
    }
    auto& thread = at->second;
    if (write.delete_thread) {
        for (const auto& [id, run] : thread.runs) {
            deleted_.insert(id);
            ever_deleted_.insert(id);
        }
        threads_.erase(at);
        return;
    }
    take_journal(thread, write);
    take_runs(thread, write);
    if (write.release) {
        thread.owner.reset();
    }
}

void StoreWatch::take_journal(Thread& thread, const storage::ThreadWrite& write) {
    auto& journal = thread.journal;
    if (write.rollback_to) {
        ++rollbacks_;
        journal.erase(journal.upper_bound(*write.rollback_to), journal.end());
    }
    for (const auto& row : write.journal) {
        const auto newest = journal.empty() ? storage::kNoSeq : journal.rbegin()->first;
        if (row.seq != newest + 1 || row.parent != newest) {
            world_.fail("thread {}: row {} with parent {} follows row {}",
                        write.thread_id.to_string(), row.seq, row.parent, newest);
        }
        if (row.base != row.seq && !journal.contains(row.base)) {
            world_.fail("thread {}: row {} rests on row {}, which is not there",
                        write.thread_id.to_string(), row.seq, row.base);
        }
        const auto seen = row_of(row);
        const bool is_first = journal.empty() || journal.rbegin()->second.run != seen.run;
        const auto run = thread.runs.find(seen.run);
        const bool is_known = run != thread.runs.end();
        if (is_known && storage::is_final(run->second.status)) {
            world_.fail("thread {}: row {} of a run that has ended", write.thread_id.to_string(),
                        row.seq);
        }
        journal.emplace(row.seq, seen);
        if (is_first && is_known) {
            thread.begun.push_back(run->second.tag);
        }
    }
    for (const auto& id : write.deleted_runs) {
        for (const auto& [seq, row] : journal) {
            if (row.run == id) {
                world_.fail("thread {}: run {} was deleted and row {} of it was kept",
                            write.thread_id.to_string(), id.to_string(), seq);
                return;
            }
        }
    }
}

void StoreWatch::take_runs(Thread& thread, const storage::ThreadWrite& write) {
    for (const auto& row : write.new_runs) {
        Run run;
        run.status = row.status;
        run.attempt = row.attempt;
        if (const auto kwargs = base::parse_stored_json(row.kwargs)) {
            const auto input = kwargs->value("input", base::Json::object());
            run.tag = input.value("plan", base::Json::object()).value("tag", std::string{});
            run.exit_durability = kwargs->value("durability", std::string{}) == "exit";
        }
        const auto [known, is_new] = run_of_tag_.emplace(run.tag, row.id);
        if (!is_new && known->second != row.id) {
            world_.fail("request {} made the runs {} and {}", run.tag, known->second.to_string(),
                        row.id.to_string());
        }
        ever_.insert(row.id);
        deleted_.erase(row.id);
        world_.note("stored run {} {} {} attempt {}", run.tag, row.id.to_string(),
                    to_string(run.status), run.attempt);
        runs_ended_ += storage::is_final(run.status) ? 1 : 0;
        for (const auto& journal : write.journal) {
            if (journal.run_id == row.id) {
                thread.begun.push_back(run.tag);
                break;
            }
        }
        thread.runs[row.id] = std::move(run);
    }
    for (const auto& update : write.run_updates) {
        const auto at = thread.runs.find(update.id);
        if (at == thread.runs.end()) {
            continue;
        }
        auto& run = at->second;
        if (!may_follow(run.status, update.status)) {
            world_.fail("run {} of {} ended as {} and then as {}", update.id.to_string(), run.tag,
                        to_string(run.status), to_string(update.status));
        }
        const bool is_handed_over = write.release && update.status == RunStatus::pending;
        if (update.attempt < run.attempt - (is_handed_over ? 1 : 0)) {
            world_.fail("run {}: attempt {} after attempt {}", run.tag, update.attempt,
                        run.attempt);
        }
        const auto attempts_max = attempts_max_ + spoiled_[write.thread_id];
        if (update.attempt > attempts_max) {
            world_.fail("run {}: attempt {} of at most {}", run.tag, update.attempt, attempts_max);
        }
        if (storage::is_final(update.status) && !storage::is_final(run.status)) {
            ++runs_ended_;
        }
        run.status = update.status;
        run.attempt = update.attempt;
        world_.note("stored run {} {} attempt {}", run.tag, to_string(run.status), run.attempt);
    }
    for (const auto& id : write.deleted_runs) {
        const auto at = thread.runs.find(id);
        if (at != thread.runs.end()) {
            world_.note("deleted run {}", at->second.tag);
            std::erase(thread.begun, at->second.tag);
            thread.runs.erase(at);
        }
        deleted_.insert(id);
        ever_deleted_.insert(id);
    }
}

const StoreWatch::Thread* StoreWatch::find_thread(const storage::ThreadId& thread) const {
    const auto at = threads_.find(thread);
    return at == threads_.end() ? nullptr : &at->second;
}

const StoreWatch::Run* StoreWatch::find_run(const storage::ThreadId& thread,
                                            const storage::RunId& run) const {
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return nullptr;
    }
    const auto at = found->runs.find(run);
    return at == found->runs.end() ? nullptr : &at->second;
}

std::string StoreWatch::unfinished() const {
    for (const auto& [id, thread] : threads_) {
        for (const auto& [run_id, run] : thread.runs) {
            if (!storage::is_final(run.status)) {
                return fmt::format("run {} ({}) of thread {} is {}", run.tag, run_id.to_string(),
                                   id.to_string(), to_string(run.status));
            }
        }
    }
    return {};
}

void StoreWatch::compare(storage::Store& store) {
    constexpr std::int32_t kAll = 1000;
    for (const auto& [id, thread] : threads_) {
        store.list_journal(id, storage::kNoSeq, kAll, [&, key = &id, held = &thread](auto rows) {
            bool same = rows && rows->size() == held->journal.size();
            for (std::size_t i = 0; same && i < rows->size(); ++i) {
                const auto row = held->journal.find((*rows)[i].seq);
                same = row != held->journal.end() && row->second.run == (*rows)[i].run_id;
            }
            if (!same) {
                world_.fail("the journal of thread {} is not what was written", key->to_string());
            }
        });
        for (const auto& [run_id, run] : thread.runs) {
            store.load_run(id, run_id, [&, held = &run](auto row) {
                if (!row || row->status != held->status || row->attempt != held->attempt) {
                    world_.fail("run {} is not as it was written", held->tag);
                }
            });
        }
    }
}

}  // namespace heddle::sim
