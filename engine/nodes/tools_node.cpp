#include "engine/nodes/tools_node.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "engine/graph/join.hpp"
#include "engine/nodes/chat_state.hpp"

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

constexpr std::size_t kCallsMax = 64;

struct CallOutcome {
    Json message;
    std::optional<Error> fatal;
};

// Messages in the state have been normalised, but a call's id may be null.
std::string text_of(const Json& call, const char* key, std::string otherwise) {
    const auto at = call.find(key);
    return at != call.end() && at->is_string() ? at->get<std::string>() : std::move(otherwise);
}

/// One call of the model's, on its way to be answered.
struct PlannedCall {
    std::string id;
    std::string name;
    Json args;
};

PlannedCall plan_call(const Json& call, std::size_t index) {
    const auto args = call.find("args");
    return PlannedCall{text_of(call, "id", std::to_string(index)), text_of(call, "name", ""),
                       args != call.end() ? *args : Json::object()};
}

Json answer_message(const PlannedCall& call, std::string content, bool is_error) {
    return Json{{"type", "tool"},
                {"content", std::move(content)},
                {"name", call.name},
                {"tool_call_id", call.id},
                {"status", is_error ? "error" : "success"}};
}

class ToolsNode final : public graph::Node {
public:
    explicit ToolsNode(ToolsNodeSpec spec) : spec_{std::move(spec)} {}

    Task<Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const Json& calls = pending_tool_calls(context.state());
        if (calls.empty()) {
            co_return Error{ErrorCode::graph_error,
                            "the last message is no ai message that calls "
                            "tools"};
        }
        if (calls.size() > kCallsMax) {
            co_return Error{ErrorCode::graph_error,
                            fmt::format("the model called {} tools at once, at most {} are carried "
                                        "out",
                                        calls.size(), kCallsMax)};
        }
        std::vector<CallOutcome> outcomes(calls.size());
        std::vector<PlannedCall> planned;
        planned.reserve(calls.size());
        for (std::size_t i = 0; i < calls.size(); ++i) {
            planned.push_back(plan_call(calls[i], i));
        }
        std::vector<Task<>> running;
        running.reserve(calls.size());
        for (std::size_t i = 0; i < calls.size(); ++i) {
            running.push_back(carry_out(context, planned[i], outcomes[i]));
        }
        co_await graph::run_all(std::move(running));

        graph::NodeOutput output;
        output.writes.push_back(graph::ChannelWrite{std::string{kMessages}, Json::array()});
        for (auto& outcome : outcomes) {
            if (outcome.fatal) {
                co_return *std::move(outcome.fatal);
            }
            output.writes.back().value.push_back(std::move(outcome.message));
        }
        co_return output;
    }

private:
    [[nodiscard]] tools::Tool* find_tool(const std::string& name) const {
        const auto found =
            std::find_if(spec_.tools.begin(), spec_.tools.end(),
                         [&](const auto& tool) { return tool->spec().name == name; });
        return found == spec_.tools.end() ? nullptr : found->get();
    }

    [[nodiscard]] std::string tool_names() const {
        std::string names;
        for (const auto& tool : spec_.tools) {
            if (!names.empty()) {
                names += ", ";
            }
            names += tool->spec().name;
        }
        return names;
    }

    // Never throws: run_all() asks for that.
    Task<> carry_out(graph::NodeContext& context,
                     const PlannedCall& call,
                     CallOutcome& outcome) const {
        try {
            co_await call_tool(context, call, outcome);
        } catch (const std::exception&) {
            outcome.fatal = Error{ErrorCode::internal, "a tool failed unexpectedly"};
        }
    }

    Task<> call_tool(graph::NodeContext& context,
                     const PlannedCall& call,
                     CallOutcome& outcome) const {
        tools::Tool* tool = find_tool(call.name);
        if (tool == nullptr) {
            outcome.message =
                answer_message(call,
                               fmt::format("Error: {} is not a valid tool, try one of [{}].",
                                           call.name, tool_names()),
                               true);
            co_return;
        }
        tools::ToolCall request;
        request.id = call.id;
        request.args = call.args;
        request.deadline = context.deadline();
        request.idempotency_key = fmt::format("{}:{}", context.task_id(), request.id);
        auto answer = co_await tool->call(std::move(request), context.cancel());
        if (answer) {
            outcome.message = answer_message(call, std::move(answer->content), answer->is_error);
            co_return;
        }
        const Error& error = answer.error();
        const bool stopped = context.cancel().is_cancelled() ||
                             error.code == ErrorCode::cancelled ||
                             error.code == ErrorCode::interrupted;
        if (stopped || spec_.fail_on_error) {
            outcome.fatal = error;
            co_return;
        }
        outcome.message = answer_message(
            call, fmt::format("Error: {}\n Please fix your mistakes.", error.message), true);
    }

    ToolsNodeSpec spec_;
};

class ToolCalled final : public graph::Condition {
public:
    explicit ToolCalled(std::vector<std::string> tools) : tools_{std::move(tools)} {}

    [[nodiscard]] Result<bool> holds(const graph::State& state) const override {
        const Json& calls = pending_tool_calls(state);
        return std::any_of(calls.begin(), calls.end(), [&](const Json& call) {
            const auto name = text_of(call, "name", "");
            return std::find(tools_.begin(), tools_.end(), name) != tools_.end();
        });
    }

private:
    std::vector<std::string> tools_;
};

}  // namespace

std::shared_ptr<const graph::Node> make_tools_node(ToolsNodeSpec spec) {
    return std::make_shared<ToolsNode>(std::move(spec));
}

std::shared_ptr<const graph::Condition> make_tool_called(std::vector<std::string> tools) {
    return std::make_shared<ToolCalled>(std::move(tools));
}

}  // namespace heddle::nodes
