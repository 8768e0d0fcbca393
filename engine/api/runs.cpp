#include <utility>

#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/api/fields.hpp"
#include "engine/api/run_body.hpp"
#include "engine/api/shapes.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::RunId;
using base::ThreadId;

constexpr base::Duration kCancelWaitMax = std::chrono::seconds{30};

bool is_stateless(const Request& request) {
    return request.params.empty();
}

std::string content_location(const storage::RunRow& run, bool stateless) {
    if (stateless) {
        return fmt::format("/runs/{}", run.id.to_string());
    }
    return fmt::format("/threads/{}/runs/{}", run.thread_id.to_string(), run.id.to_string());
}

Response wait_response(const scheduler::RunOutcome& outcome, const std::string& location) {
    auto response = json_response(
        200, is_failure(outcome) ? fmt::format(R"({{"__error__":{}}})", failure_json(outcome.error))
                                 : outcome_values(outcome));
    response.headers.emplace_back("content-location", location);
    return response;
}

// Unset, or no id of ours: from the beginning.
std::optional<scheduler::EventId> last_event_id(const Request& request) {
    const auto* text = request.find_header("last-event-id");
    return text == nullptr ? std::nullopt : scheduler::EventId::parse(*text);
}

struct RunPath {
    ThreadId thread;
    RunId run;
};

base::Result<RunPath> read_path(const Request& request) {
    const auto thread = parse_id<ThreadId>(request.params[0], "thread_id");
    if (!thread) {
        return thread.error();
    }
    const auto run = parse_id<RunId>(request.params[1], "run_id");
    if (!run) {
        return run.error();
    }
    return RunPath{*thread, *run};
}

}  // namespace

base::Task<Api::Outcome> Api::create_run(Call& call) {
    const bool stateless = is_stateless(call.request);
    auto body = co_await read_run(call);
    if (!body) {
        co_return std::move(body).error();
    }
    if (body->elsewhere) {
        co_return Answer{Elsewhere{*body->elsewhere}};
    }
    auto run = co_await start_run(call, std::move(body->run));
    if (!run) {
        co_return std::move(run).error();
    }
    const auto& row = (*run)->row();
    auto response = json_response(200, run_json(row));
    response.headers.emplace_back("content-location", content_location(row, stateless));
    co_return Answer{std::move(response)};
}

base::Task<Api::Outcome> Api::wait_run(Call& call) {
    const bool stateless = is_stateless(call.request);
    auto body = co_await read_run(call);
    if (!body) {
        co_return std::move(body).error();
    }
    if (body->elsewhere) {
        co_return Answer{Elsewhere{*body->elsewhere}};
    }
    // Nobody reads events of a wait unless they are asked for by name (and joined elsewhere).
    if (!body->names_modes) {
        body->run.stream_modes.clear();
    }
    const bool cancel_on_disconnect = body->cancel_on_disconnect;
    auto run = co_await start_run(call, std::move(body->run));
    if (!run) {
        co_return std::move(run).error();
    }
    base::CancelSource::Registration cancel =
        cancel_on_disconnect ? cancel_when_gone(call, *run) : base::CancelSource::Registration{};
    Render render = [location = content_location((*run)->row(), stateless)](
                        const scheduler::RunOutcome& outcome) {
        return wait_response(outcome, location);
    };
    co_return co_await answer_at_end(call, *run, options_.keep_alive_every, std::move(render));
}

base::Task<Api::Outcome> Api::stream_run(Call& call) {
    const bool stateless = is_stateless(call.request);
    auto body = co_await read_run(call);
    if (!body) {
        co_return std::move(body).error();
    }
    if (body->elsewhere) {
        co_return Answer{Elsewhere{*body->elsewhere}};
    }
    StreamPlan plan;
    plan.modes = body->run.stream_modes;
    plan.cancel_on_disconnect = body->cancel_on_disconnect;
    plan.stateless = stateless;
    if (call.request.hop > 0) {
        plan.after = last_event_id(call.request);
    }
    auto run = co_await start_run(call, std::move(body->run));
    if (!run) {
        co_return std::move(run).error();
    }
    if ((*run)->is_read_back()) {
        co_return co_await stream_ended(call, (*run)->row(), std::move(plan));
    }
    co_return co_await stream_events(call, *run, std::move(plan));
}

base::Task<Api::Outcome> Api::list_runs(Call& call) {
    const auto thread = *ThreadId::parse(call.request.params[0]);
    storage::RunFilter filter;
    const auto limit = call.query.integer("limit", 10, 1, 1000);
    if (!limit) {
        co_return limit.error();
    }
    const auto offset = call.query.integer("offset", 0, 0, INT32_MAX);
    if (!offset) {
        co_return offset.error();
    }
    filter.limit = static_cast<std::int32_t>(*limit);
    filter.offset = static_cast<std::int32_t>(*offset);
    if (const auto* status = call.query.find("status"); status != nullptr && !status->empty()) {
        filter.status = storage::parse_run_status(*status);
        if (!filter.status) {
            co_return Error{ErrorCode::invalid_argument,
                            "status must be one of pending, running, error, success, timeout, "
                            "interrupted",
                            "status"};
        }
    }
    const auto rows = co_await base::from_callback<base::Result<std::vector<storage::RunRow>>>(
        [&](auto done) { store().list_runs(thread, filter, std::move(done)); });
    if (!rows) {
        co_return rows.error();
    }
    if (rows->empty()) {  // no runs, or no thread?
        const auto row = co_await base::from_callback<base::Result<storage::ThreadRow>>(
            [&](auto done) { store().load_thread(thread, std::move(done)); });
        if (!row) {
            co_return row.error();
        }
    }
    const auto select = call.query.list("select");
    std::vector<std::string> items;
    for (const auto& row : *rows) {
        items.push_back(run_json(row, select));
    }
    co_return Answer{json_response(200, json_list(items))};
}

base::Task<Api::Outcome> Api::get_run(Call& call) {
    const auto path = read_path(call.request);
    if (!path) {
        co_return path.error();
    }
    const auto handle = scheduler_.of(path->thread).find_run(path->thread, path->run);
    if (handle != nullptr) {
        co_return Answer{json_response(200, run_json(handle->row()))};
    }
    const auto row = co_await base::from_callback<base::Result<storage::RunRow>>(
        [&](auto done) { store().load_run(path->thread, path->run, std::move(done)); });
    if (row) {
        co_return Answer{json_response(200, run_json(*row))};
    }
    if (row.error().code != ErrorCode::not_found) {
        co_return row.error();
    }
    co_return Error{ErrorCode::not_found, "Run not found", "run_id"};
}

base::Task<Api::Outcome> Api::delete_run(Call& call) {
    const auto path = read_path(call.request);
    if (!path) {
        co_return path.error();
    }
    std::function<base::Task<base::Status>()> operation = [&] {
        return scheduler_.of(path->thread).delete_run(path->thread, path->run);
    };
    auto status = co_await with_owner<base::Status>(call, std::move(operation));
    if (!status) {
        co_return std::move(status).error();
    }
    co_return Answer{Response{204, {}, {}}};
}

base::Task<Api::Outcome> Api::cancel_run(Call& call) {
    const auto path = read_path(call.request);
    if (!path) {
        co_return path.error();
    }
    const auto wait = call.query.flag("wait", false);
    if (!wait) {
        co_return wait.error();
    }
    const auto* action = call.query.find("action");
    const bool roll_back = action != nullptr && *action == "rollback";
    if (action != nullptr && !action->empty() && !roll_back && *action != "interrupt") {
        co_return Error{ErrorCode::invalid_argument, "action must be interrupt or rollback",
                        "action"};
    }
    const auto before = scheduler_.of(path->thread).find_run(path->thread, path->run);
    std::function<base::Task<base::Status>()> operation = [&] {
        return scheduler_.of(path->thread).cancel_run(path->thread, path->run, roll_back);
    };
    auto status = co_await with_owner<base::Status>(call, std::move(operation));
    if (!status) {
        co_return std::move(status).error();
    }
    if (!*wait) {
        co_return Answer{Response{202, {}, {}}};
    }
    // The handle from before: a run that ended at once may be out of memory already.
    const auto run =
        before != nullptr ? before : scheduler_.of(path->thread).find_run(path->thread, path->run);
    if (run != nullptr) {
        auto outcome = co_await run->wait_finished(wait_until(call.request, kCancelWaitMax));
        if (!outcome) {
            co_return std::move(outcome).error();
        }
    }
    co_return Answer{Response{204, {}, {}}};
}

base::Task<Api::Outcome> Api::join_run(Call& call) {
    const auto path = read_path(call.request);
    if (!path) {
        co_return path.error();
    }
    const auto cancel_on_disconnect = call.query.flag("cancel_on_disconnect", false);
    if (!cancel_on_disconnect) {
        co_return cancel_on_disconnect.error();
    }
    auto attached = co_await attach(call, path->thread, path->run);
    if (!attached) {
        co_return std::move(attached).error();
    }
    if (attached->run == nullptr) {
        const auto& row = attached->row;
        if (scheduler::has_failed(row)) {
            co_return Answer{json_response(
                200, fmt::format(R"({{"__error__":{}}})", stored_failure_json(row.error)))};
        }
        const auto outcome = co_await scheduler_.of(path->thread).load_outcome(row);
        if (!outcome) {
            co_return outcome.error();
        }
        co_return Answer{json_response(200, outcome_values(*outcome))};
    }
    base::CancelSource::Registration cancel = *cancel_on_disconnect
                                                  ? cancel_when_gone(call, attached->run)
                                                  : base::CancelSource::Registration{};
    Render render = [location = content_location(attached->run->row(), false)](
                        const scheduler::RunOutcome& outcome) {
        return wait_response(outcome, location);
    };
    co_return co_await answer_at_end(call, attached->run, options_.keep_alive_every,
                                     std::move(render));
}

base::Task<Api::Outcome> Api::join_stream_of(Call& call,
                                             ThreadId thread,
                                             RunId run,
                                             bool stateless) {
    StreamPlan plan;
    plan.stateless = stateless;
    plan.after = last_event_id(call.request);
    auto modes = read_stream_modes(call.query.list("stream_mode"), "stream_mode");
    if (!modes) {
        co_return std::move(modes).error();
    }
    plan.modes = std::move(*modes);
    const auto cancel = call.query.flag("cancel_on_disconnect", false);
    if (!cancel) {
        co_return cancel.error();
    }
    plan.cancel_on_disconnect = *cancel;
    for (const auto* name : {"namespace", "checkpoint_id"}) {
        if (!call.query.list(name).empty()) {
            co_return Error{ErrorCode::unsupported, fmt::format("{} is not supported", name), name};
        }
    }
    auto attached = co_await attach(call, thread, run);
    if (!attached) {
        co_return std::move(attached).error();
    }
    if (attached->run == nullptr) {
        co_return co_await stream_ended(call, std::move(attached->row), std::move(plan));
    }
    if (attached->run->is_read_back()) {
        co_return co_await stream_ended(call, attached->run->row(), std::move(plan));
    }
    co_return co_await stream_events(call, attached->run, std::move(plan));
}

base::Task<Api::Outcome> Api::join_stream(Call& call) {
    const auto path = read_path(call.request);
    if (!path) {
        co_return path.error();
    }
    co_return co_await join_stream_of(call, path->thread, path->run, false);
}

base::Task<Api::Outcome> Api::join_stream_stateless(Call& call) {
    const auto run = parse_id<RunId>(call.request.params[0], "run_id");
    if (!run) {
        co_return run.error();
    }
    const auto row = co_await base::from_callback<base::Result<storage::RunRow>>(
        [&](auto done) { store().find_run(*run, std::move(done)); });
    if (!row) {
        if (row.error().code != ErrorCode::not_found) {
            co_return row.error();
        }
        co_return Error{ErrorCode::not_found, "Run not found", "run_id"};
    }
    const auto here = *ThreadId::parse(call.request.thread_id);
    if (&scheduler_.pool().of(row->thread_id) != &scheduler_.pool().of(here)) {
        co_return Answer{Elsewhere{row->thread_id}};
    }
    co_return co_await join_stream_of(call, row->thread_id, *run, true);
}

}  // namespace heddle::api
