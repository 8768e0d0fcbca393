#include "engine/storage/memory/memory_database.hpp"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "engine/base/json.hpp"

namespace heddle::storage::memory {
namespace {

base::Error not_found(const char* what) {
    return base::Error{base::ErrorCode::not_found, std::string{what} + " not found"};
}

bool is_before(const ThreadRow& a, const ThreadRow& b, ThreadFilter::SortBy by) {
    switch (by) {
        case ThreadFilter::SortBy::thread_id:
            return a.id < b.id;
        case ThreadFilter::SortBy::status:
            return std::tie(a.status, a.id) < std::tie(b.status, b.id);
        case ThreadFilter::SortBy::created_at:
            return std::tie(a.created_at_us, a.id) < std::tie(b.created_at_us, b.id);
        case ThreadFilter::SortBy::updated_at:
            return std::tie(a.updated_at_us, a.id) < std::tie(b.updated_at_us, b.id);
    }
    return false;
}

bool is_older(const RunRow& a, const RunRow& b) {
    return std::tie(a.created_at_us, a.id) < std::tie(b.created_at_us, b.id);
}

// The page [offset, offset + limit) of what is there.
template <class T>
void cut_page(std::vector<T>& rows, std::int32_t limit, std::int32_t offset) {
    const auto from = std::min(rows.size(), static_cast<std::size_t>(offset));
    rows.erase(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(from));
    if (rows.size() > static_cast<std::size_t>(limit)) {
        rows.resize(static_cast<std::size_t>(limit));
    }
}

}  // namespace

// ---- engines

bool Database::is_alive(const Engine& engine, base::Duration lease) const {
    return engine.heartbeat_at_us + base::microseconds(lease) >= clock_.unix_us();
}

void Database::register_engine(const EngineRow& engine) {
    const std::lock_guard lock{mutex_};
    engines_[engine.id] = Engine{engine, clock_.unix_us()};
}

Status Database::heartbeat(const EngineId& engine, bool draining, base::Duration lease) {
    const std::lock_guard lock{mutex_};
    const auto at = engines_.find(engine);
    if (at == engines_.end()) {
        return not_found("engine");
    }
    if (!is_alive(at->second, lease)) {
        return base::Error{base::ErrorCode::stale_epoch, "the engine's lease has passed"};
    }
    at->second.heartbeat_at_us = clock_.unix_us();
    at->second.row.draining = draining;
    return base::ok();
}

void Database::unregister_engine(const EngineId& engine) {
    const std::lock_guard lock{mutex_};
    engines_.erase(engine);
}

std::vector<EngineRow> Database::list_engines(base::Duration lease) const {
    const std::lock_guard lock{mutex_};
    std::vector<EngineRow> rows;
    for (const auto& [id, engine] : engines_) {
        if (is_alive(engine, lease)) {
            rows.push_back(engine.row);
        }
    }
    std::sort(rows.begin(), rows.end(),
              [](const EngineRow& a, const EngineRow& b) { return a.id < b.id; });
    return rows;
}

// ---- ownership

bool Database::is_owned_by_another(const Thread& thread,
                                   const EngineId& engine,
                                   base::Duration lease) const {
    if (!thread.owner || *thread.owner == engine) {
        return false;
    }
    const auto owner = engines_.find(*thread.owner);
    return owner != engines_.end() && is_alive(owner->second, lease);
}

Database::Thread& Database::insert_thread(const ThreadClaim& claim) {
    auto& thread = threads_[claim.thread_id];
    auto& row = thread.row;
    row.key = ++last_key_;
    row.id = claim.thread_id;
    row.metadata = claim.metadata;
    row.created_at_us = clock_.unix_us();
    row.updated_at_us = row.created_at_us;
    set_ttl(row, claim.ttl);
    thread_of_key_[row.key] = row.id;
    return thread;
}

Result<ClaimOutcome> Database::claim(const EngineId& engine,
                                     const ThreadClaim& claim,
                                     base::Duration lease) {
    const std::lock_guard lock{mutex_};
    ClaimOutcome outcome;
    auto at = threads_.find(claim.thread_id);
    if (at == threads_.end()) {
        if (!claim.create_if_missing) {
            return outcome;
        }
        (void)insert_thread(claim);
        at = threads_.find(claim.thread_id);
        outcome.kind = ClaimOutcome::Kind::created;
    } else if (is_owned_by_another(at->second, engine, lease)) {
        outcome.kind = ClaimOutcome::Kind::owned_elsewhere;
        outcome.owner = *at->second.owner;
        outcome.owner_endpoint = engines_.at(outcome.owner).row.endpoint;
        return outcome;
    } else {
        outcome.kind = ClaimOutcome::Kind::claimed;
    }
    auto& thread = at->second;
    thread.owner = engine;
    outcome.epoch = ++thread.epoch;
    outcome.thread = thread.row;
    for (const auto& [id, run] : thread.runs) {
        if (!is_final(run.status)) {
            outcome.unfinished_runs.push_back(run);
        }
    }
    std::sort(outcome.unfinished_runs.begin(), outcome.unfinished_runs.end(), is_older);
    return outcome;
}

std::vector<ThreadId> Database::find_orphans(std::int32_t limit, base::Duration lease) const {
    const std::lock_guard lock{mutex_};
    std::vector<ThreadId> orphans;
    for (const auto& [id, thread] : threads_) {
        if (orphans.size() >= static_cast<std::size_t>(limit)) {
            break;
        }
        const auto is_unfinished = [](const auto& run) { return !is_final(run.second.status); };
        // The nil engine is nobody: every live owner is another one.
        if (!is_owned_by_another(thread, EngineId{}, lease) &&
            std::any_of(thread.runs.begin(), thread.runs.end(), is_unfinished)) {
            orphans.push_back(id);
        }
    }
    return orphans;
}

// ---- writing

Status Database::check_conflicts(const Thread& thread, const ThreadWrite& write) const {
    const auto conflict = [](const char* what) {
        return base::Error{base::ErrorCode::conflict, std::string{what} + " exists already"};
    };
    for (auto row = write.journal.begin(); row != write.journal.end(); ++row) {
        const auto is_same = [row](const JournalRow& other) { return other.seq == row->seq; };
        if (thread.journal.contains(row->seq) || std::any_of(write.journal.begin(), row, is_same)) {
            return conflict("journal row");
        }
    }
    for (auto run = write.new_runs.begin(); run != write.new_runs.end(); ++run) {
        const auto is_same = [run](const RunRow& other) { return other.id == run->id; };
        if (thread_of_run_.contains(run->id) || std::any_of(write.new_runs.begin(), run, is_same)) {
            return conflict("run");
        }
    }
    return base::ok();
}

void Database::apply(Thread& thread, const ThreadWrite& write) {
    auto& row = thread.row;
    if (write.prune) {
        prune(thread, *write.prune);
        return;
    }
    row.updated_at_us = clock_.unix_us();
    touch(row);
    if (write.ttl) {
        set_ttl(row, write.ttl);
        row.expires_at_us =
            std::max(row.expires_at_us, clock_.unix_us() + base::microseconds(write.ttl_kept));
    }
    if (write.status) {
        row.status = *write.status;
    }
    if (write.metadata) {
        row.metadata = *write.metadata;
    }
    if (write.interrupts) {
        row.interrupts = *write.interrupts;
    }
    if (write.rollback_to) {
        thread.journal.erase(thread.journal.upper_bound(*write.rollback_to), thread.journal.end());
        row.head = *write.rollback_to;
        row.first = std::min(row.first, row.head + 1);
        std::erase_if(thread.tool_calls,
                      [&write](const auto& call) { return call.second.seq > *write.rollback_to; });
    }
    for (const auto& step : write.journal) {
        thread.journal.emplace(step.seq, step);
    }
    if (!write.journal.empty()) {
        row.head = write.journal.back().seq;
    }
    for (const auto& run : write.new_runs) {
        auto& added = thread.runs.emplace(run.id, run).first->second;
        added.thread_id = row.id;
        thread_of_run_.emplace(run.id, row.id);
    }
    for (const auto& update : write.run_updates) {
        const auto at = thread.runs.find(update.id);
        if (at == thread.runs.end()) {
            continue;
        }
        at->second.status = update.status;
        at->second.attempt = update.attempt;
        at->second.error = update.error;
        at->second.updated_at_us = row.updated_at_us;
    }
    for (const auto& run : write.deleted_runs) {
        if (thread.runs.erase(run) != 0) {
            thread_of_run_.erase(run);
        }
    }
    std::erase_if(thread.tool_calls,
                  [&write](const auto& call) { return call.second.seq <= write.tool_calls_done; });
    for (const auto& call : write.tool_calls) {
        thread.tool_calls[{call.seq, call.task_id, call.number}] = call;
    }
    if (write.release) {
        thread.owner.reset();
    }
}

Result<ThreadKey> Database::create(const EngineId& engine,
                                   const ThreadClaim& claim,
                                   ThreadWrite first) {
    const std::lock_guard lock{mutex_};
    if (threads_.contains(claim.thread_id)) {
        return base::Error{base::ErrorCode::conflict, "the thread exists"};
    }
    if (auto checked = check_conflicts(Thread{}, first); !checked) {
        return std::move(checked).error();
    }
    auto& thread = insert_thread(claim);
    thread.owner = engine;
    thread.epoch = 1;
    first.key = thread.row.key;
    apply(thread, first);
    return first.key;
}

Status Database::write(const EngineId& engine, const ThreadWrite& write) {
    const std::lock_guard lock{mutex_};
    const auto key = thread_of_key_.find(write.key);
    if (key == thread_of_key_.end()) {
        return not_found("thread");
    }
    auto& thread = threads_.at(key->second);
    if (thread.epoch != write.epoch || thread.owner != engine) {
        return base::Error{base::ErrorCode::stale_epoch, "another engine has claimed the thread"};
    }
    if (write.delete_thread) {
        if (write.if_expires_at_us != 0 && thread.row.expires_at_us != write.if_expires_at_us) {
            return base::Error{base::ErrorCode::stale_epoch, "the thread expires at another time"};
        }
        for (const auto& [id, run] : thread.runs) {
            thread_of_run_.erase(id);
        }
        threads_.erase(key->second);
        thread_of_key_.erase(key);
        return base::ok();
    }
    if (auto checked = check_conflicts(thread, write); !checked) {
        return checked;
    }
    apply(thread, write);
    return base::ok();
}

// ---- retention

void Database::set_ttl(ThreadRow& row, const std::optional<ThreadTtl>& ttl) const {
    row.ttl = ttl;
    row.expires_at_us = ttl ? clock_.unix_us() + base::microseconds(ttl->after) : 0;
}

// Moves the end on by a tenth of the time to live at least, or not at all: in a database with
// indexes it is then seldom that a write touches one.
void Database::touch(ThreadRow& row) const {
    if (!row.ttl) {
        return;
    }
    const auto after = base::microseconds(row.ttl->after);
    const auto end = clock_.unix_us() + after;
    if (row.expires_at_us < end - after / 10) {
        row.expires_at_us = end;
    }
}

void Database::prune(Thread& thread, const JournalPrune& prune) {
    auto& journal = thread.journal;
    auto& row = thread.row;
    row.first = std::max(row.first, prune.first);
    if (const auto at = journal.find(prune.first); at != journal.end() && !prune.snapshot.empty()) {
        at->second.data = prune.snapshot;
    }
    journal.erase(journal.begin(), journal.lower_bound(prune.delete_below));
    if (prune.stop_ttl) {
        row.expires_at_us = 0;
    }
    const auto since = clock_.unix_us() - base::microseconds(prune.runs_kept);
    std::erase_if(thread.runs, [&](const auto& each) {
        const auto& [id, run] = each;
        const bool goes = is_final(run.status) && run.updated_at_us < since &&
                          std::none_of(journal.lower_bound(row.first), journal.end(),
                                       [&](const auto& at) { return at.second.run_id == id; });
        if (goes) {
            thread_of_run_.erase(id);
        }
        return goes;
    });
}

std::vector<ExpiredThread> Database::find_expired(const EngineId& engine,
                                                  std::int32_t limit,
                                                  base::Duration lease) const {
    const std::lock_guard lock{mutex_};
    std::vector<ExpiredThread> found;
    const auto is_unfinished = [](const auto& run) { return !is_final(run.second.status); };
    for (const auto& [id, thread] : threads_) {
        const auto& row = thread.row;
        if (row.expires_at_us == 0 || row.expires_at_us > clock_.unix_us() ||
            is_owned_by_another(thread, engine, lease) ||
            std::any_of(thread.runs.begin(), thread.runs.end(), is_unfinished)) {
            continue;
        }
        found.push_back({row.key, id, thread.epoch, thread.owner == engine, row.ttl->strategy,
                         row.expires_at_us, row.head - row.first + 1});
    }
    std::sort(found.begin(), found.end(), [](const ExpiredThread& a, const ExpiredThread& b) {
        return std::tie(a.expires_at_us, a.key) < std::tie(b.expires_at_us, b.key);
    });
    cut_page(found, limit, 0);
    return found;
}

bool Database::is_free(const Key& key) const {
    if (key.expires_at_us > clock_.unix_us()) {
        return false;
    }
    const auto thread = thread_of_run_.find(key.run);
    return thread == thread_of_run_.end() ||
           is_final(threads_.at(thread->second).runs.at(key.run).status);
}

KeyHolder Database::claim_key(const KeyClaim& claim) {
    const std::lock_guard lock{mutex_};
    const auto [at, is_new] = keys_.try_emplace(claim.key);
    auto& key = at->second;
    if (is_new || is_free(key)) {
        key = Key{claim.thread, claim.run, clock_.unix_us() + base::microseconds(claim.kept)};
        return KeyHolder{key.thread, key.run, true};
    }
    return KeyHolder{key.thread, key.run, false};
}

std::int32_t Database::delete_expired_keys(std::int32_t limit) {
    const std::lock_guard lock{mutex_};
    std::int32_t deleted = 0;
    for (auto at = keys_.begin(); at != keys_.end() && deleted < limit;) {
        if (is_free(at->second)) {
            at = keys_.erase(at);
            ++deleted;
        } else {
            ++at;
        }
    }
    return deleted;
}

// ---- reading

const Database::Thread* Database::find_thread(const ThreadId& thread) const {
    const auto at = threads_.find(thread);
    return at == threads_.end() ? nullptr : &at->second;
}

Result<ThreadRow> Database::load_thread(const ThreadId& thread) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return not_found("thread");
    }
    return found->row;
}

Result<std::vector<JournalRow>> Database::chain(const Thread& thread, Seq at) const {
    const auto last = thread.journal.find(at);
    if (last == thread.journal.end() || at < thread.row.first) {
        return not_found("checkpoint");
    }
    const auto first = std::max(last->second.base, thread.row.first);
    std::vector<JournalRow> rows;
    for (auto row = thread.journal.lower_bound(first); row != std::next(last); ++row) {
        rows.push_back(row->second);
        rows.back().base = std::max(rows.back().base, thread.row.first);
    }
    return rows;
}

Result<std::vector<JournalRow>> Database::load_chain(const ThreadId& thread, Seq at) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return not_found("thread");
    }
    if (at != kNoSeq) {
        return chain(*found, at);
    }
    if (found->row.head == kNoSeq) {
        return std::vector<JournalRow>{};
    }
    return chain(*found, found->row.head);
}

Result<std::vector<JournalRow>> Database::load_chain_of(const ThreadId& thread,
                                                        const CheckpointId& checkpoint) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return not_found("thread");
    }
    const auto row = std::find_if(
        found->journal.begin(), found->journal.end(),
        [&checkpoint](const auto& entry) { return entry.second.checkpoint_id == checkpoint; });
    if (row == found->journal.end()) {
        return not_found("checkpoint");
    }
    return chain(*found, row->first);
}

Result<std::vector<JournalRow>> Database::list_journal(const ThreadId& thread,
                                                       Seq before,
                                                       std::int32_t limit) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return not_found("thread");
    }
    const auto& journal = found->journal;
    const auto end = before == kNoSeq ? journal.end() : journal.lower_bound(before);
    std::vector<JournalRow> rows;
    for (auto row = std::make_reverse_iterator(end);
         row != journal.rend() && row->first >= found->row.first &&
         rows.size() < static_cast<std::size_t>(limit);
         ++row) {
        rows.push_back(row->second);
        rows.back().data.clear();
        rows.back().base = std::max(rows.back().base, found->row.first);
    }
    return rows;
}

std::vector<ToolCallRow> Database::load_tool_calls(const ThreadId& thread, Seq seq) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    std::vector<ToolCallRow> rows;
    if (found == nullptr) {
        return rows;
    }
    for (const auto& [key, call] : found->tool_calls) {
        if (call.seq == seq) {
            rows.push_back(call);
        }
    }
    return rows;
}

Result<RunRow> Database::load_run(const ThreadId& thread, const RunId& run) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return not_found("thread");
    }
    const auto at = found->runs.find(run);
    if (at == found->runs.end()) {
        return not_found("run");
    }
    return at->second;
}

Result<RunRow> Database::find_run(const RunId& run) const {
    const std::lock_guard lock{mutex_};
    const auto thread = thread_of_run_.find(run);
    if (thread == thread_of_run_.end()) {
        return not_found("run");
    }
    return threads_.at(thread->second).runs.at(run);
}

Result<std::vector<RunRow>> Database::list_runs(const ThreadId& thread,
                                                const RunFilter& filter) const {
    const std::lock_guard lock{mutex_};
    const auto* found = find_thread(thread);
    if (found == nullptr) {
        return not_found("thread");
    }
    std::vector<RunRow> rows;
    for (const auto& [id, run] : found->runs) {
        if (!filter.status || run.status == *filter.status) {
            rows.push_back(run);
        }
    }
    std::sort(rows.begin(), rows.end(),
              [](const RunRow& a, const RunRow& b) { return is_older(b, a); });
    cut_page(rows, filter.limit, filter.offset);
    return rows;
}

std::vector<const Database::Thread*> Database::matching(const ThreadFilter& filter) const {
    std::optional<base::Json> part;
    if (!filter.metadata_contains.empty()) {
        auto parsed = base::parse_stored_json(filter.metadata_contains);
        if (!parsed) {
            return {};
        }
        part = std::move(parsed).value();
    }
    std::vector<const Thread*> found;
    for (const auto& [id, thread] : threads_) {
        if (thread.row.ttl && thread.row.ttl->strategy == TtlStrategy::temporary) {
            continue;
        }
        if (!filter.ids.empty() &&
            std::find(filter.ids.begin(), filter.ids.end(), id) == filter.ids.end()) {
            continue;
        }
        if (filter.status && thread.row.status != *filter.status) {
            continue;
        }
        if (part) {
            const auto whole = base::parse_stored_json(thread.row.metadata);
            if (!whole || !base::json_contains(*whole, *part)) {
                continue;
            }
        }
        found.push_back(&thread);
    }
    return found;
}

std::vector<ThreadRow> Database::search_threads(const ThreadFilter& filter) const {
    const std::lock_guard lock{mutex_};
    std::vector<ThreadRow> rows;
    for (const auto* thread : matching(filter)) {
        rows.push_back(thread->row);
    }
    std::sort(rows.begin(), rows.end(), [&filter](const ThreadRow& a, const ThreadRow& b) {
        return filter.ascending ? is_before(a, b, filter.sort_by) : is_before(b, a, filter.sort_by);
    });
    cut_page(rows, filter.limit, filter.offset);
    return rows;
}

std::int64_t Database::count_threads(const ThreadFilter& filter) const {
    const std::lock_guard lock{mutex_};
    return std::min(static_cast<std::int64_t>(matching(filter).size()), filter.count_max);
}

}  // namespace heddle::storage::memory
