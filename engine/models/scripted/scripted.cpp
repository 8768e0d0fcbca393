#include "engine/models/scripted/scripted.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "engine/base/signal.hpp"
#include "engine/models/messages.hpp"
#include "engine/models/scripted/script.hpp"
#include "engine/models/scripted/text.hpp"
#include "engine/yaml/yaml.hpp"

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

// A quarter of the characters, as providers count roughly; at least it is always the same.
std::int64_t tokens(std::size_t count) {
    return static_cast<std::int64_t>((count + 3) / 4);
}

std::vector<std::string_view> split_words(std::string_view text) {
    std::vector<std::string_view> words;
    while (!text.empty()) {
        const auto blank = text.find(' ', 1);
        words.push_back(text.substr(0, blank));
        text.remove_prefix(std::min(blank, text.size()));
    }
    return words;
}

AiMessage to_answer(const ChatRequest& request,
                    const ScriptedReply& reply,
                    const std::string& model) {
    AiMessage answer;
    answer.id = make_message_id();
    answer.content = reply.text;
    answer.model_name = model;
    answer.finish_reason = reply.calls.empty() ? "stop" : "tool_calls";
    std::size_t read = 0;
    std::size_t written = characters(reply.text);
    for (const auto& message : request.messages) {
        read += characters(message_text(message));
    }
    for (std::size_t i = 0; i < reply.calls.size(); ++i) {
        // Unique within the conversation, and the same when a step is run again.
        RawToolCall call{fmt::format("call_{}_{}", request.messages.size(), i), reply.calls[i].name,
                         base::dump_json(reply.calls[i].args)};
        written += characters(call.args);
        answer.tool_calls.push_back(std::move(call));
    }
    answer.usage = Usage{tokens(read), tokens(written)};
    return answer;
}

class ScriptedModel final : public ChatModel {
public:
    ScriptedModel(observe::Metrics& metrics, Script script, std::string name, int latency_ms)
        : metrics_{metrics},
          script_{std::move(script)},
          name_{std::move(name)},
          latency_ms_{latency_ms} {}

    Task<Result<ChatReply>> call(ChatRequest request,
                                 OnChunk on_chunk,
                                 base::CancelSource& cancel) override {
        metrics_.model_calls_total.fetch_add(1, std::memory_order_relaxed);
        const auto reply = script_.answer(look_at(request.messages));
        const auto answer = to_answer(request, reply, name_);
        const std::chrono::milliseconds latency{reply.latency_ms.value_or(latency_ms_)};
        const auto begun = base::system_clock().now();
        base::Signal cancelled;
        const auto registration = cancel.on_cancel([&cancelled] { cancelled.notify_all(); });
        const auto words = request.stream && on_chunk ? split_words(answer.content)
                                                      : std::vector<std::string_view>{};
        const auto steps = std::max<std::size_t>(words.size(), 1);
        for (std::size_t i = 0; i < steps; ++i) {
            const base::Instant due =
                begun + latency * static_cast<int>(i + 1) / static_cast<int>(steps);
            while (!cancel.is_cancelled() &&
                   base::system_clock().now() < std::min(due, request.deadline)) {
                co_await cancelled.wait(std::min(due, request.deadline));
            }
            if (cancel.is_cancelled()) {
                co_return cancel.reason();
            }
            if (due > request.deadline) {
                co_return Error{ErrorCode::timeout, "the model did not answer before the deadline"};
            }
            if (i < words.size()) {
                on_chunk(make_ai_chunk(answer.id, words[i]));
            }
        }
        if (request.stream && on_chunk) {
            send_end(answer, on_chunk);
        }
        ChatReply out;
        out.message = make_ai_message(answer);
        out.usage = *answer.usage;
        co_return out;
    }

private:
    static void send_end(const AiMessage& answer, OnChunk& on_chunk) {
        Json last = make_ai_chunk(answer.id, "");
        for (std::size_t i = 0; i < answer.tool_calls.size(); ++i) {
            add_tool_call_chunk(last, answer.tool_calls[i], i);
        }
        add_usage(last, *answer.usage);
        last["response_metadata"] =
            Json{{"finish_reason", answer.finish_reason}, {"model_name", answer.model_name}};
        on_chunk(std::move(last));
    }

    observe::Metrics& metrics_;  // NOLINT: outlives the model, see the factory
    const Script script_;
    const std::string name_;
    const int latency_ms_;
};

Result<Json> read_script(const Json& settings, const std::filesystem::path& base_dir) {
    if (!settings.contains("script")) {
        Json inline_script = Json::object();
        for (const char* key : {"rules", "default"}) {
            if (settings.contains(key)) {
                inline_script[key] = settings[key];
            }
        }
        return inline_script;
    }
    if (settings.contains("rules") || settings.contains("default")) {
        return base::invalid_field("script", "either a script, or rules and default here");
    }
    if (!settings["script"].is_string()) {
        return base::invalid_field("script", "expected a file name");
    }
    const auto file = base_dir / settings["script"].get<std::string>();
    auto script = yaml::load(file);
    if (!script && script.error().code != ErrorCode::not_found) {
        return base::invalid_field("script", script.error().message);
    }
    return script;
}

}  // namespace

Result<std::shared_ptr<ChatModel>> make_scripted_model(observe::Metrics& metrics,  // NOLINT
                                                       const Json& settings,
                                                       const std::filesystem::path& base_dir) {
    if (!settings.is_object()) {
        return base::invalid_field("", "expected an object of settings");
    }
    int latency_ms = 0;
    std::string name = "scripted";
    for (const auto& item : settings.items()) {
        const auto& value = item.value();
        if (item.key() == "latency_ms") {
            if (!value.is_number_integer() || value < 0 || value > 60'000) {
                return base::invalid_field("latency_ms", "expected 0 to 60000");
            }
            latency_ms = value.get<int>();
        } else if (item.key() == "model") {
            if (!value.is_string()) {
                return base::invalid_field("model", "expected a text");
            }
            name = value.get<std::string>();
        } else if (item.key() != "script" && item.key() != "rules" && item.key() != "default") {
            return base::invalid_field(item.key(), "unknown setting of a scripted model");
        }
    }
    auto script_json = read_script(settings, base_dir);
    if (!script_json) {
        return std::move(script_json).error();
    }
    auto script = Script::read(*script_json);
    if (!script) {
        return std::move(script).error();
    }
    std::shared_ptr<ChatModel> model = std::make_shared<ScriptedModel>(  // NOLINT: see the header
        metrics, *std::move(script), std::move(name), latency_ms);
    return model;
}

}  // namespace heddle::models
