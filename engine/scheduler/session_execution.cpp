// A run from its start to its end: what it needs, its supersteps, what becomes of it.
#include <algorithm>
#include <chrono>

#include "engine/scheduler/history.hpp"
#include "engine/scheduler/resume.hpp"
#include "engine/scheduler/session_host.hpp"
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {
namespace {

// The store could not be read; nothing is wrong with what is in it.
bool may_answer_later(base::ErrorCode code) noexcept {
    return code == base::ErrorCode::unavailable || code == base::ErrorCode::overloaded ||
           code == base::ErrorCode::timeout;
}

}  // namespace

base::Task<base::Status> ThreadSession::prepare(RunHandle run) {
    if (fresh_ && !run->request_.assistant.graph->is_local()) {
        // What the run asks of others it asks once it is certain that the thread is ours.
        auto made = co_await write_now();
        if (!made) {
            co_return made;
        }
    }
    auto ready = co_await load_position(*run);
    if (ready && !lost_ && run->resumed_ && !run->request_.stream_modes.empty()) {
        ready = co_await replay_log(*run);
    }
    if (ready && !lost_ && run->resumed_) {
        // The attempt counts before it does anything: a run that takes its engine with it in its
        // first superstep would be begun again for ever.
        ready = co_await write_now();
    }
    co_return ready;
}

base::Task<> ThreadSession::execute(RunHandle run) {
    const auto self = shared_from_this();
    graph::RunResult result;
    RunOutcome outcome;
    auto ready = co_await prepare(run);
    if (lost_ || releasing_) {
        co_return;
    }
    auto spec = ready ? spec_of(*run) : base::Result<graph::RunSpec>{ready.error()};
    if (spec) {
        SessionHost host{*this, run};
        result = co_await graph::run_graph(*run->request_.assistant.graph, std::move(*spec),
                                           *position_, host);
        if (lost_ || releasing_) {
            co_return;
        }
        if (host.has_stopped() && !run->roll_back_) {
            // Between two supersteps nothing is lost: the next start is no further attempt.
            set_run_status(*run, storage::RunStatus::pending, encode_note(run->note_),
                           run->row_.attempt - 1);
            release_thread();
            co_return;
        }
        host.hand_over_held_rows();
        // As long as the conversation: a stream's turn would cost more with each turn before it.
        outcome.values_left_out = !run->values_expected_ && !run->request_.stream_modes.empty();
        if (!outcome.values_left_out) {
            outcome.values = position_->state.to_text();
        }
        outcome.input_tokens = host.input_tokens();
        outcome.output_tokens = host.output_tokens();
    } else if (!ready && may_answer_later(ready.error().code)) {
        // The run is begun again, here or elsewhere, and its clients are to look for it there.
        const base::Error later{base::ErrorCode::unavailable, ready.error().message};
        lose(later, true);
        co_return;
    } else {
        result.status = storage::RunStatus::error;
        result.thread_status = storage::ThreadStatus::error;
        result.error = spec.error();
        if (ready) {  // it answered wrongly: what was asked is still asked
            outcome.values = position_->state.to_text();
            keep_asking(result);
        }
    }
    co_await conclude(run, std::move(result), std::move(outcome));
}

base::Task<> ThreadSession::conclude(RunHandle run, graph::RunResult result, RunOutcome outcome) {
    if (run->roll_back_) {
        co_await undo(run);
        if (lost_) {
            co_return;
        }
    }
    const auto actions = queue_.finished(run->row_.id);
    if (!run->roll_back_) {
        end_run(run, std::move(result), std::move(outcome));
    }
    carry_out(actions);
    if (handing_over_) {
        release_thread();
    }
}

base::Task<base::Status> ThreadSession::load_position(const Run& run) {
    const auto& graph = run.request_.assistant.graph;
    if (position_ && graph_ == graph) {
        co_return base::ok();
    }
    if (position_) {  // another assistant's turn on this thread: read it back through its channels
        const auto written = co_await write_now();
        if (!written) {
            co_return written;
        }
        thread_.head = position_->seq;
        position_.reset();
    }
    if (thread_.head == storage::kNoSeq) {
        position_.emplace(graph->channels);
        graph_ = graph;
        co_return base::ok();
    }
    const auto rows = co_await base::from_callback<base::Result<std::optional<storage::StateRows>>>(
        [this](auto done) { context_.store.load_newest(thread_.id, std::move(done)); });
    if (!rows) {
        co_return rows.error();
    }
    auto position =
        *rows ? graph::restore_newest(graph->channels, **rows) : graph::Position{graph->channels};
    if (!position) {
        co_return std::move(position).error();
    }
    position_.emplace(std::move(*position));
    graph_ = graph;
    weigh();
    if (!position_->next.empty()) {
        tool_calls_seq_ = position_->seq;
    }
    co_return base::ok();
}

void ThreadSession::keep_asking(graph::RunResult& result) const {
    auto interrupts = base::parse_stored_json(thread_.interrupts);
    if (!interrupts || interrupts->empty()) {
        return;
    }
    result.thread_status = storage::ThreadStatus::interrupted;
    result.interrupts = std::move(*interrupts);
}

base::Task<base::Status> ThreadSession::replay_log(Run& run) {
    auto events =
        co_await read_run_events(context_.store, context_.catalog, thread_.id, run.row_.id);
    if (!events) {
        co_return std::move(events).error();
    }
    if (lost_) {
        co_return *lost_;
    }
    if (events->newest > position_->seq) {
        // Made after our claim, so not by us; our next write would be told so.
        co_return base::Error{base::ErrorCode::unavailable,
                              "another engine has claimed the thread"};
    }
    run.log_.mark_stored(static_cast<std::uint64_t>(position_->seq + 1));
    for (auto& each : logged_events(run.row_.id, std::move(events->events))) {
        run.log_.append(std::move(each));
    }
    if (run.row_.attempt > 1) {
        const EventId id{static_cast<std::uint64_t>(position_->seq + 1), run.event_attempt(), 0};
        run.log_.append({id, std::nullopt, run_metadata(run.row_.id, run.row_.attempt)});
    }
    co_return base::ok();
}

base::Result<graph::RunSpec> ThreadSession::spec_of(Run& run) const {
    auto taken = run.take_up();
    if (!taken) {
        return std::move(taken).error();
    }
    auto& request = run.request_;
    graph::RunSpec spec;
    spec.thread_id = thread_.id;
    spec.run_id = run.row_.id;
    spec.assistant_id = request.assistant.id;
    // The runner sees by position.run_id whether the input was applied before a crash.
    spec.prepared_input = std::move(request.prepared_input);
    if (spec.prepared_input == nullptr) {
        spec.input = std::move(request.input);
    }
    spec.configurable = std::move(request.configurable);
    spec.metadata = std::move(request.metadata);
    spec.interrupt_before = request.interrupt_before;
    spec.interrupt_after = request.interrupt_after;
    spec.recursion_limit = request.recursion_limit;
    spec.attempt = run.row_.attempt;
    // What earlier attempts took counts, by the clocks of the engines that made them.
    const auto gone = std::chrono::microseconds{
        std::max<std::int64_t>(0, base::unix_microseconds() - run.note_.began_us)};
    spec.deadline = base::system_clock().now() + request.time_max - gone;
    if (request.resume && position_->run_id != run.row_.id) {
        auto answers = address_resume(*request.resume, thread_.interrupts);
        if (!answers) {
            return std::move(answers).error();
        }
        spec.resume = std::move(*answers);
    }
    run.let_go_of_json();
    return spec;
}

base::Task<base::Result<bool>> ThreadSession::is_still_asked(const Run& run) const {
    if (thread_.interrupts == "{}") {
        co_return false;
    }
    const auto newest = co_await find_newest_row(context_.store, thread_.id, run.row_.id);
    if (!newest && newest.error().code != base::ErrorCode::not_found) {
        co_return newest.error();
    }
    co_return !newest || !*newest;  // else the run got past it
}

base::Task<> ThreadSession::give_up(RunHandle run) {
    const auto self = shared_from_this();
    const auto later = [this](const base::Error& error) {
        if (!lost_) {
            lose({base::ErrorCode::unavailable, error.message}, true);
        }
    };
    if (!run->request_.stream_modes.empty()) {
        auto events =
            co_await read_run_events(context_.store, context_.catalog, thread_.id, run->row_.id);
        if (!events && may_answer_later(events.error().code)) {
            later(events.error());
        }
        if (lost_) {
            co_return;
        }
        if (events) {
            // Readers look there for what the log does not keep.
            run->log_.mark_stored(static_cast<std::uint64_t>(events->newest + 1));
            for (auto& each : logged_events(run->row_.id, std::move(events->events))) {
                run->log_.append(std::move(each));
            }
        }
    }
    const bool was_cancelled = run->doomed_->code == base::ErrorCode::cancelled;
    graph::RunResult result;
    result.status = was_cancelled ? storage::RunStatus::interrupted : storage::RunStatus::error;
    result.thread_status =
        was_cancelled ? storage::ThreadStatus::idle : storage::ThreadStatus::error;
    result.error = *run->doomed_;
    const auto asks = co_await is_still_asked(*run);
    if (!asks) {
        later(asks.error());
    }
    if (lost_) {
        co_return;
    }
    if (*asks) {
        keep_asking(result);
    }
    RunOutcome nothing;  // named: g++ 12 destroys an aggregate temporary of a co_await twice
    co_await conclude(run, std::move(result), std::move(nothing));
}

}  // namespace heddle::scheduler
