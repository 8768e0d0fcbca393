#include "engine/graph/message.hpp"

#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;

constexpr std::size_t kIdBytesMax = 256;

struct RoleName {
    std::string_view given;
    std::string_view type;
};
// Every name LangChain's coercion knows for a message class.
constexpr std::array<RoleName, 19> kRoles{{
    {"human", "human"},
    {"user", "human"},
    {"HumanMessage", "human"},
    {"HumanMessageChunk", "human"},
    {"ai", "ai"},
    {"assistant", "ai"},
    {"AIMessage", "ai"},
    {"AIMessageChunk", "ai"},
    {"system", "system"},
    {"developer", "system"},
    {"SystemMessage", "system"},
    {"SystemMessageChunk", "system"},
    {"tool", "tool"},
    {"ToolMessage", "tool"},
    {"ToolMessageChunk", "tool"},
    {"function", "function"},
    {"FunctionMessage", "function"},
    {"remove", "remove"},
    {"RemoveMessage", "remove"},
}};

std::optional<std::string_view> find_type(std::string_view given) {
    for (const auto& role : kRoles) {
        if (role.given == given) {
            return role.type;
        }
    }
    return std::nullopt;
}

Error bad(const std::string& path, std::string_view key, std::string_view problem) {
    auto field = key.empty() ? path : fmt::format("{}.{}", path, key);
    return Error{ErrorCode::invalid_argument, fmt::format("{}: {}", field, problem), field};
}

// {lc: 1, type: "constructor", id: ["langchain_core", "messages", "HumanMessage"], kwargs: {...}}:
// what JSON.stringify makes of a message object of LangChain.js.
Result<Json> unwrap_constructor(Json form, const std::string& path) {
    const auto lc = form.find("lc");
    if (lc == form.end()) {
        return form;
    }
    const auto id = form.find("id");
    const auto kwargs = form.find("kwargs");
    if (id == form.end() || !id->is_array() || id->empty() || !id->back().is_string()) {
        return bad(path, "id", "expected the class path of a serialised message");
    }
    if (kwargs == form.end() || !kwargs->is_object()) {
        return bad(path, "kwargs", "expected an object");
    }
    Json message = std::move(*kwargs);
    message["type"] = std::move(id->back());
    return message;
}

Result<Json> to_object(Json form, const std::string& path) {
    if (form.is_string()) {
        return Json{{"type", "human"}, {"content", std::move(form)}};
    }
    if (form.is_array()) {
        if (form.size() != 2 || !form[0].is_string()) {
            return bad(path, "", "a message written as a list is [role, content]");
        }
        return Json{{"type", std::move(form[0])}, {"content", std::move(form[1])}};
    }
    if (!form.is_object()) {
        return bad(path, "", "expected a message: an object, a string or [role, content]");
    }
    return unwrap_constructor(std::move(form), path);
}

Result<std::string_view> take_type(Json& message, const std::string& path) {
    std::string_view key = "type";
    auto at = message.find("type");
    if (at == message.end() || at->is_null()) {
        key = "role";
        at = message.find("role");
    }
    if (at == message.end()) {
        return bad(path, "role", "missing (or give \"type\")");
    }
    if (!at->is_string()) {
        return bad(path, key, "expected a string");
    }
    const auto& given = at->get_ref<const std::string&>();
    const auto type = find_type(given);
    if (!type) {
        return bad(path, key,
                   "expected one of human, user, ai, assistant, system, developer, tool, function, "
                   "remove");
    }
    if (given == "developer") {
        message["additional_kwargs"]["__openai_role__"] = "developer";
    }
    message.erase("role");
    message["type"] = *type;
    return *type;
}

Status check_content(Json& message, std::string_view type, const std::string& path) {
    const auto at = message.find("content");
    if (at == message.end() || at->is_null()) {
        if (type != "ai") {
            return bad(path, "content", "missing");
        }
        message["content"] = "";
        return base::ok();
    }
    if (at->is_string()) {
        return base::ok();
    }
    if (!at->is_array()) {
        return bad(path, "content", "expected a string or a list of blocks");
    }
    for (std::size_t i = 0; i < at->size(); ++i) {
        const Json& block = (*at)[i];
        const bool typed = block.is_object() && block.contains("type") && block["type"].is_string();
        if (!typed && !block.is_string()) {
            return bad(path, fmt::format("content[{}]", i), "expected a block with a \"type\"");
        }
    }
    return base::ok();
}

Status check_object(Json& message, const char* key, const std::string& path) {
    auto& value = message[key];
    if (value.is_null()) {
        value = Json::object();
    }
    if (!value.is_object()) {
        return bad(path, key, "expected an object");
    }
    return base::ok();
}

Status check_text(Json& message, const char* key, const std::string& path) {
    const auto& value = message[key];  // null when absent, as LangChain writes it
    if (!value.is_null() && !value.is_string()) {
        return bad(path, key, "expected a string");
    }
    return base::ok();
}

Status check_id(Json& message, const std::string& path, IdMint& mint) {
    auto& id = message["id"];
    if (id.is_null() || (id.is_string() && id.get_ref<const std::string&>().empty())) {
        id = mint.next();
        return base::ok();
    }
    if (!id.is_string() || id.get_ref<const std::string&>().size() > kIdBytesMax) {
        return bad(path, "id", fmt::format("expected a string of at most {} bytes", kIdBytesMax));
    }
    return base::ok();
}

// OpenAI's form {id, type: "function", function: {name, arguments: "<json>"}} into LangChain's.
Result<Json> to_tool_call(Json call, const std::string& path) {
    if (!call.is_object()) {
        return bad(path, "", "expected an object");
    }
    const auto function = call.find("function");
    if (function != call.end() && function->is_object()) {
        const auto arguments = function->find("arguments");
        Json args = Json::object();
        if (arguments != function->end() && arguments->is_string()) {
            auto parsed = base::parse_json(arguments->get_ref<const std::string&>(), "arguments");
            if (!parsed) {
                return bad(path, "function.arguments", parsed.error().message);
            }
            args = std::move(*parsed);
        }
        Json name = function->value("name", Json{});
        call.erase("function");
        call["name"] = std::move(name);
        call["args"] = std::move(args);
    }
    if (!call.contains("args")) {
        call["args"] = Json::object();
    }
    if (!call["name"].is_string()) {
        return bad(path, "name", "expected a string");
    }
    if (!call["args"].is_object()) {
        return bad(path, "args", "expected an object");
    }
    if (!call["id"].is_string() && !call["id"].is_null()) {
        return bad(path, "id", "expected a string");
    }
    call["type"] = "tool_call";
    return call;
}

Status check_ai(Json& message, const std::string& path) {
    auto& calls = message["tool_calls"];
    if (calls.is_null()) {
        calls = Json::array();
    }
    if (!calls.is_array()) {
        return bad(path, "tool_calls", "expected a list");
    }
    for (std::size_t i = 0; i < calls.size(); ++i) {
        auto call = to_tool_call(std::move(calls[i]), fmt::format("{}.tool_calls[{}]", path, i));
        if (!call) {
            return std::move(call).error();
        }
        calls[i] = std::move(*call);
    }
    auto& invalid = message["invalid_tool_calls"];
    if (invalid.is_null()) {
        invalid = Json::array();
    }
    if (!invalid.is_array()) {
        return bad(path, "invalid_tool_calls", "expected a list");
    }
    auto& usage = message["usage_metadata"];
    if (!usage.is_null() && !usage.is_object()) {
        return bad(path, "usage_metadata", "expected an object");
    }
    message.erase("tool_call_chunks");  // a chunk's, meaningless in a whole message
    return base::ok();
}

Status check_tool(Json& message, const std::string& path) {
    const auto id = message.find("tool_call_id");
    if (id == message.end() || !id->is_string()) {
        return bad(path, "tool_call_id", "a tool message names the call it answers");
    }
    auto& status = message["status"];
    if (status.is_null()) {
        status = "success";
    }
    if (status != "success" && status != "error") {
        return bad(path, "status", "expected success or error");
    }
    (void)message["artifact"];  // null when absent, as LangChain writes it
    return base::ok();
}

Result<Json> to_remove(const Json& message, const std::string& path) {
    const auto id = message.find("id");
    if (id == message.end() || !id->is_string()) {
        return bad(path, "id", "a remove message names the message to remove");
    }
    return Json{{"type", "remove"}, {"id", *id}};
}

}  // namespace

std::string IdMint::next() {
    if (seed_.is_nil()) {
        return base::make_uuid_v7().to_string();
    }
    return base::make_uuid_v5(seed_, std::to_string(made_++)).to_string();
}

Result<Json> normalize_message(Json form, const std::string& path, IdMint& mint) {
    auto object = to_object(std::move(form), path);
    if (!object) {
        return object;
    }
    Json message = std::move(*object);
    const auto type = take_type(message, path);
    if (!type) {
        return type.error();
    }
    if (*type == "remove") {
        return to_remove(message, path);
    }

    for (auto status : {check_object(message, "additional_kwargs", path),
                        check_object(message, "response_metadata", path),
                        check_content(message, *type, path), check_text(message, "name", path)}) {
        if (!status) {
            return std::move(status).error();
        }
    }
    if (*type == "ai") {
        auto status = check_ai(message, path);
        if (!status) {
            return std::move(status).error();
        }
    } else if (*type == "tool") {
        auto status = check_tool(message, path);
        if (!status) {
            return std::move(status).error();
        }
    }
    auto status = check_id(message, path, mint);
    if (!status) {
        return std::move(status).error();
    }
    return message;
}

}  // namespace heddle::graph
