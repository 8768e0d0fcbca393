#include "engine/graph/task_run.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "engine/base/signal.hpp"
#include "engine/base/timer.hpp"
#include "engine/graph/debug_events.hpp"
#include "engine/observe/log.hpp"

namespace heddle::graph {
namespace {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Json;
using base::Result;
using base::Task;

bool is_repeatable(ErrorCode code) noexcept {
    // A graph_error comes out the same every time; a cancel is meant.
    switch (code) {
        case ErrorCode::timeout:
        case ErrorCode::unavailable:
        case ErrorCode::overloaded:
        case ErrorCode::model_error:
        case ErrorCode::tool_error:
            return true;
        default:
            return false;
    }
}

/// One attempt's view of the run.
class TaskContext final : public NodeContext {
public:
    TaskContext(StepScope& scope, const PlannedTask& task, Instant deadline)
        : scope_{scope}, task_{task}, deadline_{deadline} {}

    [[nodiscard]] const State& state() const noexcept override { return scope_.position.state; }
    [[nodiscard]] const base::ThreadId& thread_id() const noexcept override {
        return scope_.spec.thread_id;
    }
    [[nodiscard]] const base::RunId& run_id() const noexcept override { return scope_.spec.run_id; }
    [[nodiscard]] const Json& configurable() const noexcept override {
        return scope_.spec.configurable;
    }
    [[nodiscard]] std::string task_id() const override { return task_.id_text; }
    [[nodiscard]] Instant deadline() const noexcept override { return deadline_; }
    [[nodiscard]] base::CancelSource& cancel() noexcept override { return *cancel_; }
    [[nodiscard]] bool wants_messages() const noexcept override {
        return scope_.host.wants(StreamMode::messages_tuple);
    }
    void emit_message(Json chunk) override {
        if (cancel_->is_cancelled() || !wants_messages()) {
            return;
        }
        const auto id = chunk.find("id");
        if (id != chunk.end() && id->is_string()) {
            streamed_.insert(id->get<std::string>());
        }
        emit_message_text(base::dump_json(chunk));
    }
    void emit_custom(Json payload) override {
        if (cancel_->is_cancelled() || !scope_.host.wants(StreamMode::custom)) {
            return;
        }
        scope_.host.emit(StreamEvent{StreamMode::custom, base::dump_json(payload)});
    }
    void count_tokens(std::int64_t input_tokens, std::int64_t output_tokens) override {
        scope_.host.count_tokens(input_tokens, output_tokens);
    }

    Task<Result<std::vector<RecordedCall>>> load_calls() override {
        auto rows = co_await scope_.host.load_tool_calls(scope_.position.seq);
        if (!rows) {
            co_return std::move(rows).error();
        }
        std::vector<RecordedCall> calls;
        for (auto& row : *rows) {
            if (row.task_id == task_.id) {
                calls.push_back(RecordedCall{row.number, row.run_id, std::move(row.answer)});
            }
        }
        co_return calls;
    }
    Task<base::Status> record_calls(std::vector<std::int32_t> numbers) override {
        std::vector<storage::ToolCallRow> rows;
        for (const auto number : numbers) {
            rows.push_back(row_of(number));
        }
        auto status = co_await scope_.host.record_tool_calls(std::move(rows));
        co_return status;
    }
    void record_answer(std::int32_t number, std::string answer) override {
        auto row = row_of(number);
        row.answer = std::move(answer);
        scope_.host.record_answer(std::move(row));
    }
    [[nodiscard]] const Json* find_resume(const std::string& interrupt) const override {
        if (scope_.resume == nullptr) {
            return nullptr;
        }
        const auto at = scope_.resume->find(interrupt);
        return at == scope_.resume->end() ? nullptr : &at->second;
    }

    // Emits what the node returned without having streamed it, once and whole.
    void emit_unstreamed(const std::vector<PreparedWrite>& writes) {
        for (const auto& write : writes) {
            const auto& spec = scope_.graph.channels->at(write.channel);
            if (spec.reducer != Reducer::add_messages) {
                continue;
            }
            for (const auto& item : write.items) {
                const auto id = item.json().value("id", std::string{});
                if (item.json().value("type", std::string{}) == "remove" ||
                    streamed_.contains(id) || state().has_message(write.channel, id)) {
                    continue;
                }
                emit_message_text(item.text());
            }
        }
    }
    // NOLINTNEXTLINE: for the timer's weak reference
    [[nodiscard]] const std::shared_ptr<base::CancelSource>& shared_cancel() const noexcept {
        return cancel_;
    }

private:
    [[nodiscard]] storage::ToolCallRow row_of(std::int32_t number) const {
        storage::ToolCallRow row;
        row.seq = scope_.position.seq;
        row.task_id = task_.id;
        row.number = number;
        row.run_id = scope_.spec.run_id;
        return row;
    }
    void emit_message_text(const std::string& message) {
        if (metadata_.empty()) {
            metadata_ = make_metadata();
        }
        scope_.host.emit(
            StreamEvent{StreamMode::messages_tuple, fmt::format("[{},{}]", message, metadata_)});
    }
    [[nodiscard]] std::string make_metadata() const {
        const auto& spec = scope_.spec;
        const auto& node = task_.node->name;
        const auto name_space = fmt::format("{}:{}", node, task_.id_text);
        Json metadata = spec.metadata.is_object() ? spec.metadata : Json::object();
        metadata["run_id"] = spec.run_id.to_string();
        metadata["thread_id"] = spec.thread_id.to_string();
        metadata["graph_id"] = scope_.graph.name;
        metadata["assistant_id"] = spec.assistant_id.to_string();
        metadata["run_attempt"] = spec.attempt;
        metadata["langgraph_step"] = scope_.step;
        metadata["langgraph_node"] = node;
        metadata["langgraph_triggers"] = Json::array({fmt::format("branch:to:{}", node)});
        metadata["langgraph_path"] = Json::array({"__pregel_pull", node});
        metadata["langgraph_checkpoint_ns"] = name_space;
        metadata["checkpoint_ns"] = name_space;
        return base::dump_json(metadata);
    }

    StepScope& scope_;
    const PlannedTask& task_;
    Instant deadline_;
    // Shared with the timer's handler, which may run when the attempt is over.
    const std::shared_ptr<base::CancelSource> cancel_ =  // NOLINT: stays on one shard
        std::make_shared<base::CancelSource>();
    std::set<std::string> streamed_;
    std::string metadata_;
};

/// Until when an attempt that starts now may take, and whose limit that is.
struct AttemptLimit {
    Instant deadline;
    Error error;
};

AttemptLimit limit_of(const StepScope& scope, const PlannedTask& task) {
    const auto now = scope.host.clock().now();
    const auto own = now + std::chrono::duration_cast<Instant::duration>(task.node->timeout);
    const auto whole = scope.spec.deadline;
    if (whole != Instant{} && whole <= own) {
        return {whole, Error{ErrorCode::timeout, "the run's deadline has passed"}};
    }
    const auto seconds = std::chrono::duration<double>(task.node->timeout).count();
    return {own, Error{ErrorCode::timeout,
                       fmt::format("node \"{}\" took longer than {} s", task.node->name, seconds)}};
}

Task<Result<NodeOutput>> call_node(const Node& node, TaskContext& context) {
    try {
        co_return co_await node.run(context);
    } catch (const std::exception& e) {
        observe::log(observe::LogLevel::error, "graph", "a node threw: {}", e.what());
    }
    co_return Error{ErrorCode::internal, "a node failed unexpectedly"};
}

Task<Result<NodeOutput>> attempt(StepScope& scope,
                                 const PlannedTask& task,
                                 TaskContext& context,
                                 const AttemptLimit& limit) {
    base::CancelSource& mine = context.cancel();
    const auto forward = scope.cancel.on_cancel([&] { mine.cancel(scope.cancel.reason()); });
    if (mine.is_cancelled()) {
        co_return mine.reason();
    }

    const base::Executor executor = co_await asio::this_coro::executor;
    base::Timer timer{executor};
    timer.expires_after(std::max(limit.deadline - scope.host.clock().now(), Instant::duration{}));
    const std::weak_ptr<base::CancelSource> weak = context.shared_cancel();
    timer.async_wait([weak, error = limit.error](const asio::error_code& aborted) {
        const auto source = weak.lock();
        if (!aborted && source != nullptr) {
            source->cancel(error);
        }
    });
    auto output = co_await call_node(*task.node->body, context);
    timer.cancel();
    // A node that was stopped says so in its own words; what stopped it says it better.
    if (!output && mine.is_cancelled()) {
        co_return mine.reason();
    }
    co_return output;
}

Duration wait_before(const RetryPolicy& retry, std::int32_t failed_attempts) {
    double wait = static_cast<double>(retry.first_wait.count());
    for (std::int32_t i = 1; i < failed_attempts; ++i) {
        wait *= retry.factor;
    }
    return Duration{
        static_cast<Duration::rep>(std::min(wait, static_cast<double>(retry.wait_max.count())))};
}

// Waits before the next attempt; a cancel or the run's deadline end it early.
Task<> back_off(StepScope& scope, Duration wait) {
    base::Signal cancelled;
    const auto wake = scope.cancel.on_cancel([&] { cancelled.notify_all(); });
    auto rest = std::chrono::duration_cast<Instant::duration>(wait);
    if (scope.spec.deadline != Instant{}) {
        rest = std::min(rest, scope.spec.deadline - scope.host.clock().now());
    }
    // The host's clock may be a test's; what is waited for here passes by the machine's.
    const auto until = base::system_clock().now() + rest;
    while (!scope.cancel.is_cancelled() && base::system_clock().now() < until) {
        co_await cancelled.wait(until);
    }
}

Result<std::vector<PreparedWrite>> prepare_output(const StepScope& scope,
                                                  const PlannedTask& task,
                                                  NodeOutput output) {
    IdMint mint{task.id};
    auto prepared = prepare_writes(*scope.graph.channels, std::move(output.writes), "", mint);
    if (prepared) {
        return prepared;
    }
    auto error = std::move(prepared).error();
    error.code = ErrorCode::graph_error;
    return error;
}

// The error as the client sees it: it names the node.
Error name_node(Error error, const PlannedTask& task) {
    if (error.code == ErrorCode::timeout || error.code == ErrorCode::cancelled ||
        error.code == ErrorCode::interrupted) {
        return error;
    }
    error.message = fmt::format("node \"{}\": {}", task.node->name, error.message);
    return error;
}

}  // namespace

std::string updates_text(const Channels& channels,
                         std::string_view node,
                         const std::vector<PreparedWrite>& writes) {
    std::string out = "{";
    base::append_json_string(out, node);
    out += ':';
    if (writes.empty()) {
        return out + "null}";
    }
    out += '{';
    for (const auto& write : writes) {
        const auto& spec = channels[write.channel];
        if (out.back() != '{') {
            out += ',';
        }
        base::append_json_string(out, spec.name);
        out += ':';
        if (spec.reducer == Reducer::last_value) {
            out += write.items.front().text();
            continue;
        }
        out += '[';
        for (std::size_t i = 0; i < write.items.size(); ++i) {
            if (i > 0) {
                out += ',';
            }
            out += write.items[i].text();
        }
        out += ']';
    }
    return out + "}}";
}

Json to_json(const std::vector<Interrupt>& interrupts) {
    Json list = Json::array();
    for (const auto& interrupt : interrupts) {
        list.push_back(Json{{"value", interrupt.value}, {"id", interrupt.id}});
    }
    return list;
}

Task<TaskOutcome> run_task(StepScope& scope, const PlannedTask& task) {
    TaskOutcome outcome;
    emit_task_start(scope, task);
    for (std::int32_t attempts = 1;; ++attempts) {
        const auto limit = limit_of(scope, task);
        TaskContext context{scope, task, limit.deadline};
        auto output = co_await attempt(scope, task, context, limit);
        if (output && !output->interrupts.empty()) {
            outcome.interrupts = std::move(output->interrupts);
            break;
        }
        if (output) {
            auto prepared = prepare_output(scope, task, std::move(*output));
            if (prepared) {
                outcome.writes = std::move(*prepared);
                if (context.wants_messages()) {
                    context.emit_unstreamed(outcome.writes);
                }
                break;
            }
            output = std::move(prepared).error();
        }
        const auto now = scope.host.clock().now();
        const bool late = scope.spec.deadline != Instant{} && now >= scope.spec.deadline;
        if (scope.cancel.is_cancelled() || late || !is_repeatable(output.error().code) ||
            attempts >= task.node->retry.attempts_max) {
            outcome.error = name_node(std::move(output).error(), task);
            break;
        }
        observe::log(observe::LogLevel::info, "graph", "node {} fails, attempt {} of {}",
                     task.node->name, attempts, task.node->retry.attempts_max);
        co_await back_off(scope, wait_before(task.node->retry, attempts));
    }
    emit_task_end(scope, task, outcome);
    if (!outcome.error && outcome.interrupts.empty() && scope.host.wants(StreamMode::updates)) {
        outcome.update = updates_text(*scope.graph.channels, task.node->name, outcome.writes);
    }
    co_return outcome;
}

}  // namespace heddle::graph
