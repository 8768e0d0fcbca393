// How a run is reported: one answer at its end, or its events as they happen.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/api/log_reader.hpp"
#include "engine/api/shapes.hpp"
#include "engine/api/sse.hpp"
#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using graph::StreamMode;
using scheduler::EventId;

constexpr base::Duration kEndWaitMax = std::chrono::seconds{30};

std::string run_path(const storage::RunRow& run, bool stateless) {
    const auto path = fmt::format("/runs/{}", run.id.to_string());
    return stateless ? path : fmt::format("/threads/{}{}", run.thread_id.to_string(), path);
}

Response stream_head(const storage::RunRow& run, bool stateless) {
    const auto path = run_path(run, stateless);
    Response head{200, {{"content-type", "text/event-stream"}, {"cache-control", "no-store"}}, {}};
    head.headers.emplace_back("content-location", path);
    head.headers.emplace_back("location", path + "/stream");
    return head;
}

// What every stream begins with. Further attempts announce themselves in the log.
void append_metadata(std::string& out, const storage::RunRow& run) {
    append_event(out, "metadata", scheduler::run_metadata(run.id, 1), EventId{}.to_string());
}

// The event that says how a run ended comes after all that it did, and after all that its reader
// has had: events of supersteps that no attempt made durable are ahead of what is left.
EventId end_id(const EventId& last, const std::optional<EventId>& after) {
    return EventId::of_failure(std::max(last.rows, after ? after->rows : 0));
}

bool has_had_end(const std::optional<EventId>& after) {
    return after && after->is_of_end();
}

// The store may answer again soon, perhaps to another engine.
ErrorCode told_to_reader(ErrorCode code) noexcept {
    return code == ErrorCode::overloaded || code == ErrorCode::timeout ? ErrorCode::unavailable
                                                                       : code;
}

base::Task<base::Result<Answer>> finish_stream(ResponseSink& sink, std::string tail) {
    if (!tail.empty()) {
        const auto written = co_await sink.write(std::move(tail));
        if (!written) {
            co_return Answer{Streamed{}};
        }
    }
    sink.end();
    co_return Answer{Streamed{}};
}

}  // namespace

base::Task<base::Result<scheduler::RunOutcome>> Api::with_values(const scheduler::Run& run,
                                                                 scheduler::RunOutcome outcome) {
    if (!outcome.values_left_out || scheduler::has_failed(outcome)) {
        co_return outcome;
    }
    const auto thread = run.row().thread_id;
    auto values = co_await scheduler_.of(thread).load_values(thread, run.row().id);
    if (!values) {
        co_return std::move(values).error();
    }
    outcome.values = std::move(*values);
    outcome.values_left_out = false;
    co_return outcome;
}

base::Task<Api::Outcome> Api::answer_at_end(Call& call,
                                            scheduler::RunHandle run,
                                            base::Duration silence,
                                            Render render) {
    auto& sink = call.sink;
    bool started = false;
    run->expect_values();
    while (true) {
        auto outcome = co_await run->wait_finished(wait_until(call.request, silence));
        if (outcome) {
            outcome = co_await with_values(*run, std::move(*outcome));
        }
        if (sink.gone().is_cancelled()) {
            co_return Answer{Streamed{}};
        }
        if (outcome) {
            auto response = render(*outcome);
            if (!started) {
                co_return Answer{std::move(response)};
            }
            co_return co_await finish_stream(sink, std::move(response.body));
        }
        auto error = std::move(outcome).error();
        const bool is_late = base::system_clock().now() >= call.request.deadline;
        if (run->is_finished() || is_late) {
            if (started) {
                sink.fail(error.code);
            } else {
                co_return error;
            }
            co_return Answer{Streamed{}};
        }
        if (started) {
            std::string silence_break = "\n";
            const auto written = co_await sink.write(std::move(silence_break));
            if (!written) {
                co_return Answer{Streamed{}};
            }
        } else {
            // Only now: until here the answer could still be one frame, with a status of its own.
            auto head = render(scheduler::RunOutcome{});
            head.status = 200;
            head.body = "\n";
            sink.start(std::move(head));
            started = true;
        }
    }
}

base::Task<Api::Outcome> Api::stream_events(Call& call, scheduler::RunHandle run, StreamPlan plan) {
    auto& sink = call.sink;
    auto& log = run->log();
    LogReader reader{scheduler_.of(run->row().thread_id), *run, plan.modes, plan.after};
    auto head = stream_head(run->row(), plan.stateless);
    if (!plan.after) {
        append_metadata(head.body, run->row());
    }
    reader.take_within(head.body, kHeadBodyBytesMax);
    sink.start(std::move(head));
    const auto on_gone = sink.gone().on_cancel([&log] { log.changed().notify_all(); });
    base::CancelSource::Registration cancel = plan.cancel_on_disconnect
                                                  ? cancel_when_gone(call, run)
                                                  : base::CancelSource::Registration{};

    auto heartbeat_at = base::system_clock().now() + options_.heartbeat_every;
    while (!reader.is_at_end() && !sink.gone().is_cancelled()) {
        std::string batch;
        const auto moved = co_await reader.read(batch);
        if (!moved) {
            sink.fail(told_to_reader(moved.error().code));
            co_return Answer{Streamed{}};
        }
        const auto now = base::system_clock().now();
        if (now >= call.request.deadline) {
            sink.fail(ErrorCode::timeout);
            co_return Answer{Streamed{}};
        }
        if (batch.empty() && now >= heartbeat_at) {
            batch = kHeartbeat;
        }
        if (!batch.empty()) {
            heartbeat_at = now + options_.heartbeat_every;
            const auto written = co_await sink.write(std::move(batch));
            if (!written) {
                co_return Answer{Streamed{}};
            }
            continue;
        }
        if (*moved || reader.is_at_end()) {
            continue;
        }  // the last events were of modes that nobody asked for
        co_await log.changed().wait(std::min(heartbeat_at, call.request.deadline));
    }
    if (sink.gone().is_cancelled()) {
        co_return Answer{Streamed{}};
    }

    // The log closes when the run has ended here; the answer may say so once that is on disk.
    auto outcome = co_await run->wait_finished(base::system_clock().now() + kEndWaitMax);
    if (outcome && log.is_empty()) {
        outcome = co_await with_values(*run, std::move(*outcome));
    }
    if (!outcome) {
        sink.fail(told_to_reader(outcome.error().code));
        co_return Answer{Streamed{}};
    }
    std::string tail;
    const auto end = end_id(log.last_id(), plan.after);
    const bool told = has_had_end(plan.after);
    if (is_failure(*outcome) && !told) {
        append_event(tail, "error", failure_json(outcome->error), end.to_string());
    } else if (log.is_empty() && !told && wants(plan.modes, StreamMode::values)) {
        append_event(tail, "values", outcome_values(*outcome), end.to_string());
    }
    co_return co_await finish_stream(sink, std::move(tail));
}

base::Task<Api::Outcome> Api::stream_ended(Call& call, storage::RunRow row, StreamPlan plan) {
    // Tokens may be gone; what each superstep came to is not.
    auto& shard = scheduler_.of(row.thread_id);
    auto loaded = co_await shard.load_run_events(row);
    if (!loaded) {
        co_return loaded.error();
    }
    const auto& all = loaded->events;
    const auto last = all.empty() ? loaded->cut_at.value_or(EventId{}) : all.back().id;
    const bool has_logged = std::any_of(all.begin(), all.end(),
                                        [](const auto& each) { return each.mode && !each.lost; });
    const auto end = end_id(last, plan.after).to_string();
    const bool told = has_had_end(plan.after);
    const bool has_gap = loaded->cut_at && plan.after.value_or(EventId{}) < *loaded->cut_at;
    std::string tail;
    if (has_gap && !told) {
        const Error pruned{ErrorCode::not_found,
                           fmt::format("events of this run were pruned with their checkpoints; GET "
                                       "/threads/{}/state has what the thread came to",
                                       row.thread_id.to_string())};
        append_event(tail, "error", failure_json(pruned), end);
    } else if (scheduler::has_failed(row) && !told) {
        append_event(tail, "error", stored_failure_json(row.error), end);
    } else if (!has_logged && loaded->stop.empty() && !told &&
               wants(plan.modes, StreamMode::values)) {
        const auto outcome = co_await shard.load_outcome(row);
        if (!outcome) {
            co_return outcome.error();
        }
        append_event(tail, "values", outcome_values(*outcome), end);
    }
    for (const auto& event : loaded->stop) {
        if (!has_gap && wants(plan.modes, event.mode) && (!plan.after || *plan.after < event.id)) {
            append_logged(tail, event);
        }
    }
    auto head = stream_head(row, plan.stateless);
    if (!plan.after) {
        append_metadata(head.body, row);
    }
    call.sink.start(std::move(head));
    Announcer announcer{row.id, plan.after};
    std::vector<scheduler::LoggedEvent> events;
    if (!has_gap) {
        events = readable(std::move(loaded->events), {plan.modes, plan.after.value_or(EventId{})},
                          row.thread_id, loaded->checkpoint);
    }
    for (const auto& event : events) {
        std::string text;
        announcer.append(text, event);
        const auto written = co_await call.sink.write(std::move(text));
        if (!written) {
            co_return Answer{Streamed{}};
        }
    }
    co_return co_await finish_stream(call.sink, std::move(tail));
}

}  // namespace heddle::api
