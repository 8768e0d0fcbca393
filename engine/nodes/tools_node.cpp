#include "engine/nodes/tools_node.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "engine/graph/join.hpp"
#include "engine/nodes/call_decision.hpp"
#include "engine/nodes/chat_state.hpp"

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

constexpr std::size_t kCallsMax = 64;
constexpr int kRepeatsMax = 2;

// What the model reads. It must not take an outcome that is not known for a failure.
constexpr std::string_view kUnknown =
    "Error: it is not known whether this call was carried out: it was begun, and no answer is on "
    "record. It was not made again. Find out what is true before you call it again.";

// Messages in the state have been normalised, but a call's id may be null.
std::string text_of(const Json& call, const char* key, std::string otherwise) {
    const auto at = call.find(key);
    return at != call.end() && at->is_string() ? at->get<std::string>() : std::move(otherwise);
}

/// One call of the model's, on its way to be answered.
struct PlannedCall {
    std::int32_t number = 0;
    std::string id;
    std::string name;
    Json args;
    tools::Tool* tool = nullptr;  ///< null: there is no such tool

    // What is to be done about it.
    bool record = false;  ///< before it is made
    std::optional<tools::ToolAnswer> answer;
    std::optional<Error> fatal;
    std::optional<graph::Interrupt> question;

    [[nodiscard]] bool is_recorded() const { return tool != nullptr && tool->spec().recorded; }
};

PlannedCall plan_call(const Json& call, std::size_t index) {
    PlannedCall planned;
    planned.number = static_cast<std::int32_t>(index);
    planned.id = text_of(call, "id", std::to_string(index));
    planned.name = text_of(call, "name", "");
    const auto args = call.find("args");
    planned.args = args != call.end() ? *args : Json::object();
    return planned;
}

Json answer_message(const PlannedCall& call) {
    return Json{{"type", "tool"},
                {"content", call.answer->content},
                {"name", call.name},
                {"tool_call_id", call.id},
                {"status", call.answer->is_error ? "error" : "success"}};
}

std::string encode_answer(const tools::ToolAnswer& answer) {
    return base::dump_json(Json{{"content", answer.content}, {"is_error", answer.is_error}});
}

Result<tools::ToolAnswer> decode_answer(const std::string& text) {
    const auto json = base::parse_stored_json(text);
    const Error broken{ErrorCode::internal, "a recorded answer of a tool is broken"};
    if (!json || !json->is_object()) {
        return broken;
    }
    const auto content = json->find("content");
    const auto is_error = json->find("is_error");
    if (content == json->end() || !content->is_string() || is_error == json->end() ||
        !is_error->is_boolean()) {
        return broken;
    }
    return tools::ToolAnswer{content->get<std::string>(), is_error->get<bool>()};
}

// The same as often as the step is run, and another for every other call: a UUID of its own.
std::string key_of(const graph::NodeContext& context, std::int32_t number) {
    const auto task = base::Uuid::parse(context.task_id()).value_or(base::Uuid{});
    return base::make_uuid_v5(task, fmt::format("tool call {}", number)).to_string();
}

// Another one each time the call was made: who answers means the call that was asked about.
graph::Interrupt question_about(const graph::NodeContext& context,
                                const PlannedCall& call,
                                const base::RunId& run) {
    const auto task = base::Uuid::parse(context.task_id()).value_or(base::Uuid{});
    auto id =
        base::make_uuid_v5(task, fmt::format("{} in {}", call.number, run.to_string())).to_string();
    std::erase(id, '-');
    return {std::move(id),
            Json{{"type", "tool_outcome_unknown"},
                 {"message", fmt::format("It is not known whether the call of {} was carried out.",
                                         call.name)},
                 {"tool", call.name},
                 {"tool_call_id", call.id},
                 {"args", call.args},
                 {"actions", {"retry", "fail", "result"}}}};
}

class ToolsNode final : public graph::Node {
public:
    explicit ToolsNode(ToolsNodeSpec spec) : spec_{std::move(spec)} {}

    Task<Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        // They live as long as this set, whatever their source offers meanwhile.
        const auto tools = co_await spec_.tools.load(context.deadline(), context.cancel());
        if (!tools) {
            co_return tools.error();
        }
        auto planned = plan_calls(context.state(), **tools);
        if (!planned) {
            co_return std::move(planned).error();
        }
        auto& calls = *planned;
        auto status = co_await look_up(context, calls);
        if (status) {
            status = co_await record(context, calls);
        }
        if (!status) {
            co_return std::move(status).error();
        }
        const bool asks = std::any_of(calls.begin(), calls.end(), [](const PlannedCall& call) {
            return call.question.has_value();
        });
        std::vector<Task<>> running;
        running.reserve(calls.size());
        for (auto& call : calls) {
            // While a question is open, what leaves no record would only be done twice.
            const bool is_due = !call.answer && !call.question && (call.is_recorded() || !asks);
            if (is_due) {
                running.push_back(carry_out(context, call));
            }
        }
        co_await graph::run_all(std::move(running));
        co_return collect(calls);
    }

private:
    [[nodiscard]] Result<std::vector<PlannedCall>> plan_calls(const graph::State& state,
                                                              const tools::ToolSet& tools) const {
        const Json& pending = pending_tool_calls(state);
        if (pending.empty()) {
            return Error{ErrorCode::graph_error,
                         "the last message is no ai message that calls "
                         "tools"};
        }
        if (pending.size() > kCallsMax) {
            return Error{ErrorCode::graph_error,
                         fmt::format("the model called {} tools at once, at most {} are carried "
                                     "out",
                                     pending.size(), kCallsMax)};
        }
        std::vector<PlannedCall> calls;
        calls.reserve(pending.size());
        for (std::size_t i = 0; i < pending.size(); ++i) {
            calls.push_back(plan_call(pending[i], i));
            auto& call = calls.back();
            call.tool = find_tool(tools, call.name);
            call.record = call.is_recorded();
            if (call.tool == nullptr) {
                call.answer =
                    tools::ToolAnswer{fmt::format("Error: {} is not a valid tool, try one of [{}].",
                                                  call.name, names_of(tools)),
                                      true};
            }
        }
        return calls;
    }

    // What earlier attempts at this task have left, and what that means for each call.
    Task<base::Status> look_up(graph::NodeContext& context, std::vector<PlannedCall>& calls) const {
        const bool any = std::any_of(calls.begin(), calls.end(), [](const PlannedCall& call) {
            return call.is_recorded() || call.tool == nullptr;
        });
        if (!any) {
            co_return base::ok();
        }
        const auto found = co_await context.load_calls();
        if (!found) {
            co_return found.error();
        }
        for (const auto& recorded : *found) {
            if (recorded.number < 0 || static_cast<std::size_t>(recorded.number) >= calls.size()) {
                continue;
            }
            auto& call = calls[static_cast<std::size_t>(recorded.number)];
            call.record = false;
            if (!recorded.answer.empty()) {
                auto answer = decode_answer(recorded.answer);
                if (!answer) {
                    co_return std::move(answer).error();
                }
                call.answer = std::move(*answer);
            } else if (call.tool == nullptr) {
                call.answer = tools::ToolAnswer{std::string{kUnknown}, true};
            } else if (call.is_recorded()) {
                auto status = decide(context, call, recorded.run_id);
                if (!status) {
                    co_return status;
                }
            }
        }
        co_return base::ok();
    }

    // A call of which nobody knows what came of it.
    static base::Status decide(graph::NodeContext& context,
                               PlannedCall& call,
                               const base::RunId& made_by) {
        switch (call.tool->spec().on_unknown) {
            case tools::OnUnknown::retry:
                return base::ok();
            case tools::OnUnknown::fail:
                call.answer = tools::ToolAnswer{std::string{kUnknown}, true};
                return base::ok();
            case tools::OnUnknown::ask:
                break;
        }
        auto question = question_about(context, call, made_by);
        // The question names the run that made the call: an answer to an earlier one does not
        // count.
        const auto* value = context.find_resume(question.id);
        if (value == nullptr) {
            call.question = std::move(question);
            return base::ok();
        }
        auto decision = read_call_decision(*value, "command.resume");
        if (!decision) {
            return std::move(decision).error();
        }
        switch (decision->action) {
            case CallDecision::Action::retry:
                call.record = true;
                return base::ok();
            case CallDecision::Action::fail:
                call.answer = tools::ToolAnswer{std::string{kUnknown}, true};
                break;
            case CallDecision::Action::result:
                call.answer = tools::ToolAnswer{std::move(decision->content), false};
                break;
        }
        // Other questions may still be open; this one is not to be asked again.
        context.record_answer(call.number, encode_answer(*call.answer));
        return base::ok();
    }

    // One write for all of them, on disk before the first is made.
    static Task<base::Status> record(graph::NodeContext& context,
                                     const std::vector<PlannedCall>& calls) {
        std::vector<std::int32_t> numbers;
        for (const auto& call : calls) {
            if (call.record) {
                numbers.push_back(call.number);
            }
        }
        if (numbers.empty()) {
            co_return base::ok();
        }
        auto status = co_await context.record_calls(std::move(numbers));
        if (status && context.cancel().is_cancelled()) {
            co_return context.cancel().reason();
        }
        co_return status;
    }

    [[nodiscard]] Result<graph::NodeOutput> collect(std::vector<PlannedCall>& calls) const {
        graph::NodeOutput output;
        output.writes.push_back(graph::ChannelWrite{std::string{kMessages}, Json::array()});
        for (auto& call : calls) {
            if (call.fatal) {
                return *std::move(call.fatal);
            }
            if (call.question) {
                output.interrupts.push_back(*std::move(call.question));
            } else if (call.answer) {
                output.writes.back().value.push_back(answer_message(call));
            }
        }
        return output;
    }

    static tools::Tool* find_tool(const tools::ToolSet& tools, const std::string& name) {
        const auto found = std::find_if(tools.begin(), tools.end(), [&](const auto& tool) {
            return tool->spec().name == name;
        });
        return found == tools.end() ? nullptr : found->get();
    }

    static std::string names_of(const tools::ToolSet& tools) {
        std::string names;
        for (const auto& tool : tools) {
            if (!names.empty()) {
                names += ", ";
            }
            names += tool->spec().name;
        }
        return names;
    }

    // Never throws: run_all() asks for that.
    Task<> carry_out(graph::NodeContext& context, PlannedCall& call) const {
        try {
            co_await call_tool(context, call);
        } catch (const std::exception&) {
            call.fatal = Error{ErrorCode::internal, "a tool failed unexpectedly"};
        }
    }

    static Task<Result<tools::ToolAnswer>> try_once(graph::NodeContext& context,
                                                    const PlannedCall& call) {
        tools::ToolCall request;
        request.id = call.id;
        request.args = call.args;
        request.deadline = context.deadline();
        request.idempotency_key = key_of(context, call.number);
        co_return co_await call.tool->call(std::move(request), context.cancel());
    }

    static bool was_stopped(graph::NodeContext& context, const Error& error) {
        return context.cancel().is_cancelled() || error.code == ErrorCode::cancelled ||
               error.code == ErrorCode::interrupted;
    }

    // It was made, and nobody knows what came of it.
    static bool is_unknown(const PlannedCall& call, const Error& error) {
        return call.is_recorded() &&
               (error.code == ErrorCode::timeout || error.code == ErrorCode::in_doubt);
    }

    Task<> call_tool(graph::NodeContext& context, PlannedCall& call) const {
        auto answer = co_await try_once(context, call);
        for (int more = kRepeatsMax; more > 0 && may_repeat(context, call, answer); --more) {
            answer = co_await try_once(context, call);
        }
        if (answer) {
            call.answer = std::move(*answer);
        } else {
            const Error& error = answer.error();
            if (was_stopped(context, error) || spec_.fail_on_error) {
                call.fatal = error;
                co_return;
            }
            if (is_unknown(call, error)) {
                if (call.tool->spec().on_unknown == tools::OnUnknown::ask) {
                    // Its record stays without an answer, for whoever gets the decision.
                    call.question = question_about(context, call, context.run_id());
                    co_return;
                }
                call.answer = tools::ToolAnswer{std::string{kUnknown}, true};
            } else {
                call.answer = tools::ToolAnswer{
                    fmt::format("Error: {}\n Please fix your mistakes.", error.message), true};
            }
        }
        if (call.is_recorded()) {
            context.record_answer(call.number, encode_answer(*call.answer));
        }
    }

    // With the same key a tool that honours it acts once, however often it is called.
    [[nodiscard]] bool may_repeat(graph::NodeContext& context,
                                  const PlannedCall& call,
                                  const Result<tools::ToolAnswer>& answer) const {
        return !answer && !spec_.fail_on_error && !was_stopped(context, answer.error()) &&
               is_unknown(call, answer.error()) &&
               call.tool->spec().on_unknown == tools::OnUnknown::retry &&
               (context.deadline() == base::Instant{} ||
                base::system_clock().now() < context.deadline());
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
