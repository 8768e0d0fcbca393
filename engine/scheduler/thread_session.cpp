#include "engine/scheduler/thread_session.hpp"

#include <algorithm>

#include "engine/base/room.hpp"
#include "engine/observe/log.hpp"
#include "engine/scheduler/history.hpp"
#include "engine/scheduler/resume.hpp"
#include "engine/scheduler/run_kwargs.hpp"
#include "engine/scheduler/session_host.hpp"

namespace heddle::scheduler {
namespace {

constexpr base::Duration kRemoveWaitMax = std::chrono::seconds{10};

base::Error was_cancelled() {
    return {base::ErrorCode::cancelled, "the run was cancelled"};
}

base::Error newer_run(MultitaskStrategy strategy) {
    return {base::ErrorCode::cancelled, strategy == MultitaskStrategy::rollback
                                            ? "taken back by a newer run of the thread"
                                            : "interrupted by a newer run of the thread"};
}

}  // namespace

void SparedStarts::add(const base::RunId& run) {
    constexpr std::size_t kRunsMax = 10'000;
    if (of_.size() < kRunsMax || of_.contains(run)) {
        ++of_[run];
    }
}

std::int32_t SparedStarts::of(const base::RunId& run) const {
    const auto at = of_.find(run);
    return at == of_.end() ? 0 : at->second;
}

ThreadSession::ThreadSession(SessionContext& context, storage::ClaimOutcome claim)
    : context_{context},
      thread_{std::move(claim.thread)},
      epoch_{claim.epoch},
      queue_{context.limits.waiting_runs_max} {
    weigh();
}

ThreadSession::ThreadSession(SessionContext& context, storage::ThreadClaim fresh)
    : context_{context},
      epoch_{1},
      fresh_{std::move(fresh)},
      graph_noted_{true},  // the first run made the metadata, too
      queue_{context.limits.waiting_runs_max} {
    thread_.id = fresh_->thread_id;
    thread_.metadata = fresh_->metadata;
    thread_.ttl = fresh_->ttl;
    weigh();
}

base::Task<base::Status> ThreadSession::wait_made() {
    constexpr base::Duration kRecheck = std::chrono::seconds{1};
    const auto self = shared_from_this();
    while (fresh_ && !lost_) {  // the store ends it by its own deadline
        co_await made_.wait(base::system_clock().now() + kRecheck);
    }
    if (!fresh_) {
        co_return base::ok();
    }
    co_return not_made_ ? *not_made_ : *lost_;
}

std::optional<std::string> ThreadSession::values_at(const base::CheckpointId& checkpoint,
                                                    const graph::Channels& channels) const {
    const bool is_there = position_ && position_->checkpoint_id == checkpoint &&
                          graph_ != nullptr && graph_->channels.get() == &channels;
    return is_there ? std::optional{position_->state.to_text()} : std::nullopt;
}

RunHandle ThreadSession::find_run(const base::RunId& run) const {
    const auto at = runs_.find(run);
    return at == runs_.end() ? nullptr : at->second;
}

void ThreadSession::resume(std::vector<storage::RunRow> rows) {
    for (auto& row : rows) {
        newest_created_us_ = std::max(newest_created_us_, row.created_at_us);
        auto request = decode_run(row, context_.catalog);
        auto run =
            std::make_shared<Run>(request ? std::move(*request) : RunRequest{}, row.created_at_us,
                                  context_.limits.run_log_bytes_max, &context_.logs);
        run->row_ = std::move(row);
        run->note_ = read_note(run->row_.error);
        run->epoch_ = epoch_;
        run->accepted_ = true;
        run->resumed_ = true;
        put_in(run);
        if (!request) {
            run->doomed_ = std::move(request).error();
        } else if (run->note_.cancel) {
            run->doomed_ = was_cancelled();
            run->roll_back_ = run->note_.cancel == CancelAction::rollback;
        } else if (has_had_its_attempts(*run)) {
            run->doomed_ = {base::ErrorCode::internal,
                            fmt::format("given up after {} attempts", run->row_.attempt)};
        } else {
            context_.metrics.runs_recovered_total.fetch_add(1, std::memory_order_relaxed);
        }
        // One that interrupts or takes back does so after a crash as well; also to one whose turn
        // is only to end.
        const auto strategy = run->request_.strategy == MultitaskStrategy::reject
                                  ? MultitaskStrategy::enqueue
                                  : run->request_.strategy;
        carry_out(queue_.submit(run->row_.id, strategy), newer_run(strategy));
        if (queue_.executing() != run->row_.id) {
            run->set_aside();
        }
    }
}

bool ThreadSession::has_had_its_attempts(const Run& run) const {
    // More starts than that have no event ids of their own.
    constexpr std::int32_t kStartsMax = EventId::kAttemptMax - 1;
    const auto most = context_.limits.attempts_max;
    const auto started = run.row_.attempt;
    const auto spared = context_.spared.of(run.row_.id) + run.note_.spared;
    return started - spared >= most || started >= std::max(most, kStartsMax);
}

base::Task<base::Result<bool>> ThreadSession::stands_at(base::CheckpointId checkpoint) {
    const auto self = shared_from_this();
    if (position_ && queue_.is_idle()) {
        co_return position_->checkpoint_id == checkpoint;
    }
    const auto newest =
        co_await base::from_callback<base::Result<std::vector<storage::JournalRow>>>(
            [this](auto done) {
                context_.store.list_journal(thread_.id, storage::kNoSeq, 1, std::move(done));
            });
    if (!newest) {
        co_return newest.error();
    }
    // A run that is here, perhaps since that was asked, will have moved it on.
    co_return queue_.is_idle() && !newest->empty() && newest->front().checkpoint_id == checkpoint;
}

base::Result<RunHandle> ThreadSession::submit(RunRequest request) {
    if (lost_) {
        return *lost_;
    }
    if (handing_over_) {
        return base::Error{base::ErrorCode::unavailable, "this engine leaves"};
    }
    if (request.resume && queue_.is_idle()) {
        // Behind other runs only its turn can tell what is asked then.
        const auto answers = address_resume(*request.resume, thread_.interrupts);
        if (!answers) {
            return answers.error();
        }
    }
    const auto id = request.run_id;
    // Who takes over serves runs in the order of their times. This engine's clock may be behind
    // the one that dated those before.
    newest_created_us_ = std::max(base::unix_microseconds(), newest_created_us_ + 1);
    auto run = std::make_shared<Run>(std::move(request), newest_created_us_,
                                     context_.limits.run_log_bytes_max, &context_.logs);
    if (!base::has_room(run->row_bytes(), context_.open_runs_bytes,
                        context_.limits.open_runs_bytes_max)) {
        return base::Error{base::ErrorCode::overloaded,
                           "the runs that have not ended hold as much memory as they may"};
    }
    const auto actions = queue_.submit(id, run->request_.strategy);
    if (!actions.empty() && std::holds_alternative<RefuseRun>(actions.front())) {
        const auto code = std::get<RefuseRun>(actions.front()).code;
        const auto* message = code == base::ErrorCode::thread_busy
                                  ? "Thread is already running a task. Wait for it to finish or "
                                    "choose a different multitask strategy."
                                  : "the thread's queue takes no further run";
        return base::Error{code, message, "multitask_strategy"};
    }
    run->epoch_ = epoch_;
    put_in(run);
    note_graph(*run);
    pending_.new_runs.push_back(run->row_);
    pending_.status = storage::ThreadStatus::busy;
    if (run->request_.keyed && thread_.ttl && thread_.ttl->after < context_.limits.key_kept) {
        context_.shard.spawn(keep_for_key());
    }
    const auto reason = newer_run(run->request_.strategy);
    carry_out(actions, reason);
    if (queue_.executing() != id) {
        run->set_aside();
    }
    // A row that was never stored settles through lose(): any failed write loses the session.
    write_soon([run](const base::Status& written) {
        // Of one that is taken back the row may have been left out of what was written.
        if (written && !run->roll_back_) {
            run->accept();
        }
    });
    context_.metrics.runs_accepted_total.fetch_add(1, std::memory_order_relaxed);
    return run;
}

bool ThreadSession::cancel_run(const base::RunId& run, const base::Error& reason, bool roll_back) {
    const auto actions = queue_.cancel(run, roll_back);
    carry_out(actions, reason);
    return !actions.empty();
}

base::Task<base::Result<bool>> ThreadSession::cancel_for_good(base::RunId run, bool roll_back) {
    const auto self = shared_from_this();
    const auto handle = find_run(run);
    if (handle == nullptr || !cancel_run(run, was_cancelled(), roll_back)) {
        co_return false;
    }
    // Until it has stopped another engine may get it: that is to stop it as well.
    if (queue_.executing() == run && !handle->doomed_) {
        handle->note_.cancel = roll_back ? CancelAction::rollback : CancelAction::interrupt;
        set_run_status(*handle, storage::RunStatus::running, encode_note(handle->note_),
                       handle->row_.attempt);
    }
    const auto written = co_await write_now();
    if (!written) {
        co_return written.error();
    }
    co_return true;
}

void ThreadSession::cancel_all(const base::Error& reason) {
    std::vector<base::RunId> ids;
    for (const auto& [id, run] : runs_) {
        ids.push_back(id);
    }
    for (const auto& id : ids) {
        (void)cancel_run(id, reason, false);
    }
}

base::Task<base::Status> ThreadSession::patch_metadata(const base::Json& changes) {
    if (lost_) {
        co_return *lost_;
    }
    auto metadata = base::parse_stored_json(thread_.metadata);
    if (!metadata) {
        co_return std::move(metadata).error();
    }
    metadata->update(changes);
    thread_.metadata = base::dump_json(*metadata);
    pending_.metadata = thread_.metadata;
    co_return co_await write_now();
}

base::Task<base::Status> ThreadSession::remove_run(base::RunId run) {
    if (lost_) {
        co_return *lost_;
    }
    if (runs_.contains(run)) {
        co_return base::Error{base::ErrorCode::conflict, "the run has not ended; cancel it first"};
    }
    pending_.deleted_runs.push_back(run);
    co_return co_await write_now();
}

base::Task<base::Status> ThreadSession::remove() {
    const auto self = shared_from_this();
    cancel_all({base::ErrorCode::cancelled, "the thread was deleted"});
    const auto deadline = base::system_clock().now() + kRemoveWaitMax;
    while (!is_idle() && !lost_) {
        if (base::system_clock().now() >= deadline) {
            co_return base::Error{base::ErrorCode::timeout,
                                  "the thread's runs did not stop in time"};
        }
        co_await idle_changed_.wait(deadline);
    }
    if (lost_) {
        co_return *lost_;
    }
    base::Error gone{base::ErrorCode::not_found, "Thread not found"};
    co_return co_await delete_now(0, std::move(gone));
}

void ThreadSession::hand_over() {
    if (lost_ || handing_over_) {
        return;
    }
    handing_over_ = true;
    if (!queue_.executing()) {
        release_thread();
    }
}

bool ThreadSession::hand_over_now() {
    if (lost_ || !handing_over_ || releasing_ || !queue_.executing()) {
        return false;
    }
    const auto run = find_run(*queue_.executing());
    const bool goes_on = !run->doomed_ && !run->roll_back_;
    const bool is_cut = goes_on && !between_supersteps_;
    // What it has made of its superstep is lost, which is no fault of its own.
    run->note_.spared += is_cut ? 1 : 0;
    if (goes_on) {
        set_run_status(*run, storage::RunStatus::pending, encode_note(run->note_),
                       run->row_.attempt - (is_cut ? 0 : 1));
    }
    // Who wants to make them hears no more than that the thread is gone.
    std::erase_if(pending_.tool_calls, [](const auto& call) { return call.answer.empty(); });
    release_thread();
    return is_cut;
}

std::optional<base::RunId> ThreadSession::started_run() const {
    const auto executing = queue_.executing();
    const auto run = executing ? find_run(*executing) : nullptr;
    // The start of one whose thread is not ours yet may have counted for nobody.
    return run != nullptr && run->started_ && !fresh_ ? executing : std::nullopt;
}

void ThreadSession::release_thread() {
    releasing_ = true;
    pending_.release = true;
    write_soon([self = shared_from_this()](const base::Status& written) {
        if (written) {
            self->lose(
                {base::ErrorCode::unavailable, "this engine leaves; its runs go on elsewhere"},
                false);
        }
    });
}

void ThreadSession::lose(const base::Error& error, bool recover) {
    lose(error, recover, recover);
}

void ThreadSession::lose(const base::Error& error, bool recover, bool spared) {
    if (lost_) {
        return;
    }
    const auto self = shared_from_this();
    lost_ = error;
    auto runs = std::move(runs_);
    runs_.clear();
    for (const auto& [id, run] : runs) {
        if (!recover) {
            context_.spared.forget(id);
        } else if (spared && run->started_) {
            context_.spared.add(id);
        }
        run->fail(error);
        run->cancel_.cancel(error);
    }
    for (auto& done : std::exchange(on_written_, {})) {
        done(error);
    }
    for (auto& each : std::exchange(alone_, {})) {
        each.done(error);
    }
    count_runs(0, 0);
    count_bytes(0);
    idle_changed_.notify_all();
    made_.notify_all();
    context_.forget(thread_.id, recover);
}

void ThreadSession::carry_out(const Actions& actions, const base::Error& reason) {
    for (const auto& action : actions) {
        if (const auto* to_start = std::get_if<StartRun>(&action)) {
            if (handing_over_) {
                continue;
            }
            start(find_run(to_start->run));
        } else if (const auto* to_drop = std::get_if<DropRun>(&action)) {
            drop(find_run(to_drop->run));
        } else if (const auto* to_remove = std::get_if<RemoveRun>(&action)) {
            remove_waiting(find_run(to_remove->run));
        } else if (const auto* to_cancel = std::get_if<CancelRun>(&action)) {
            find_run(to_cancel->run)->cancel_.cancel(reason);
        } else if (const auto* to_undo = std::get_if<RollBackRun>(&action)) {
            const auto run = find_run(to_undo->run);
            run->roll_back_ = true;
            run->cancel_.cancel(reason);
        }
    }
    count_runs(queue_.executing() ? 1 : 0, static_cast<std::int64_t>(queue_.waiting()));
}

void ThreadSession::start(const RunHandle& run) {
    run->base_seq_ = head();
    if (run->doomed_) {
        context_.shard.spawn(give_up(run));
        return;
    }
    ++run->row_.attempt;
    run->started_ = true;
    run->row_.status = storage::RunStatus::running;
    if (run->note_.began_us == 0) {
        run->note_.began_us = base::unix_microseconds();
    }
    set_run_status(*run, storage::RunStatus::running, encode_note(run->note_), run->row_.attempt);
    // Until the attempt is on disk nobody sees anything of it: should this engine die before, the
    // next one gives the same number, and the same event ids, to an attempt of its own. Written at
    // once, not with the first superstep: a run that kills its engine there is to be given up, too.
    run->log_.add_gate();
    // Spawning posts: the execution gets to its first wait before the flush that was posted after
    // it, so a run that never waits is written with its acceptance in one commit.
    context_.shard.spawn(execute(run));
    write_soon([run](const base::Status& written) {
        if (written) {
            run->log_.open_gate();
        }
    });
}

void ThreadSession::drop(const RunHandle& run) {
    graph::RunResult result;
    result.status = storage::RunStatus::interrupted;
    result.error = {base::ErrorCode::cancelled, "cancelled before it was started"};
    keep_asking(result);
    end_run(run, std::move(result), RunOutcome{});
}

void ThreadSession::remove_waiting(const RunHandle& run) {
    pending_.deleted_runs.push_back(run->row_.id);
    write_soon([self = shared_from_this(), run](const base::Status& written) {
        if (written && !self->lost_) {  // see settle()
            self->vanish(run);
        }
    });
}

base::Task<> ThreadSession::undo(RunHandle run) {
    // Its rows that have not left never will, and gates open with whatever is written instead.
    run->log_.cut();
    auto to = run->base_seq_;
    if (run->resumed_) {
        const auto found = co_await find_seq_before(context_.store, thread_.id, run->row_.id);
        if (!found) {
            lose(found.error(), true);
            co_return;
        }
        to = *found;
    }
    const auto left = queue_.waiting() > 0         ? storage::ThreadStatus::busy
                      : thread_.interrupts == "{}" ? storage::ThreadStatus::idle
                                                   : storage::ThreadStatus::interrupted;
    const auto written = co_await roll_back_now(to, run->row_.id, left);
    if (!written || lost_) {
        co_return;
    }
    position_.reset();
    thread_.head = to;
    weigh();
    vanish(run);
}

void ThreadSession::put_in(const RunHandle& run) {
    runs_[run->row_.id] = run;
    count_bytes(runs_bytes_ + run->row_bytes());
}

void ThreadSession::take_out(const Run& run) {
    if (runs_.erase(run.row_.id) > 0) {
        count_bytes(runs_bytes_ - run.row_bytes());
    }
    context_.spared.forget(run.row_.id);
    ++settled_runs_;
}

void ThreadSession::vanish(const RunHandle& run) {
    context_.metrics.runs_failed_total.fetch_add(1, std::memory_order_relaxed);
    take_out(*run);
    RunOutcome outcome;
    outcome.status = storage::RunStatus::interrupted;
    outcome.error = {base::ErrorCode::cancelled, "the run was rolled back"};
    run->taken_back_ = true;
    run->finish(std::move(outcome));
    context_.keep_ended(run);
    idle_changed_.notify_all();
}

void ThreadSession::end_run(const RunHandle& run, graph::RunResult result, RunOutcome outcome) {
    outcome.status = result.status;
    outcome.error = result.error;
    outcome.interrupts = result.interrupts;
    RunNote ending;
    if (has_failed(outcome)) {
        ending.error = result.error;
    } else if (result.status == storage::RunStatus::interrupted) {
        ending.asked = Asked{result.interrupts, position_->checkpoint_id};
    }
    ending.input_tokens = outcome.input_tokens;
    ending.output_tokens = outcome.output_tokens;
    set_run_status(*run, result.status, encode_note(ending), run->row_.attempt);
    // Also if others wait: one of them may have come to answer.
    thread_.interrupts = base::dump_json(result.interrupts);
    if (queue_.is_idle()) {
        pending_.status = result.thread_status;
    }
    pending_.interrupts = thread_.interrupts;
    const bool stops = result.stop && !run->request_.stream_modes.empty();
    if (stops) {
        // It has stopped when that is on disk: until then another attempt may ask something else.
        const auto rows = static_cast<std::uint64_t>(position_->seq + 1);
        run->log_.add_gate();
        for (auto& event : stop_events(rows, run->request_.stream_modes, *result.stop)) {
            run->log_.append(std::move(event));
        }
    }
    write_soon([self = shared_from_this(), run, stops,
                outcome = std::move(outcome)](const base::Status& written) mutable {
        if (!written) {
            return;
        }  // lose() has failed the run already
        if (stops) {
            run->log_.open_gate();
        }
        self->settle(run, std::move(outcome));
    });
}

void ThreadSession::settle(const RunHandle& run, RunOutcome outcome) {
    if (lost_) {
        // Its readers have been told that it goes on elsewhere. Whoever asks again reads from the
        // store how it ended, and must not find what they were told.
        return;
    }
    const bool succeeded = !has_failed(outcome);
    auto& total =
        succeeded ? context_.metrics.runs_succeeded_total : context_.metrics.runs_failed_total;
    total.fetch_add(1, std::memory_order_relaxed);
    take_out(*run);
    run->finish(std::move(outcome));
    if (!run->log_.is_empty()) {
        context_.keep_ended(run);
    }
    idle_changed_.notify_all();
    if (!queue_.is_idle()) {
        return;
    }
    if (run->request_.temporary_thread) {
        // Nobody goes on with it; who asks again reads it back, until the sweep deletes it.
        lose({base::ErrorCode::not_found, "Thread not found"}, false);
    } else {
        prune_soon();
    }
}

void ThreadSession::note_graph(const Run& run) {
    if (graph_noted_) {
        return;
    }
    graph_noted_ = true;
    auto metadata = base::parse_stored_json(thread_.metadata);
    if (!metadata || !metadata->is_object() || metadata->contains("graph_id")) {
        return;
    }
    (*metadata)["graph_id"] = run.request_.assistant.graph->name;
    (*metadata)["assistant_id"] = run.request_.assistant.id.to_string();
    thread_.metadata = base::dump_json(*metadata);
    pending_.metadata = thread_.metadata;
}

void ThreadSession::set_run_status(const Run& run,
                                   storage::RunStatus status,
                                   std::string error,
                                   std::int32_t attempt) {
    const auto same = [&](const auto& each) { return each.id == run.row_.id; };
    const auto fresh = std::find_if(pending_.new_runs.begin(), pending_.new_runs.end(), same);
    if (fresh != pending_.new_runs.end()) {
        fresh->status = status;
        fresh->attempt = attempt;
        fresh->updated_at_us = base::unix_microseconds();
        fresh->error = std::move(error);
        return;
    }
    const auto update =
        std::find_if(pending_.run_updates.begin(), pending_.run_updates.end(), same);
    if (update != pending_.run_updates.end()) {
        *update = {run.row_.id, status, attempt, std::move(error)};
        return;
    }
    pending_.run_updates.push_back({run.row_.id, status, attempt, std::move(error)});
}

}  // namespace heddle::scheduler
