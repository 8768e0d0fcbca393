#include "engine/graph/runner.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "engine/graph/checkpoint.hpp"
#include "engine/graph/debug_events.hpp"
#include "engine/graph/join.hpp"
#include "engine/graph/superstep.hpp"
#include "engine/graph/task_run.hpp"
#include "engine/observe/log.hpp"

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Json;
using base::Result;
using base::Status;
using base::Task;

constexpr std::string_view kNoChange = R"({"d":{}})";

/// One run of a graph: the thin loop around the decisions of superstep.hpp. Lives in run_graph's
/// frame, on the run's shard.
class Execution {
public:
    Execution(const Graph& graph, RunSpec spec, Position& position, RunHost& host)
        : graph_{graph},
          spec_{std::move(spec)},
          position_{position},
          host_{host},
          common_{common_metadata(graph_, spec_)} {}

    Task<RunResult> run();

private:
    Task<Status> begin();
    Task<Status> take_input(bool input_row_exists);
    Task<Status> go_on();
    Task<Status> superstep(const std::vector<PlannedTask>& tasks);
    Task<Status> execute(const std::vector<PlannedTask>& tasks, std::vector<TaskOutcome>& outcomes);
    /// @param events  of the step so far; the checkpoint's own and the values are added
    Task<Status> checkpoint(CheckpointInfo info, std::vector<StreamEvent> events, bool values);
    [[nodiscard]] Status may_go_on() const;
    void emit_values();
    /// @param interrupts  text of a list; empty at a breakpoint
    /// Some task asks something: the superstep is not over.
    void stop_asking(const std::vector<PlannedTask>& tasks,
                     const std::vector<TaskOutcome>& outcomes);
    [[nodiscard]] RunResult succeeded() const;
    [[nodiscard]] RunResult failed(Error error) const;

    const Graph& graph_;
    RunSpec spec_;
    Position& position_;
    RunHost& host_;
    std::string common_;
    bool pass_breakpoint_ = false;  ///< the next superstep is the one that was held back
    bool stopped_ = false;          ///< by a breakpoint, or because tasks ask something
    Json asked_ = Json::object();   ///< what they ask, by task id
};

Task<RunResult> Execution::run() {
    auto status = co_await begin();
    if (status && !stopped_) {
        status = co_await go_on();
    }
    if (!status) {
        co_return failed(std::move(status).error());
    }
    co_return succeeded();
}

Task<Status> Execution::begin() {
    // Rows of this very run mean that it was started before, here or on an engine that died.
    const bool repeated = position_.seq != storage::kNoSeq && position_.run_id == spec_.run_id;
    const bool input_pending = position_.next.size() == 1 && position_.next.front() == kStart;
    if (repeated && !input_pending) {
        stopped_ = position_.paused;
        co_return base::ok();
    }
    if (spec_.input || spec_.prepared_input != nullptr) {
        auto status = co_await take_input(repeated);
        co_return status;
    }
    if (position_.seq == storage::kNoSeq || input_pending) {
        co_return Error{ErrorCode::invalid_argument, "input: received no input for __start__",
                        "input"};
    }
    pass_breakpoint_ = true;
    emit_values();
    co_return base::ok();
}

Task<Status> Execution::take_input(bool input_row_exists) {
    auto prepared = std::move(spec_.prepared_input);
    if (prepared == nullptr) {
        auto made = prepare_input(*graph_.channels, std::move(*spec_.input), spec_.run_id);
        if (!made) {
            co_return std::move(made).error();
        }
        prepared = std::move(*made);
    }
    if (!input_row_exists) {
        CheckpointInfo info{"input", std::string{kNoChange}, {std::string{kStart}}};
        std::vector<StreamEvent> events;
        auto status = co_await checkpoint(std::move(info), std::move(events), false);
        if (!status) {
            co_return status;
        }
    }
    auto step = apply_step(graph_, position_.state, *prepared, {std::string{kStart}});
    if (!step) {
        co_return std::move(step).error();
    }
    CheckpointInfo info{"loop", std::move(step->delta), std::move(step->next)};
    std::vector<StreamEvent> events;
    auto status = co_await checkpoint(std::move(info), std::move(events), true);
    co_return status;
}

Status Execution::may_go_on() const {
    if (host_.cancel().is_cancelled()) {
        return host_.cancel().reason();
    }
    if (spec_.deadline != Instant{} && host_.clock().now() >= spec_.deadline) {
        return Error{ErrorCode::timeout, "the run's deadline has passed"};
    }
    return base::ok();
}

Task<Status> Execution::go_on() {
    for (std::int32_t steps = 0; !position_.next.empty(); ++steps) {
        auto status = may_go_on();
        if (!status) {
            co_return status;
        }
        if (steps >= spec_.recursion_limit) {
            co_return Error{
                ErrorCode::recursion_limit,
                fmt::format(
                    "Recursion limit of {} reached without hitting a stop condition. You can "
                    "increase the limit by setting the `recursion_limit` config key.",
                    spec_.recursion_limit)};
        }
        auto tasks = plan_step(graph_, position_.next, position_.checkpoint_id);
        if (!tasks) {
            co_return std::move(tasks).error();
        }
        if (!std::exchange(pass_breakpoint_, false)) {
            auto held = stops_before(graph_, position_.state, *tasks, spec_.interrupt_before);
            if (!held) {
                co_return std::move(held).error();
            }
            if (*held) {
                stopped_ = true;
                co_return base::ok();
            }
        }
        status = co_await superstep(*tasks);
        if (!status) {
            co_return status;
        }
        if (stopped_) {
            co_return base::ok();
        }
        if (position_.paused) {
            stopped_ = true;
            co_return base::ok();
        }
    }
    co_return base::ok();
}

Task<Status> Execution::superstep(const std::vector<PlannedTask>& tasks) {
    std::vector<TaskOutcome> outcomes(tasks.size());
    auto status = co_await execute(tasks, outcomes);
    if (!status) {
        co_return status;
    }
    const bool asks = std::any_of(outcomes.begin(), outcomes.end(),
                                  [](const auto& each) { return !each.interrupts.empty(); });
    if (asks) {
        stop_asking(tasks, outcomes);
        co_return base::ok();
    }

    std::vector<std::string> finished;
    finished.reserve(tasks.size());
    std::vector<PreparedWrite> writes;
    std::vector<StreamEvent> events;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        finished.push_back(tasks[i].node->name);
        auto& outcome = outcomes[i];
        std::move(outcome.writes.begin(), outcome.writes.end(), std::back_inserter(writes));
        if (!outcome.update.empty()) {
            events.push_back({StreamMode::updates, std::move(outcome.update)});
        }
    }
    auto step = apply_step(graph_, position_.state, writes, finished);
    if (!step) {
        co_return std::move(step).error();
    }

    CheckpointInfo info{"loop", std::move(step->delta), std::move(step->next)};
    info.paused = !info.next.empty() && stops_after(graph_, tasks, spec_.interrupt_after);
    status = co_await checkpoint(std::move(info), std::move(events), !writes.empty());
    co_return status;
}

// One task of several: its failure stops the others, the first one is the step's.
Task<> run_beside(StepScope& scope,
                  const PlannedTask& task,
                  TaskOutcome& outcome,
                  std::optional<Error>& first_error) {
    outcome = co_await run_task(scope, task);
    if (!outcome.error) {
        co_return;
    }
    if (!first_error) {
        first_error = outcome.error;
    }
    scope.cancel.cancel(Error{ErrorCode::cancelled, "another node of the same step failed"});
}

Task<Status> Execution::execute(const std::vector<PlannedTask>& tasks,
                                std::vector<TaskOutcome>& outcomes) {
    base::CancelSource cancel;
    const auto forward = host_.cancel().on_cancel([&] { cancel.cancel(host_.cancel().reason()); });
    // What was answered was asked by the step that the run goes on with, and by no later one.
    const auto* resume = position_.run_id == spec_.run_id ? nullptr : &spec_.resume;
    StepScope scope{graph_, spec_, position_, host_, position_.step + 1, cancel, resume};
    std::optional<Error> first_error;
    if (tasks.size() == 1) {
        co_await run_beside(scope, tasks.front(), outcomes.front(), first_error);
    } else {
        std::vector<Task<>> beside;
        beside.reserve(tasks.size());
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            beside.push_back(run_beside(scope, tasks[i], outcomes[i], first_error));
        }
        co_await run_all(std::move(beside));
    }
    if (host_.cancel().is_cancelled()) {
        co_return host_.cancel().reason();
    }
    if (first_error) {
        co_return *std::move(first_error);
    }
    co_return base::ok();
}

Task<Status> Execution::checkpoint(CheckpointInfo info,
                                   std::vector<StreamEvent> events,
                                   bool values) {
    const auto parent = position_.checkpoint_id;
    auto row = advance(position_, spec_.run_id, common_, std::move(info));
    add_checkpoint_events(events, host_, spec_, position_, row, parent);
    if (values && host_.wants(StreamMode::values)) {
        events.push_back({StreamMode::values, position_.state.to_text()});
    }
    auto status = co_await host_.checkpoint(std::move(row), std::move(events));
    co_return status;
}

void Execution::emit_values() {
    if (!host_.wants(StreamMode::values)) {
        return;
    }
    host_.emit(StreamEvent{StreamMode::values, position_.state.to_text()});
}

void Execution::stop_asking(const std::vector<PlannedTask>& tasks,
                            const std::vector<TaskOutcome>& outcomes) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        if (!outcomes[i].interrupts.empty()) {
            asked_[tasks[i].id_text] = to_json(outcomes[i].interrupts);
        }
    }
    stopped_ = true;
}

RunResult Execution::succeeded() const {
    RunResult result;
    if (!stopped_) {
        return result;
    }
    result.thread_status = storage::ThreadStatus::interrupted;
    result.stop = flatten_interrupts(asked_);
    if (!asked_.empty()) {
        result.status = storage::RunStatus::interrupted;
        result.interrupts = asked_;
        return result;
    }
    result.interrupts = breakpoint_interrupts(position_.checkpoint_id, position_.next);
    return result;
}

RunResult Execution::failed(Error error) const {
    RunResult result;
    result.status = storage::RunStatus::error;
    result.thread_status = storage::ThreadStatus::error;
    const bool late = spec_.deadline != Instant{} && host_.clock().now() >= spec_.deadline;
    if (host_.cancel().is_cancelled() && error.code != ErrorCode::timeout) {
        result.status = storage::RunStatus::interrupted;
        result.thread_status = position_.next.empty() ? storage::ThreadStatus::idle
                                                      : storage::ThreadStatus::interrupted;
    } else if (error.code == ErrorCode::timeout && (late || host_.cancel().is_cancelled())) {
        result.status = storage::RunStatus::timeout;
    }
    result.error = std::move(error);
    return result;
}

}  // namespace

bool is_supported(StreamMode mode) noexcept {
    return mode != StreamMode::messages && mode != StreamMode::events;
}

Task<RunResult> run_graph(const Graph& graph, RunSpec spec, Position& position, RunHost& host) {
    Execution execution{graph, std::move(spec), position, host};
    auto result = co_await execution.run();
    co_return result;
}

Json flatten_interrupts(const Json& interrupts) {
    auto all = Json::array();
    for (const auto& asked : interrupts) {
        all.insert(all.end(), asked.begin(), asked.end());
    }
    return all;
}

}  // namespace heddle::graph
