#include "engine/nodes/model_node.hpp"

#include <array>
#include <ctime>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "engine/base/clock.hpp"
#include "engine/nodes/chat_state.hpp"

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

Json describe_now() {
    static constexpr std::array<std::string_view, 7> kDays{
        "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
    const auto unix_us = base::unix_microseconds();
    const auto seconds = static_cast<std::time_t>(unix_us / 1'000'000);
    std::tm utc{};
    (void)gmtime_r(&seconds, &utc);
    return Json{
        {"date", fmt::format("{:04}-{:02}-{:02}", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday)},
        {"weekday", kDays[static_cast<std::size_t>(utc.tm_wday)]},
        {"time", fmt::format("{:02}:{:02}", utc.tm_hour, utc.tm_min)},
        {"iso", base::format_iso8601(unix_us)}};
}

// As ChatRequest::tools.
Json describe_tools(const tools::ToolSet& tools) {
    Json described = Json::array();
    for (const auto& tool : tools) {
        const auto& spec = tool->spec();
        described.push_back(Json{{"name", spec.name},
                                 {"description", spec.description},
                                 {"parameters", spec.parameters}});
    }
    return described;
}

class ModelNode final : public graph::Node {
public:
    explicit ModelNode(ModelNodeSpec spec) : spec_{std::move(spec)} {}

    Task<Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const auto tools = co_await spec_.tools.load(context.deadline(), context.cancel());
        if (!tools) {
            co_return tools.error();
        }
        models::ChatRequest request;
        request.messages = messages_of(context);
        request.tools = describe_tools(**tools);
        request.deadline = context.deadline();
        request.stream = context.wants_messages();
        models::OnChunk on_chunk;
        if (request.stream) {
            on_chunk = [&context](Json chunk) { context.emit_message(std::move(chunk)); };
        }
        auto reply =
            co_await spec_.model->call(std::move(request), std::move(on_chunk), context.cancel());
        if (!reply) {
            co_return std::move(reply).error();
        }
        context.count_tokens(reply->usage.input_tokens, reply->usage.output_tokens);
        if (!reply->message.is_object()) {
            co_return Error{ErrorCode::model_error, "the model's answer is no message"};
        }
        co_return write_message(std::move(reply->message));
    }

private:
    [[nodiscard]] Json messages_of(const graph::NodeContext& context) const {
        Json messages = Json::array();
        if (spec_.system != nullptr) {
            messages.push_back(
                Json{{"type", "system"}, {"content", spec_.system->render(values_of(context))}});
        }
        if (const auto* list = context.state().find_list(kMessages); list != nullptr) {
            for (const auto& item : *list) {
                messages.push_back(item.json());
            }
        }
        return messages;
    }

    static Json values_of(const graph::NodeContext& context) {
        Json values = Json::object();
        for (const auto& channel : context.state().channels()) {
            const auto* value = context.state().find_value(channel.name);
            if (value != nullptr) {
                values[channel.name] = value->json();
            }
        }
        values["config"] = context.configurable();
        values["now"] = describe_now();
        return values;
    }

    ModelNodeSpec spec_;
};

}  // namespace

std::shared_ptr<const graph::Node> make_model_node(ModelNodeSpec spec) {
    return std::make_shared<ModelNode>(std::move(spec));
}

}  // namespace heddle::nodes
