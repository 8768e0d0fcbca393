#include "engine/scheduler/sessions.hpp"

#include <algorithm>
#include <utility>

#include "engine/observe/log.hpp"

namespace heddle::scheduler {
namespace {

constexpr base::Duration kClaimRetryWait = std::chrono::milliseconds{200};
constexpr base::Duration kRecoverWait = std::chrono::seconds{1};
// What is in doubt may be carried out so much later. A thread that is claimed or made then belongs
// to this engine, which lives, so that nobody else looks for its runs.
constexpr base::Duration kLateMax = std::chrono::minutes{2};
constexpr base::Duration kLateWaitMax = std::chrono::seconds{4};
// Threads looked after at once. Whoever asks for one that found no place here claims it anew.
constexpr std::size_t kRecoveringMax = 10'000;
constexpr base::Duration kLineRecheck = std::chrono::seconds{1};
constexpr std::size_t kEvictScan = 8;
// Of these nobody tries to make the thread anew. Some 100 bytes each.
constexpr std::size_t kEvictedKnownMax = 65'536;
constexpr base::Duration kFreeEndedWait = std::chrono::seconds{1};
constexpr std::size_t kFreeEndedAtOnce = 32;

base::Error without_lease() {
    return {base::ErrorCode::unavailable, "this engine has no lease now"};
}

}  // namespace

void ShardScheduler::Sessions::Evicted::add(const base::ThreadId& thread) {
    newer_.insert(thread);
    if (newer_.size() >= kEvictedKnownMax / 2) {
        older_ = std::exchange(newer_, {});
    }
}

ShardScheduler::Sessions::Sessions(base::Shard& shard,
                                   storage::Store& store,
                                   const Catalog& catalog,
                                   observe::Metrics& metrics,
                                   SchedulerLimits limits,
                                   const Lease& lease)
    : limits_{limits},
      context_{shard,
               store,
               catalog,
               metrics,
               limits_,
               lease,
               [this](const base::ThreadId& thread, bool again) { forget(thread, again); },
               [this](const RunHandle& run) { keep_ended(run); },
               [this] { evict_soon(); }} {}

// NOLINTNEXTLINE: see RunHandle
std::shared_ptr<ThreadSession> ShardScheduler::Sessions::begin(const base::ThreadId& thread,
                                                               OpenOptions options) {
    if (leaving_ || context_.lease.is_over() || sessions_.contains(thread) ||
        opening_.contains(thread) || evicted_.contains(thread)) {
        return nullptr;
    }
    storage::ThreadClaim fresh;
    fresh.thread_id = thread;
    fresh.create_if_missing = true;
    fresh.metadata = std::move(options.metadata);
    fresh.ttl = options.ttl;
    auto session = std::make_shared<ThreadSession>(context_, std::move(fresh));
    insert(thread, session);
    return session;
}

base::Task<base::Result<ShardScheduler::Sessions::Opened>> ShardScheduler::Sessions::open(
    base::ThreadId thread, OpenOptions options) {
    if (context_.lease.is_over()) {
        // What it knows of its threads may be old, and what it claims is anybody's.
        co_return without_lease();
    }
    if (!opening_.contains(thread)) {
        if (auto session = find(thread)) {
            by_use_.splice(by_use_.begin(), by_use_, sessions_.at(thread).at);
            co_return Opened{std::move(session), false};
        }
        opening_.emplace(thread, std::make_shared<Opening>());
    }
    // First come, first served, also for whoever arrives between the claim's end and the moment
    // when the first of those who waited for it goes on: runs are accepted in order of arrival.
    options.waits_until = base::system_clock().now() + limits_.owner_wait_max;
    const auto line = opening_.at(thread);
    const auto ticket = line->tickets++;
    while (line->serving != ticket) {
        co_await line->changed.wait(base::system_clock().now() + kLineRecheck);
    }
    auto opened = co_await open_in_turn(thread, std::move(options), *line);
    ++line->serving;
    line->changed.notify_all();
    if (line->serving == line->tickets) {
        opening_.erase(thread);
    }
    co_return opened;
}

base::Task<base::Result<ShardScheduler::Sessions::Opened>> ShardScheduler::Sessions::open_in_turn(
    base::ThreadId thread, OpenOptions options, Opening& line) {
    if (auto session = find(thread)) {
        co_return Opened{std::move(session), false};
    }
    if (leaving_) {
        co_return base::Error{base::ErrorCode::unavailable, "this engine leaves"};
    }
    if (line.failed) {
        co_return *line.failed;
    }
    const auto leases_lost = leases_lost_;
    auto outcome = co_await claim(thread, std::move(options));
    if (outcome && (leases_lost != leases_lost_ || context_.lease.is_over())) {
        // Claimed under an id that may be dead: others find it then, and we if it is not.
        recover_after(thread, kRecoverWait, true);
        co_return without_lease();
    }
    if (!outcome) {
        auto error = std::move(outcome).error();
        const bool is_in_doubt = error.code == base::ErrorCode::in_doubt;
        if (is_in_doubt) {
            // Nothing of the caller's is stored yet: who asks again does no harm.
            error.code = base::ErrorCode::unavailable;
        }
        // What depends on the caller's options each finds out for itself; a store that does not
        // answer is waited for once, not once for everybody in the line.
        if (error.code != base::ErrorCode::not_found &&
            error.code != base::ErrorCode::owned_elsewhere) {
            line.failed = error;
            // It may have been carried out all the same, and then the thread, with what it has
            // unfinished, is this living engine's and nobody else will look for it.
            recover_after(thread, kRecoverWait, is_in_doubt);
        }
        co_return error;
    }
    const bool created = outcome->kind == storage::ClaimOutcome::Kind::created;
    auto unfinished = std::exchange(outcome->unfinished_runs, {});
    auto session = std::make_shared<ThreadSession>(context_, std::move(*outcome));
    insert(thread, session);
    session->resume(std::move(unfinished));
    if (leaving_) {
        session->hand_over();
    }
    co_return Opened{std::move(session), created};
}

base::Task<base::Result<ShardScheduler::Sessions::Opened>> ShardScheduler::Sessions::open_existing(
    base::ThreadId thread) {
    // Not a coroutine: g++ 12 destroys an aggregate temporary of a co_await expression twice.
    OpenOptions options;
    return open(thread, std::move(options));
}

base::Task<base::Result<storage::ClaimOutcome>> ShardScheduler::Sessions::claim(
    base::ThreadId thread, OpenOptions options) {
    using Kind = storage::ClaimOutcome::Kind;
    std::optional<base::EngineId> dead;
    while (true) {
        storage::ThreadClaim wanted;
        wanted.thread_id = thread;
        wanted.create_if_missing = options.create;
        wanted.durable = options.durable;
        wanted.metadata = options.metadata;
        wanted.ttl = options.ttl;
        auto outcome = co_await base::from_callback<base::Result<storage::ClaimOutcome>>(
            [&](auto done) { context_.store.claim(std::move(wanted), std::move(done)); });
        if (!outcome) {
            co_return std::move(outcome).error();
        }
        if (outcome->kind == Kind::missing) {
            co_return base::Error{base::ErrorCode::not_found, "Thread not found", "thread_id"};
        }
        if (outcome->kind != Kind::owned_elsewhere) {
            co_return outcome;
        }
        // Whoever took the thread from the one that was found dead is alive.
        const bool is_taken = dead && *dead != outcome->owner;
        dead = outcome->owner;
        if (!options.wait_for_owner || is_taken ||
            base::system_clock().now() >= options.waits_until) {
            co_return base::Error{base::ErrorCode::owned_elsewhere, outcome->owner_endpoint,
                                  outcome->owner.to_string()};
        }
        co_await base::wait_for(kClaimRetryWait);
    }
}

// NOLINTNEXTLINE: see RunHandle
std::shared_ptr<ThreadSession> ShardScheduler::Sessions::find(const base::ThreadId& thread) const {
    const auto at = sessions_.find(thread);
    return at == sessions_.end() ? nullptr : at->second.session;
}

RunHandle ShardScheduler::Sessions::find_ended(const base::ThreadId& thread,
                                               const base::RunId& run) const {
    const auto at = ended_by_id_.find(run);
    const bool is_its = at != ended_by_id_.end() && at->second->row().thread_id == thread;
    return is_its ? at->second : nullptr;
}

void ShardScheduler::Sessions::drop_ended(const base::RunId& run) {
    ended_by_id_.erase(run);
}

void ShardScheduler::Sessions::drop_ended_of(const std::unordered_set<base::ThreadId>& threads) {
    std::erase_if(ended_by_id_,
                  [&](const auto& each) { return threads.contains(each.second->row().thread_id); });
}

std::size_t ShardScheduler::Sessions::active_runs() const noexcept {
    std::size_t total = 0;
    for (const auto& [id, entry] : sessions_) {
        total += entry.session->active_runs();
    }
    return total;
}

base::Task<bool> ShardScheduler::Sessions::expire(const storage::ExpiredThread& due) {
    auto session = find(due.id);
    if (session == nullptr && opening_.contains(due.id)) {
        co_return false;
    }
    const bool prunes = due.strategy == storage::TtlStrategy::keep_latest;
    const bool is_long = due.rows > ThreadSession::kSliceRows;
    if (session == nullptr && due.is_ours && !prunes && !is_long) {
        // Nobody here writes for it, and who claims it in between raises the epoch.
        storage::ThreadWrite write;
        write.key = due.key;
        write.thread_id = due.id;
        write.epoch = due.epoch;
        write.delete_thread = true;
        write.if_expires_at_us = due.expires_at_us;
        const auto deleted = co_await base::from_callback<base::Status>(
            [&](auto done) { context_.store.write(std::move(write), std::move(done)); });
        co_return deleted.has_value();
    }
    if (session == nullptr) {
        auto opened = co_await open_existing(due.id);
        if (!opened) {
            co_return false;
        }
        session = std::move(opened->session);
    }
    const auto expired = co_await session->expire(due);
    co_return expired.has_value();
}

void ShardScheduler::Sessions::recover(base::ThreadId thread) {
    if (find(thread) || opening_.contains(thread)) {
        return;
    }
    recover_after(thread, base::Duration::zero(), false);
}

void ShardScheduler::Sessions::recover_after(const base::ThreadId& thread,
                                             base::Duration wait,
                                             bool is_in_doubt) {
    const auto until = is_in_doubt ? base::system_clock().now() + kLateMax : base::Instant{};
    if (const auto at = recovering_.find(thread); at != recovering_.end()) {
        at->second.until = std::max(at->second.until, until);
        if (wait == base::Duration::zero()) {
            at->second.soon->notify_all();
        }
    } else if (recovering_.size() < kRecoveringMax) {
        recovering_[thread].until = until;
        context_.shard.spawn(recover_later(thread, wait));
    }
}

base::Task<> ShardScheduler::Sessions::recover_later(base::ThreadId thread, base::Duration wait) {
    if (wait > base::Duration::zero()) {
        co_await recovering_.at(thread).soon->wait(base::system_clock().now() + wait);
    }
    const auto opened = co_await open_existing(thread);
    const auto code = opened ? base::ErrorCode::not_found : opened.error().code;
    const bool is_not_ours =
        code == base::ErrorCode::not_found || code == base::ErrorCode::owned_elsewhere;
    const bool may_come = base::system_clock().now() < recovering_.at(thread).until;
    if (opened || leaving_ || (is_not_ours && !may_come)) {
        recovering_.erase(thread);
        co_return;
    }
    if (is_not_ours) {
        context_.shard.spawn(
            recover_later(thread, std::clamp(2 * wait, kRecoverWait, kLateWaitMax)));
        co_return;
    }
    observe::log(observe::LogLevel::warn, "scheduler", "thread {} not recovered yet: {}",
                 thread.to_string(), opened.error().message);
    context_.shard.spawn(recover_later(thread, kRecoverWait));
}

void ShardScheduler::Sessions::abandon_all() {
    ++leases_lost_;
    const base::Error lost{base::ErrorCode::unavailable,
                           "this engine lost its lease; the run goes on elsewhere"};
    std::vector<SessionPtr> all;
    for (const auto& [id, entry] : sessions_) {
        all.push_back(entry.session);
    }
    for (const auto& session : all) {
        const auto started = session->started_run();
        session->lose(lost, false);
        if (started) {  // if it comes back here, that was no fault of its own
            context_.spared.add(*started);
        }
    }
}

void ShardScheduler::Sessions::hand_over_all() {
    leaving_ = true;
    std::vector<SessionPtr> all;
    for (const auto& [id, entry] : sessions_) {
        all.push_back(entry.session);
    }
    for (const auto& session : all) {
        session->hand_over();
    }
}

void ShardScheduler::Sessions::hand_over_now() {
    std::size_t cut = 0;
    for (const auto& [id, entry] : sessions_) {
        if (entry.session->hand_over_now()) {
            ++cut;
        }
    }
    if (cut > 0) {
        observe::log(
            observe::LogLevel::warn, "scheduler",
            "supersteps that take too long to end here: {}; other engines begin them again", cut);
    }
}

void ShardScheduler::Sessions::drop_waiters() {
    for (auto& [thread, entry] : sessions_) {
        entry.session->drop_waiters();
    }
    for (const auto& each : forgotten_) {
        if (const auto session = each.lock()) {
            session->drop_waiters();
        }
    }
}

void ShardScheduler::Sessions::forget(const base::ThreadId& thread, bool recover) {
    const auto at = sessions_.find(thread);
    if (at == sessions_.end()) {
        return;
    }
    at->second.session->leave_counts();
    std::erase_if(forgotten_, [](const auto& each) { return each.expired(); });
    const bool may_come = at->second.session->may_be_made_yet();
    if (!at->second.session->is_idle()) {
        forgotten_.push_back(at->second.session);
    }
    by_use_.erase(at->second.at);
    sessions_.erase(at);
    context_.metrics.threads_owned.fetch_sub(1, std::memory_order_relaxed);
    if (recover) {
        recover_after(thread, kRecoverWait, may_come);
    }
}

void ShardScheduler::Sessions::keep_ended(const RunHandle& run) {
    const auto bytes = run->cost();
    ended_.push_back({base::system_clock().now() + limits_.ended_run_kept, bytes, run});
    ended_by_id_[run->row().id] = run;
    ended_bytes_ += bytes;
    while (!ended_.empty() && ended_bytes_ > limits_.ended_runs_bytes_max) {
        drop_oldest_ended();
    }
    if (!ended_.empty() && !freeing_ended_) {
        freeing_ended_ = true;
        context_.shard.spawn(free_ended());
    }
}

void ShardScheduler::Sessions::drop_oldest_ended() {
    const auto& oldest = ended_.front();
    ended_bytes_ -= oldest.bytes;
    // Unless it was deleted meanwhile.
    const auto at = ended_by_id_.find(oldest.run->row().id);
    if (at != ended_by_id_.end() && at->second == oldest.run) {
        ended_by_id_.erase(at);
    }
    ended_.pop_front();
}

base::Task<> ShardScheduler::Sessions::free_ended() {
    // Those whose time is over within one wait go together, so many that nobody waits for it.
    const auto least = std::min<base::Duration>(kFreeEndedWait, limits_.ended_run_kept);
    while (!ended_.empty()) {
        const auto now = base::system_clock().now();
        co_await base::wait_for(std::max(least, ended_.front().until - now));
        for (std::size_t freed = 1; !ended_.empty(); ++freed) {
            if (ended_.front().until > base::system_clock().now()) {
                break;
            }
            drop_oldest_ended();
            if (freed % kFreeEndedAtOnce == 0) {
                co_await base::wait_for(base::Duration::zero());
            }
        }
    }
    freeing_ended_ = false;
}

void ShardScheduler::Sessions::insert(const base::ThreadId& thread, SessionPtr session) {
    by_use_.push_front(thread);
    sessions_[thread] = {std::move(session), by_use_.begin()};
    context_.metrics.threads_owned.fetch_add(1, std::memory_order_relaxed);
    if (is_crowded()) {
        evict_idle();
    }
}

bool ShardScheduler::Sessions::is_crowded() const noexcept {
    return sessions_.size() > limits_.sessions_max ||
           context_.threads_bytes > limits_.threads_bytes_max;
}

void ShardScheduler::Sessions::evict_soon() {
    if (!std::exchange(evicting_, true)) {
        context_.shard.post([this] {
            evicting_ = false;
            evict_idle();
        });
    }
}

void ShardScheduler::Sessions::evict_idle() {
    // The thread stays ours in the store; its next request claims it again and reads it back.
    bool has_evicted = false;
    for (std::size_t i = 0; i < kEvictScan && is_crowded() && !by_use_.empty(); ++i) {
        const auto& entry = sessions_.at(by_use_.back());
        // One that somebody holds is about to get work.
        if (!entry.session->is_idle() || entry.session.use_count() > 1) {
            by_use_.splice(by_use_.begin(), by_use_, entry.at);
            continue;
        }
        const auto id = by_use_.back();
        forget(id, false);
        evicted_.add(id);
        has_evicted = true;
    }
    if (has_evicted && is_crowded()) {
        evict_soon();
    }
}

}  // namespace heddle::scheduler
