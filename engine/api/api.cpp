#include "engine/api/api.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/observe/log.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;

// An edge that has been sent round this often has no better engine to ask: it gets an answer.
constexpr std::uint32_t kMovesMax = 4;

// This engine can do no more for the request (it lost its lease, or its way to the store), and
// nothing was done that a repeat would do twice: the edge asks another engine, within the same
// response. A run that was begun here is joined there by its id.
bool may_do_better_elsewhere(ErrorCode code) noexcept {
    return code == ErrorCode::unavailable || code == ErrorCode::stale_epoch;
}

Response response_to(const Error& error) {
    if (error.code == ErrorCode::owned_elsewhere) {
        return response_to({ErrorCode::unavailable, "the thread's engine cannot be reached"});
    }
    auto response = error_response(error);
    if (response.status == 503) {
        response.headers.emplace_back("retry-after", "1");
    }
    return response;
}

}  // namespace

Api::Api(scheduler::Scheduler& scheduler, ApiOptions options)
    : scheduler_{scheduler}, options_{std::move(options)}, router_{routes()} {}

std::vector<Route> Api::routes() {
    constexpr bool kStarts = true;
    constexpr bool kThread = true;
    const auto at_once = [](std::string_view verb, std::string_view pattern,
                            Route::AtOnce handler) {
        return Route{verb, pattern, nullptr, handler, false, false};
    };
    return {
        at_once("GET", "/ok", &Api::get_ok),
        at_once("GET", "/info", &Api::get_info),
        at_once("GET", "/metrics", &Api::get_metrics),
        at_once("POST", "/assistants/search", &Api::search_assistants),
        at_once("POST", "/assistants/count", &Api::count_assistants),
        at_once("GET", "/assistants/{}", &Api::get_assistant),
        at_once("GET", "/assistants/{}/graph", &Api::get_assistant_graph),
        at_once("GET", "/assistants/{}/schemas", &Api::get_assistant_schemas),
        {"POST", "/threads", &Api::create_thread, nullptr, kStarts, false},
        {"POST", "/threads/search", &Api::search_threads, nullptr, false, false},
        {"POST", "/threads/count", &Api::count_threads, nullptr, false, false},
        {"GET", "/threads/{}", &Api::get_thread, nullptr, false, kThread},
        {"PATCH", "/threads/{}", &Api::patch_thread, nullptr, false, kThread},
        {"DELETE", "/threads/{}", &Api::delete_thread, nullptr, false, kThread},
        {"GET", "/threads/{}/state", &Api::get_state, nullptr, false, kThread},
        {"POST", "/threads/{}/state/checkpoint", &Api::post_state_checkpoint, nullptr, false,
         kThread},
        {"GET", "/threads/{}/state/{}", &Api::get_state_at, nullptr, false, kThread},
        {"GET", "/threads/{}/history", &Api::get_history, nullptr, false, kThread},
        {"POST", "/threads/{}/history", &Api::post_history, nullptr, false, kThread},
        {"POST", "/threads/{}/runs", &Api::create_run, nullptr, kStarts, kThread},
        {"POST", "/threads/{}/runs/wait", &Api::wait_run, nullptr, kStarts, kThread},
        {"POST", "/threads/{}/runs/stream", &Api::stream_run, nullptr, kStarts, kThread},
        {"POST", "/runs", &Api::create_run, nullptr, kStarts, false},
        {"POST", "/runs/wait", &Api::wait_run, nullptr, kStarts, false},
        {"POST", "/runs/stream", &Api::stream_run, nullptr, kStarts, false},
        {"GET", "/threads/{}/runs", &Api::list_runs, nullptr, false, kThread},
        {"GET", "/threads/{}/runs/{}", &Api::get_run, nullptr, false, kThread},
        {"DELETE", "/threads/{}/runs/{}", &Api::delete_run, nullptr, false, kThread},
        {"GET", "/threads/{}/runs/{}/join", &Api::join_run, nullptr, false, kThread},
        {"GET", "/threads/{}/runs/{}/stream", &Api::join_stream, nullptr, false, kThread},
        {"POST", "/threads/{}/runs/{}/cancel", &Api::cancel_run, nullptr, false, kThread},
        {"GET", "/runs/{}/stream", &Api::join_stream_stateless, nullptr, false, false},
        {"POST", "/chat", &Api::chat, nullptr, kStarts, false},
    };
}

Plan Api::plan(Request& request) {
    Plan plan;
    auto match = router_.find(request.method, request.path);
    if (match.route == nullptr) {
        if (match.allow.empty()) {
            plan.answer = error_response({ErrorCode::not_found, "Not found"});
        } else {
            plan.answer = error_response({ErrorCode::method_not_allowed, "Method not allowed"});
            plan.answer->headers.emplace_back("allow", match.allow);
        }
        return plan;
    }
    request.route = match.route;
    request.params = std::move(match.params);
    if (match.route->at_once != nullptr) {
        plan.answer = (this->*match.route->at_once)(request);
        return plan;
    }
    plan.starts_work = match.route->starts_work;
    if (match.route->thread_first) {
        const auto thread = parse_id<base::ThreadId>(request.params[0], "thread_id");
        if (!thread) {
            plan.answer = error_response(thread.error());
            return plan;
        }
        plan.shard_key = *thread;
        return plan;
    }
    if (request.params.empty() && request.path.starts_with("/runs")) {
        plan.shard_key = *thread_of_run(request, true);
        request.thread_id = plan.shard_key.to_string();
        return plan;
    }
    const auto hinted = base::ThreadId::parse(request.thread_id);
    plan.shard_key = hinted ? *hinted : base::ThreadId{base::make_uuid_v7()};
    request.thread_id = plan.shard_key.to_string();
    return plan;
}

base::Task<std::optional<base::ThreadId>> Api::handle(Request& request, ResponseSink& sink) {
    Call call{request, sink, Query{request.query}, false};
    auto outcome = co_await (this->*request.route->handler)(call);
    if (outcome) {
        if (const auto* elsewhere = std::get_if<Elsewhere>(&outcome->what)) {
            co_return elsewhere->thread;
        }
        if (auto* response = std::get_if<Response>(&outcome->what)) {
            (void)co_await sink.respond(std::move(*response));
        }
        co_return std::nullopt;
    }
    const auto& error = outcome.error();
    // A run that is stored goes on somewhere; the edge looks for it as long as its client waits.
    const bool may_move = call.accepted || request.accepted || request.hop < kMovesMax;
    if (error.code == ErrorCode::owned_elsewhere && may_move && !call.accepted) {
        sink.moved(error.field, error.message);
        co_return std::nullopt;
    }
    if (may_do_better_elsewhere(error.code) && may_move) {
        sink.refused(ErrorCode::unavailable);
        co_return std::nullopt;
    }
    if (error.code == ErrorCode::internal) {
        observe::log(observe::LogLevel::error, "api", "{} {}: {}", request.method,
                     request.route->pattern, error.message);
    }
    auto response = response_to(error);
    (void)co_await sink.respond(std::move(response));
    co_return std::nullopt;
}

base::Instant Api::wait_until(const Request& request, base::Duration most) const {
    const auto bound = base::system_clock().now() + most;
    return std::min(bound, request.deadline);
}

}  // namespace heddle::api
