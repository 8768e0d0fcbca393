#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/api/http.hpp"
#include "engine/api/router.hpp"
#include "engine/api/run_body.hpp"
#include "engine/scheduler/scheduler.hpp"

namespace heddle::api {

struct ApiOptions {
    std::string version;                                         ///< of Heddle, for /info
    std::string engine_name;                                     ///< for /info
    base::Duration keep_alive_every = std::chrono::seconds{3};   ///< "\n" while a wait is silent
    base::Duration chat_silence_max = std::chrono::seconds{15};  ///< the same for /chat
    base::Duration heartbeat_every = std::chrono::seconds{15};   ///< comment while a stream is
    base::Duration store_wait_max = std::chrono::seconds{30};    ///< for a run to be on disk
    std::int64_t runs_max = 50'000;  ///< waiting and executing on this engine; past it overloaded
    base::Duration owner_wait_max = std::chrono::seconds{3};  ///< for a dead owner's lease
};

/// One request on its way through a handler.
struct Call {
    Request& request;
    ResponseSink& sink;
    Query query;
    bool accepted = false;  ///< the edge has been told: it can no longer send the request elsewhere
};

struct Streamed {};  ///< the sink has had everything
/// The request belongs to the shard of this thread; nothing was done.
struct Elsewhere {
    base::ThreadId thread;
};
/// What a handler leaves to be done.
struct Answer {
    std::variant<Response, Streamed, Elsewhere> what;

    Answer(Response response) : what{std::move(response)} {}  // NOLINT: `co_return response;`
    Answer(Streamed streamed) : what{streamed} {}             // NOLINT
    Answer(Elsewhere elsewhere) : what{elsewhere} {}          // NOLINT
};

/// The HTTP API: LangGraph's routes and POST /chat (docs/api.md). plan() may be called on any OS
/// thread; handlers run on the shard of their thread and keep nothing between requests.
class Api final : public Handler {
public:
    /// `scheduler` must outlive it.
    Api(scheduler::Scheduler& scheduler, ApiOptions options);

    Plan plan(Request& request) override;
    base::Task<std::optional<base::ThreadId>> handle(Request& request, ResponseSink& sink) override;

private:
    using Outcome = base::Result<Answer>;
    using Render = std::function<Response(const scheduler::RunOutcome&)>;
    struct Attached {
        scheduler::RunHandle run;  ///< null: it ended, and only its row is left
        storage::RunRow row;
    };
    struct StreamPlan {
        std::vector<graph::StreamMode> modes;  ///< empty: all that the run logs
        /// Unset: from the beginning, with metadata.
        std::optional<scheduler::EventId> after;
        bool cancel_on_disconnect = false;
        bool stateless = false;
    };

    static std::vector<Route> routes();

    // system.cpp: no thread, no store
    Response get_ok(const Request& request) const;
    Response get_info(const Request& request) const;
    Response get_metrics(const Request& request) const;
    // assistants.cpp: the same
    Response search_assistants(const Request& request) const;
    Response count_assistants(const Request& request) const;
    Response get_assistant(const Request& request) const;
    Response get_assistant_graph(const Request& request) const;
    Response get_assistant_schemas(const Request& request) const;

    // threads.cpp
    base::Task<Outcome> create_thread(Call& call);
    base::Task<Outcome> get_thread(Call& call);
    base::Task<Outcome> patch_thread(Call& call);
    base::Task<Outcome> delete_thread(Call& call);
    base::Task<Outcome> search_threads(Call& call);
    base::Task<Outcome> count_threads(Call& call);
    // state.cpp
    base::Task<Outcome> get_state(Call& call);
    base::Task<Outcome> get_state_at(Call& call);
    base::Task<Outcome> post_state_checkpoint(Call& call);
    base::Task<Outcome> get_history(Call& call);
    base::Task<Outcome> post_history(Call& call);
    // runs.cpp
    base::Task<Outcome> create_run(Call& call);
    base::Task<Outcome> wait_run(Call& call);
    base::Task<Outcome> stream_run(Call& call);
    base::Task<Outcome> list_runs(Call& call);
    base::Task<Outcome> get_run(Call& call);
    base::Task<Outcome> delete_run(Call& call);
    base::Task<Outcome> cancel_run(Call& call);
    base::Task<Outcome> join_run(Call& call);
    base::Task<Outcome> join_stream(Call& call);
    base::Task<Outcome> join_stream_stateless(Call& call);
    // chat.cpp
    base::Task<Outcome> chat(Call& call);

    // run_start.cpp
    /// The body of a request that starts a run, checked, with its thread's id.
    base::Task<base::Result<RunBody>> read_run(Call& call);
    /// If the request has an Idempotency-Key: gives it the run, and without a thread of its own
    /// also the thread, that the key stands for. @param scope  in which the key is one
    /// @return invalid_argument, naming the header
    base::Task<base::Status> claim_key(Call& call, std::string scope, scheduler::RunRequest& run);
    /// Fills in the ids and submits. Returns once the run is on disk and the edge has been told.
    base::Task<base::Result<scheduler::RunHandle>> start_run(Call& call, scheduler::RunRequest run);
    base::Result<base::ThreadId> thread_of_run(const Request& request, bool stateless) const;
    base::Task<base::Result<Attached>> attach(Call& call, base::ThreadId thread, base::RunId run);
    /// Waits until the run is on disk, and tells the edge so: should this engine die, it goes on
    /// elsewhere.
    /// The outcome of a run that has ended, values and all.
    base::Task<base::Result<scheduler::RunOutcome>> with_values(const scheduler::Run& run,
                                                                scheduler::RunOutcome outcome);
    base::Task<base::Status> wait_stored(Call& call, scheduler::Run& run);
    base::Task<> cancel_quietly(base::ThreadId thread, base::RunId run);
    base::CancelSource::Registration cancel_when_gone(Call& call, const scheduler::RunHandle& run);
    // run_answer.cpp
    /// Answers with render(outcome) when the run has ended; "\n" now and then until that.
    base::Task<Outcome> answer_at_end(Call& call,
                                      scheduler::RunHandle run,
                                      base::Duration silence,
                                      Render render);
    base::Task<Outcome> stream_events(Call& call, scheduler::RunHandle run, StreamPlan plan);
    base::Task<Outcome> stream_ended(Call& call, storage::RunRow row, StreamPlan plan);
    base::Task<Outcome> join_stream_of(Call& call,
                                       base::ThreadId thread,
                                       base::RunId run,
                                       bool stateless);

    /// While another engine owns the thread, and the edge could not use it: tries again until the
    /// owner's lease has passed.
    template <class T>
    base::Task<T> with_owner(Call& call, std::function<base::Task<T>()> operation);
    [[nodiscard]] base::Instant wait_until(const Request& request, base::Duration most) const;
    [[nodiscard]] storage::Store& store() const noexcept { return scheduler_.store(); }

    scheduler::Scheduler& scheduler_;
    ApiOptions options_;
    Router router_;
};

template <class T>
base::Task<T> Api::with_owner(Call& call, std::function<base::Task<T>()> operation) {
    constexpr base::Duration kRetryWait = std::chrono::milliseconds{200};
    const auto until = wait_until(call.request, options_.owner_wait_max);
    while (true) {
        auto result = co_await operation();
        const bool wait = !result && result.error().code == base::ErrorCode::owned_elsewhere &&
                          call.request.hop > 0 && base::system_clock().now() < until &&
                          !call.sink.gone().is_cancelled();
        if (!wait) {
            co_return result;
        }
        co_await base::wait_for(kRetryWait);
    }
}

/// A path parameter that must be a UUID. @return invalid_argument naming `what`
template <class IdType>
base::Result<IdType> parse_id(const std::string& text, std::string_view what) {
    const auto id = IdType::parse(text);
    if (!id) {
        return base::Error{base::ErrorCode::invalid_argument, std::string{what} + " must be a UUID",
                           std::string{what}};
    }
    return *id;
}

}  // namespace heddle::api
