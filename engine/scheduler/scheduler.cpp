#include "engine/scheduler/scheduler.hpp"

#include <algorithm>

#include "engine/graph/checkpoint.hpp"
#include "engine/scheduler/history.hpp"
#include "engine/scheduler/run_kwargs.hpp"
#include "engine/scheduler/sessions.hpp"

namespace heddle::scheduler {
namespace {

// A claim takes a millisecond or two unless the store is slow or another owner is waited for.
constexpr base::Duration kOpenUsual = std::chrono::milliseconds{100};

base::Task<base::Result<storage::ThreadRow>> load_thread(storage::Store& store,
                                                         base::ThreadId thread) {
    co_return co_await base::from_callback<base::Result<storage::ThreadRow>>(
        [&](auto done) { store.load_thread(thread, std::move(done)); });
}

base::Task<base::Result<storage::RunRow>> load_run(storage::Store& store,
                                                   base::ThreadId thread,
                                                   base::RunId run) {
    co_return co_await base::from_callback<base::Result<storage::RunRow>>(
        [&](auto done) { store.load_run(thread, run, std::move(done)); });
}

/// For a request that repeats another one, which may be on its way in `session`.
base::Task<base::Result<storage::RunRow>> look_up(storage::Store& store,
                                                  const ThreadSession& session,
                                                  base::RunId run) {
    // A run that ends while the store is asked is in no memory any more, and what the store says is
    // of the time before: it has to be asked again.
    base::Result<storage::RunRow> row = base::Error{base::ErrorCode::not_found, {}};
    bool is_of_the_past = true;
    while (is_of_the_past) {
        const auto settled = session.settled_runs();
        row = co_await load_run(store, session.thread().id, run);
        const bool has_ended = row && storage::is_final(row->status);
        const bool is_known = row || row.error().code == base::ErrorCode::not_found;
        is_of_the_past = is_known && !has_ended && session.settled_runs() != settled &&
                         session.find_run(run) == nullptr;
    }
    co_return row;
}

std::optional<storage::ThreadTtl> ttl_of(const RunRequest& request, const SchedulerLimits& limits) {
    if (!request.temporary_thread) {
        return limits.thread_ttl;
    }
    const auto kept =
        request.keyed ? std::max(limits.key_kept, limits.temporary_kept) : limits.temporary_kept;
    return storage::ThreadTtl{storage::TtlStrategy::temporary, kept};
}

OpenOptions options_of(const RunRequest& request, const SchedulerLimits& limits) {
    OpenOptions options;
    options.create = request.create_thread;
    options.ttl = ttl_of(request, limits);
    if (options.create) {
        options.metadata = R"({"assistant_id":")" + request.assistant.id.to_string() + '"';
        options.metadata += R"(,"graph_id":)";
        base::append_json_string(options.metadata, request.assistant.graph->name);
        options.metadata += '}';
    }
    return options;
}

// What happened in a superstep that never ended is in no row: that it is lost is said behind all
// rows, whether something happened or not.
void append_unended(std::vector<LoggedEvent>& events,
                    const storage::RunRow& row,
                    storage::Seq newest,
                    const Catalog& catalog) {
    using graph::StreamMode;
    if (row.status == storage::RunStatus::success || row.attempt == 0 ||
        newest == storage::kNoSeq) {
        return;
    }
    const auto request = decode_run(row, catalog);
    if (!request) {
        return;
    }
    EventId id{static_cast<std::uint64_t>(newest + 1), event_attempt_of(row), EventId::kNumberMax};
    id.number -= static_cast<std::uint32_t>(request->stream_modes.size());
    for (const auto mode : request->stream_modes) {
        const bool of_steps = mode == StreamMode::values || mode == StreamMode::updates ||
                              mode == StreamMode::checkpoints;
        if (!of_steps) {
            ++id.number;
            events.push_back({id, mode, {}, true});
        }
    }
}

base::Error mismatch() {
    return {base::ErrorCode::idempotency_mismatch,
            "this run id was used before with a different request"};
}

}  // namespace

ShardScheduler::ShardScheduler(base::Shard& shard,
                               storage::Store& store,
                               const Catalog& catalog,
                               observe::Metrics& metrics,
                               SchedulerLimits limits,
                               const Lease& lease)
    : sessions_{std::make_unique<Sessions>(shard, store, catalog, metrics, limits, lease)} {}

ShardScheduler::~ShardScheduler() = default;

void ShardScheduler::drop_waiters() {
    sessions_->drop_waiters();
}

base::Task<base::Result<RunHandle>> ShardScheduler::submit(RunRequest request,
                                                           bool wait_for_owner) {
    auto options = options_of(request, sessions_->context().limits);
    // Who begins in vain sends others away who wait for the thread meanwhile.
    const bool may_begin =
        options.create && request.may_begin && !wait_for_owner && !request.from_checkpoint;
    if (may_begin && sessions_->find_ended(request.thread_id, request.run_id) == nullptr) {
        if (const auto begun = sessions_->begin(request.thread_id, options)) {
            auto first = co_await submit_first(*begun, request);
            if (first || (first.error().code != base::ErrorCode::conflict &&
                          first.error().code != base::ErrorCode::in_doubt)) {
                co_return first;
            }
            // The thread is there already, perhaps with this run.
            request.maybe_repeated = true;
        }
    }
    options.wait_for_owner = wait_for_owner;
    const auto asked_at = base::system_clock().now();
    auto opened = co_await sessions_->open(request.thread_id, std::move(options));
    if (!opened) {
        co_return std::move(opened).error();
    }
    if (base::system_clock().now() - asked_at > kOpenUsual) {
        request.maybe_repeated = true;  // its edge may have given it to others meanwhile
    }
    const auto session = opened->session;
    const auto find_here = [&] {
        auto found = session->find_run(request.run_id);
        return found != nullptr ? found : sessions_->find_ended(request.thread_id, request.run_id);
    };
    auto known = find_here();
    if (known == nullptr && request.maybe_repeated && !opened->created) {
        auto row = co_await look_up(sessions_->context().store, *session, request.run_id);
        if (row && storage::is_final(row->status)) {
            if (row->request_hash != request.request_hash) {
                co_return mismatch();
            }
            co_return co_await ended_run(std::move(request), std::move(*row));
        }
        if (!row && row.error().code != base::ErrorCode::not_found) {
            co_return std::move(row).error();
        }
        known = find_here();
    }
    if (known != nullptr) {
        if (known->row().request_hash != request.request_hash) {
            co_return mismatch();
        }
        co_return known;
    }
    if (request.must_exist) {
        co_return base::Error{base::ErrorCode::not_found, "Run not found", "run_id"};
    }
    if (request.from_checkpoint) {
        auto stands = co_await session->stands_at(*request.from_checkpoint);
        if (!stands) {
            co_return std::move(stands).error();
        }
        if (!*stands) {
            const auto& field = request.checkpoint_field;
            co_return base::Error{base::ErrorCode::unsupported,
                                  field +
                                      ": a run starts from its thread's newest checkpoint; "
                                      "starting from another one is not supported",
                                  field};
        }
    }
    co_return session->submit(std::move(request));
}

/// @param request  as it was, if it was not stored
base::Task<base::Result<RunHandle>> ShardScheduler::submit_first(ThreadSession& session,
                                                                 RunRequest& request) {
    auto run = session.submit(std::move(request));
    if (!run) {
        auto error = std::move(run).error();
        session.lose(error, false);
        co_return error;
    }
    auto made = co_await session.wait_made();
    if (!made) {
        sessions_->context().metrics.runs_accepted_total.fetch_sub(1, std::memory_order_relaxed);
        auto again = (*run)->request_again();
        if (!again) {
            co_return std::move(again).error();
        }
        request = std::move(*again);
        co_return std::move(made).error();
    }
    co_return run;
}

base::Task<base::Result<RunHandle>> ShardScheduler::ended_run(RunRequest request,
                                                              storage::RunRow row) {
    // As they were then: later runs of the thread have moved it on.
    auto outcome = co_await load_outcome(row);
    if (!outcome) {
        co_return std::move(outcome).error();
    }
    co_return Run::make_ended(std::move(request), std::move(row), std::move(*outcome));
}

RunHandle ShardScheduler::find_run(const base::ThreadId& thread, const base::RunId& run) const {
    if (const auto session = sessions_->find(thread)) {
        if (auto found = session->find_run(run)) {
            return found;
        }
    }
    auto ended = sessions_->find_ended(thread, run);
    return ended != nullptr && ended->is_taken_back() ? nullptr : ended;
}

base::Task<base::Status> ShardScheduler::cancel_run(base::ThreadId thread,
                                                    base::RunId run,
                                                    bool roll_back) {
    auto opened = co_await sessions_->open_existing(thread);
    if (!opened) {
        co_return std::move(opened).error();
    }
    const auto session = opened->session;
    const auto cancelled = co_await session->cancel_for_good(run, roll_back);
    if (!cancelled) {
        co_return cancelled.error();
    }
    if (*cancelled) {
        co_return base::ok();
    }
    const auto row = co_await load_run(sessions_->context().store, thread, run);
    if (!row) {
        co_return row.error();
    }
    co_return base::ok();
}

base::Task<base::Result<storage::ThreadRow>> ShardScheduler::create_thread(
    base::ThreadId thread,
    std::string metadata,
    IfExists if_exists,
    std::optional<storage::ThreadTtl> ttl) {
    OpenOptions options;
    options.create = true;
    options.durable = true;
    options.ttl = ttl ? ttl : sessions_->context().limits.thread_ttl;
    options.metadata = std::move(metadata);
    auto opened = co_await sessions_->open(thread, std::move(options));
    if (!opened) {
        // Another engine's thread exists for certain.
        if (opened.error().code != base::ErrorCode::owned_elsewhere) {
            co_return std::move(opened).error();
        }
    } else if (opened->created) {
        co_return opened->session->thread();
    }
    if (if_exists == IfExists::raise) {
        co_return base::Error{base::ErrorCode::conflict, "Thread already exists", "thread_id"};
    }
    co_return co_await load_thread(sessions_->context().store, thread);
}

base::Task<base::Result<storage::ThreadRow>> ShardScheduler::patch_thread(
    base::ThreadId thread, base::Json metadata, std::optional<storage::ThreadTtl> ttl) {
    auto opened = co_await sessions_->open_existing(thread);
    if (!opened) {
        co_return std::move(opened).error();
    }
    const auto written = co_await opened->session->patch_metadata(metadata);
    if (!written) {
        co_return written.error();
    }
    if (ttl) {
        const auto set = co_await opened->session->set_ttl(*ttl);
        if (!set) {
            co_return set.error();
        }
    }
    co_return co_await load_thread(sessions_->context().store, thread);
}

base::Task<base::Status> ShardScheduler::delete_thread(base::ThreadId thread) {
    auto opened = co_await sessions_->open_existing(thread);
    if (!opened) {
        co_return std::move(opened).error();
    }
    auto removed = co_await opened->session->remove();
    if (removed) {
        sessions_->drop_ended_of({thread});
    }
    co_return removed;
}

base::Task<base::Status> ShardScheduler::delete_run(base::ThreadId thread, base::RunId run) {
    auto opened = co_await sessions_->open_existing(thread);
    if (!opened) {
        co_return std::move(opened).error();
    }
    const auto row = co_await load_run(sessions_->context().store, thread, run);
    if (!row) {
        co_return row.error();
    }
    auto removed = co_await opened->session->remove_run(run);
    if (removed) {
        sessions_->drop_ended(run);
    }
    co_return removed;
}

base::Task<base::Result<std::optional<StateAt>>> ShardScheduler::load_state(
    base::ThreadId thread, std::optional<base::CheckpointId> checkpoint) {
    const auto& context = sessions_->context();
    const auto session = sessions_->find(thread);
    if (!checkpoint && session != nullptr && session->has_position()) {
        KnownValues known = [session](const base::CheckpointId& id,
                                      const graph::Channels& channels) {
            return session->values_at(id, channels);
        };
        co_return co_await read_newest_state(context.store, context.catalog, thread,
                                             std::move(known));
    }
    co_return co_await read_state(context.store, context.catalog, thread, checkpoint);
}

base::Task<base::Result<std::vector<StateAt>>> ShardScheduler::load_history(
    base::ThreadId thread, std::optional<base::CheckpointId> before, std::int32_t limit) {
    const auto& context = sessions_->context();
    co_return co_await read_history(context.store, context.catalog, thread, before, limit);
}

base::Task<base::Result<std::optional<StateAt>>> ShardScheduler::load_run_state(
    base::ThreadId thread, base::RunId run) {
    auto& store = sessions_->context().store;
    auto row = co_await find_newest_row(store, thread, run);
    if (!row) {
        co_return std::move(row).error();
    }
    if (*row) {
        co_return co_await load_state(thread, (*row)->checkpoint_id);
    }
    const auto found = co_await load_thread(store, thread);
    if (!found) {
        co_return found.error();
    }
    if (found->first > 0) {
        co_return base::Error{base::ErrorCode::not_found,
                              "the run's checkpoints were pruned; GET /threads/{thread_id}/state "
                              "has what the thread came to",
                              "run_id"};
    }
    co_return std::optional<StateAt>{};
}

base::Task<base::Result<RunOutcome>> ShardScheduler::load_outcome(storage::RunRow row) {
    const auto note = read_note(row.error);
    RunOutcome outcome;
    outcome.status = row.status;
    outcome.input_tokens = note.input_tokens;
    outcome.output_tokens = note.output_tokens;
    if (auto asked = find_asked(row)) {  // perhaps again, without a step of its own
        outcome.interrupts = std::move(asked->interrupts);
        auto stood = co_await load_state(row.thread_id, asked->checkpoint);
        if (!stood && stood.error().code != base::ErrorCode::not_found) {
            co_return std::move(stood).error();
        }
        if (stood && *stood) {  // else it was taken back meanwhile
            outcome.values = std::move((*stood)->values);
        }
        co_return outcome;
    }
    if (has_failed(row)) {
        outcome.error = parse_stored_error(row.error);
    }
    auto state = co_await load_run_state(row.thread_id, row.id);
    if (!state) {
        co_return std::move(state).error();
    }
    if (*state) {
        outcome.values = std::move((*state)->values);
        if (row.status == storage::RunStatus::success) {
            outcome.interrupts =
                graph::breakpoint_interrupts((*state)->row.checkpoint_id, (*state)->head.next);
        }
    }
    co_return outcome;
}

base::Task<base::Result<std::string>> ShardScheduler::load_values(base::ThreadId thread,
                                                                  base::RunId run) {
    auto row = co_await load_run(sessions_->context().store, thread, run);
    if (!row) {
        co_return std::move(row).error();
    }
    auto outcome = co_await load_outcome(std::move(*row));
    if (!outcome) {
        co_return std::move(outcome).error();
    }
    co_return std::move(outcome->values);
}

base::Task<base::Result<LoadedEvents>> ShardScheduler::load_run_events(storage::RunRow row) {
    const auto& context = sessions_->context();
    auto read = co_await read_run_events(context.store, context.catalog, row.thread_id, row.id);
    if (!read) {
        co_return std::move(read).error();
    }
    LoadedEvents loaded;
    loaded.events = logged_events(row.id, std::move(read->events));
    loaded.checkpoint = read->checkpoint;
    append_unended(loaded.events, row, read->newest, context.catalog);
    if (read->cut_at) {
        loaded.cut_at = EventId{static_cast<std::uint64_t>(*read->cut_at), 0, 0};
    }
    std::optional<base::Json> stop;
    if (const auto asked = find_asked(row)) {
        stop = graph::flatten_interrupts(asked->interrupts);
    } else if (row.status == storage::RunStatus::success && read->has_next) {
        stop = base::Json::array();
    }
    if (stop) {
        const auto request = decode_run(row, context.catalog);
        if (!request) {
            co_return request.error();
        }
        auto newest = read->newest;
        if (const auto asked = find_asked(row); asked && newest == storage::kNoSeq) {
            // It asked again what an earlier run had asked, and made no step of its own.
            const auto stood =
                co_await find_seq_of(context.store, row.thread_id, asked->checkpoint);
            newest = stood ? *stood : newest;
        }
        loaded.stop =
            stop_events(static_cast<std::uint64_t>(newest + 1), request->stream_modes, *stop);
    }
    co_return loaded;
}

base::Task<base::Result<EventPage>> ShardScheduler::load_events_after(base::ThreadId thread,
                                                                      base::RunId run,
                                                                      EventId after,
                                                                      std::size_t bytes_max) {
    const auto& context = sessions_->context();
    // An event of a row may have others of it behind it.
    const bool is_in_row =
        after.attempt == 0 && after.rows > 0 && after.number < EventId::kNumberMax;
    const RowRange range{static_cast<storage::Seq>(after.rows) - (is_in_row ? 1 : 0), bytes_max};
    auto read = co_await read_run_events(context.store, context.catalog, thread, run, range);
    if (!read) {
        co_return std::move(read).error();
    }
    EventPage page;
    page.events = logged_events(run, std::move(read->events));
    std::erase_if(page.events, [&](const auto& each) { return each.id <= after; });
    page.checkpoint = read->checkpoint;
    page.rows = static_cast<std::uint64_t>(read->newest + 1);
    if (read->cut_at) {
        page.cut_at = EventId{static_cast<std::uint64_t>(*read->cut_at), 0, 0};
    }
    if (read->to < read->newest) {
        page.to = EventId{static_cast<std::uint64_t>(read->to + 1), 0, EventId::kNumberMax};
    }
    co_return page;
}

namespace {

constexpr std::size_t kExpireAtOnce = 32;
constexpr base::Duration kExpireRecheck = std::chrono::seconds{1};

}  // namespace

/// The threads of one round, worked off by a few tasks of the shard. Lives in the frame that waits.
struct ShardScheduler::Round {
    Sessions& sessions;
    std::vector<storage::ExpiredThread> due;
    std::size_t next = 0;
    std::size_t running = 0;
    std::size_t done = 0;
    std::unordered_set<base::ThreadId> gone;
    base::Signal ended;

    base::Task<> work() {
        while (next < due.size()) {
            const auto at = next++;
            const bool is_done = co_await sessions.expire(due[at]);
            done += is_done ? 1 : 0;
            if (is_done && due[at].strategy != storage::TtlStrategy::keep_latest) {
                gone.insert(due[at].id);
            }
        }
        --running;
        ended.notify_all();
    }
};

base::Task<std::size_t> ShardScheduler::expire(std::vector<storage::ExpiredThread> due) {
    Round round{*sessions_, std::move(due), 0, 0, 0, {}, {}};
    round.running = std::min(kExpireAtOnce, round.due.size());
    const auto workers = round.running;
    for (std::size_t i = 0; i < workers; ++i) {
        sessions_->context().shard.spawn(round.work());
    }
    // No deadline of its own: the tasks borrow this frame, and each operation ends by the store's.
    while (round.running > 0) {
        co_await round.ended.wait(base::system_clock().now() + kExpireRecheck);
    }
    if (!round.gone.empty()) {
        sessions_->drop_ended_of(round.gone);
    }
    co_return round.done;
}

void ShardScheduler::recover(base::ThreadId thread) {
    sessions_->recover(thread);
}

void ShardScheduler::abandon_all() {
    sessions_->abandon_all();
}

void ShardScheduler::hand_over_all() {
    sessions_->hand_over_all();
}

void ShardScheduler::hand_over_now() {
    sessions_->hand_over_now();
}

std::size_t ShardScheduler::active_runs() const noexcept {
    return sessions_->active_runs();
}

Scheduler::Scheduler(base::ShardPool& shards,
                     storage::Store& store,
                     const Catalog& catalog,
                     observe::Metrics& metrics,
                     SchedulerLimits limits)
    : pool_{shards}, store_{store}, catalog_{catalog}, metrics_{metrics}, limits_{limits} {
    for (std::size_t i = 0; i < shards.size(); ++i) {
        shards_.push_back(std::make_unique<ShardScheduler>(shards.at(i), store, catalog, metrics,
                                                           limits, lease_));
    }
}

void Scheduler::stop() {
    pool_.stop();
    for (auto& shard : shards_) {
        shard->drop_waiters();
    }
}

}  // namespace heddle::scheduler
