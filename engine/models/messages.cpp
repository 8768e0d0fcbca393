#include "engine/models/messages.hpp"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "engine/base/uuid.hpp"

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;

constexpr base::JsonLimits kArgsLimits{.depth_max = 32, .bytes_max = 1U << 20U};

std::string string_of(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string{};
}

const Json& list_of(const Json& object, const char* key) {
    static const Json empty = Json::array();
    const auto at = object.find(key);
    return at != object.end() && at->is_array() ? *at : empty;
}

std::string_view role_of(const Json& message) {
    constexpr std::array<std::pair<std::string_view, std::string_view>, 12> kRoles{{
        {"human", "user"},
        {"user", "user"},
        {"HumanMessage", "user"},
        {"ai", "assistant"},
        {"assistant", "assistant"},
        {"AIMessage", "assistant"},
        {"AIMessageChunk", "assistant"},
        {"system", "system"},
        {"SystemMessage", "system"},
        {"developer", "developer"},
        {"tool", "tool"},
        {"ToolMessage", "tool"},
    }};
    for (const char* key : {"type", "role"}) {
        const auto name = string_of(message, key);
        for (const auto& [ours, theirs] : kRoles) {
            if (name == ours) {
                return theirs;
            }
        }
    }
    return {};
}

// One content block in the form of the chat format; null: leave it out.
Result<Json> to_part(const Json& block, bool from_model, const std::string& field) {
    if (block.is_string()) {
        return Json{{"type", "text"}, {"text", block}};
    }
    if (!block.is_object()) {
        return Error{ErrorCode::invalid_argument, "expected a text or a content block", field};
    }
    const auto type = string_of(block, "type");
    if (type == "text" && block.contains("text") && block["text"].is_string()) {
        return Json{{"type", "text"}, {"text", block["text"]}};
    }
    // What a model wrote besides text (reasoning, calls of its own form) cannot be sent back.
    if (from_model) {
        return Json{};
    }
    if (type == "image_url" && block.contains("image_url")) {
        const auto& image = block["image_url"];
        return Json{{"type", "image_url"},
                    {"image_url", image.is_string() ? Json{{"url", image}} : image}};
    }
    if (type == "image" && !string_of(block, "url").empty()) {
        return Json{{"type", "image_url"}, {"image_url", {{"url", block["url"]}}}};
    }
    const auto data = string_of(block, block.contains("base64") ? "base64" : "data");
    if (type == "image" && !data.empty()) {
        auto mime = string_of(block, "mime_type");
        if (mime.empty()) {
            mime = "image/png";
        }
        return Json{{"type", "image_url"},
                    {"image_url", {{"url", fmt::format("data:{};base64,{}", mime, data)}}}};
    }
    return Error{ErrorCode::invalid_argument,
                 "this kind of content block cannot be sent to the model", field + ".type"};
}

Result<Json> to_content(const Json& message, std::string_view role, const std::string& field) {
    const auto at = message.find("content");
    const bool from_model = role == "assistant";
    if (at == message.end() || at->is_null()) {
        if (from_model) {
            return Json("");
        }
        return Error{ErrorCode::invalid_argument, "missing", field};
    }
    if (at->is_string()) {
        return *at;
    }
    if (!at->is_array()) {
        return Error{ErrorCode::invalid_argument, "expected a string or a list of blocks", field};
    }
    if (role != "user") {
        return Json(message_text(message));
    }
    Json parts = Json::array();
    for (std::size_t i = 0; i < at->size(); ++i) {
        auto part = to_part((*at)[i], from_model, fmt::format("{}[{}]", field, i));
        if (!part) {
            return std::move(part).error();
        }
        if (!part->is_null()) {
            parts.push_back(*std::move(part));
        }
    }
    return parts;
}

void add_call(Json& out, const Json& call, const std::string& arguments) {
    out.push_back({{"id", string_of(call, "id")},
                   {"type", "function"},
                   {"function", {{"name", string_of(call, "name")}, {"arguments", arguments}}}});
}

// Calls that could not be read were answered too (with an error), so the provider wants them back.
Json to_tool_calls(const Json& message) {
    Json out = Json::array();
    for (const auto& call : list_of(message, "tool_calls")) {
        if (!call.is_object()) {
            continue;
        }
        const auto args = call.find("args");
        add_call(out, call, args == call.end() ? "{}" : base::dump_json(*args));
    }
    for (const auto& call : list_of(message, "invalid_tool_calls")) {
        if (call.is_object()) {
            add_call(out, call, string_of(call, "args"));
        }
    }
    return out;
}

Json usage_json(const Usage& usage) {
    return {{"input_tokens", usage.input_tokens},
            {"output_tokens", usage.output_tokens},
            {"total_tokens", usage.input_tokens + usage.output_tokens}};
}

}  // namespace

Result<Json> to_openai_messages(const Json& messages) {
    if (!messages.is_array()) {
        return Error{ErrorCode::invalid_argument, "expected a list", "messages"};
    }
    Json out = Json::array();
    for (std::size_t i = 0; i < messages.size(); ++i) {
        const auto& message = messages[i];
        const auto field = fmt::format("messages[{}]", i);
        const auto role = message.is_object() ? role_of(message) : std::string_view{};
        if (role.empty()) {
            return Error{ErrorCode::invalid_argument,
                         field + ".type: expected human, ai, system or tool", field + ".type"};
        }
        auto content = to_content(message, role, field + ".content");
        if (!content) {
            auto error = std::move(content).error();
            error.message = error.field + ": " + error.message;
            return error;
        }
        Json sent{{"role", role}, {"content", *std::move(content)}};
        if (role == "assistant") {
            auto calls = to_tool_calls(message);
            if (!calls.empty()) {
                if (sent["content"] == "") {
                    sent["content"] = nullptr;
                }
                sent["tool_calls"] = std::move(calls);
            }
        } else if (role == "tool") {
            const auto call_id = string_of(message, "tool_call_id");
            if (call_id.empty()) {
                return Error{ErrorCode::invalid_argument, field + ".tool_call_id: missing",
                             field + ".tool_call_id"};
            }
            sent["tool_call_id"] = call_id;
        }
        out.push_back(std::move(sent));
    }
    return out;
}

Json to_openai_tools(const Json& tools) {
    Json out = Json::array();
    for (const auto& tool : tools) {
        if (!tool.is_object()) {
            continue;
        }
        out.push_back({{"type", "function"}, {"function", tool}});
    }
    return out;
}

std::string message_text(const Json& message) {
    const auto at = message.is_object() ? message.find("content") : message.end();
    if (at == message.end()) {
        return {};
    }
    if (at->is_string()) {
        return at->get<std::string>();
    }
    std::string text;
    if (at->is_array()) {
        for (const auto& block : *at) {
            if (block.is_string()) {
                text += block.get<std::string>();
            }
            if (block.is_object()) {
                text += string_of(block, "text");
            }
        }
    }
    return text;
}

Json make_ai_message(const AiMessage& answer) {
    Json calls = Json::array();
    Json invalid = Json::array();
    for (const auto& call : answer.tool_calls) {
        const auto id = call.id.empty() ? "call_" + base::make_uuid_v7().to_string() : call.id;
        // Several providers send nothing at all for a tool without parameters.
        auto args = base::parse_json(call.args.empty() ? "{}" : call.args, "args", kArgsLimits);
        if (args && args->is_object()) {
            calls.push_back({{"name", call.name},
                             {"args", *std::move(args)},
                             {"id", id},
                             {"type", "tool_call"}});
            continue;
        }
        const auto problem = args ? std::string{"args is not a JSON object"} : args.error().message;
        invalid.push_back({{"name", call.name},
                           {"args", call.args},
                           {"id", id},
                           {"error", problem},
                           {"type", "invalid_tool_call"}});
    }
    Json metadata{{"model_name", answer.model_name}, {"finish_reason", answer.finish_reason}};
    if (!answer.provider_id.empty()) {
        metadata["id"] = answer.provider_id;
    }
    Json extra = Json::object();
    if (!answer.refusal.empty()) {
        extra["refusal"] = answer.refusal;
    }
    return {{"type", "ai"},
            {"content", answer.content},
            {"id", answer.id},
            {"name", nullptr},
            {"tool_calls", std::move(calls)},
            {"invalid_tool_calls", std::move(invalid)},
            {"usage_metadata", answer.usage ? usage_json(*answer.usage) : Json{}},
            {"response_metadata", std::move(metadata)},
            {"additional_kwargs", std::move(extra)},
            {"example", false}};
}

Json make_ai_chunk(std::string_view id, std::string_view content) {
    return {{"type", "AIMessageChunk"},
            {"content", content},
            {"id", id},
            {"name", nullptr},
            {"tool_calls", Json::array()},
            {"invalid_tool_calls", Json::array()},
            {"tool_call_chunks", Json::array()},
            {"usage_metadata", nullptr},
            {"response_metadata", Json::object()},
            {"additional_kwargs", Json::object()},
            {"example", false}};
}

void add_tool_call_chunk(Json& chunk, const RawToolCall& part, std::size_t index) {
    const auto or_null = [](const std::string& text) { return text.empty() ? Json{} : Json(text); };
    chunk["tool_call_chunks"].push_back({{"name", or_null(part.name)},
                                         {"args", part.args},
                                         {"id", or_null(part.id)},
                                         {"index", index},
                                         {"type", "tool_call_chunk"}});
}

void add_usage(Json& message, const Usage& usage) {
    message["usage_metadata"] = usage_json(usage);
}

std::string make_message_id() {
    return "lc_run--" + base::make_uuid_v7().to_string();
}

}  // namespace heddle::models
