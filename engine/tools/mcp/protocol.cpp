#include "engine/tools/mcp/protocol.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace heddle::tools::mcp {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;

constexpr std::size_t kRefusalBytesMax = 2000;
constexpr std::size_t kCursorBytesMax = 8192;
constexpr std::size_t kTypeBytesMax = 64;

Error nonsense(const char* problem) {
    return {ErrorCode::tool_error, std::string{"the server's answer "} + problem};
}

const Json* find(const Json& object, const char* key) {
    if (!object.is_object()) {
        return nullptr;
    }
    const auto at = object.find(key);
    return at == object.end() ? nullptr : &*at;
}

std::string text_of(const Json& object, const char* key) {
    const auto* value = find(object, key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : std::string{};
}

bool is_true(const Json* value) {
    return value != nullptr && value->is_boolean() && value->get<bool>();
}

// Cuts between code points.
std::string shortened(std::string text, std::size_t bytes_max) {
    if (text.size() <= bytes_max) {
        return text;
    }
    while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xC0U) == 0x80U) {
        --bytes_max;
    }
    text.resize(bytes_max);
    return text + "...";
}

Refusal read_refusal(const Json& error) {
    Refusal refusal;
    if (const auto* code = find(error, "code"); code != nullptr && code->is_number_integer()) {
        refusal.code = code->get<std::int64_t>();
    }
    refusal.message = shortened(text_of(error, "message"), kRefusalBytesMax);
    if (refusal.message.empty()) {
        refusal.message = fmt::format("JSON-RPC error {}", refusal.code);
    }
    return refusal;
}

// The text of one content item, and whether it is text at all.
std::pair<std::string, bool> read_item(const Json& item) {
    const auto type = shortened(text_of(item, "type"), kTypeBytesMax);
    if (type == "text") {
        return {text_of(item, "text"), true};
    }
    const auto note = [](const std::string& kind, const Json& of, const char* data) {
        return fmt::format("[{}: {}, {} bytes of base64]", kind,
                           shortened(text_of(of, "mimeType"), kTypeBytesMax),
                           text_of(of, data).size());
    };
    if (type == "image" || type == "audio") {
        return {note(type, item, "data"), false};
    }
    const auto* resource = find(item, "resource");
    if (type == "resource" && resource != nullptr && find(*resource, "blob") != nullptr) {
        return {note("resource", *resource, "blob"), false};
    }
    return {base::dump_json(item), false};
}

// One entry of tools/list; nothing if it cannot be offered to a model.
std::optional<ToolSpec> read_tool(Json& entry) {
    ToolSpec spec;
    spec.name = text_of(entry, "name");
    const auto* schema = find(entry, "inputSchema");
    if (!is_tool_name(spec.name) || schema == nullptr || !schema->is_object()) {
        return std::nullopt;
    }
    spec.description = text_of(entry, "description");
    if (spec.description.empty()) {
        spec.description = text_of(entry, "title");
    }
    spec.description = shortened(std::move(spec.description), kDescriptionBytesMax);
    const auto* annotations = find(entry, "annotations");
    spec.recorded = annotations == nullptr || !is_true(find(*annotations, "readOnlyHint"));
    spec.parameters = std::move(entry["inputSchema"]);
    return spec;
}

}  // namespace

std::string write_request(std::int64_t id, std::string_view method, Json params) {
    return base::dump_json(
        Json{{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", std::move(params)}});
}

std::string write_notification(std::string_view method) {
    return base::dump_json(Json{{"jsonrpc", "2.0"}, {"method", method}});
}

Json initialize_params() {
    return {{"protocolVersion", kNewestVersion},
            {"capabilities", Json::object()},
            {"clientInfo", {{"name", "heddle"}, {"version", "1"}}}};
}

Json call_params(const std::string& tool, Json args, const std::string& key) {
    Json params{{"name", tool}, {"arguments", std::move(args)}};
    if (!key.empty()) {
        params["_meta"] = Json::object();
        params["_meta"][std::string{kIdempotencyKey}] = key;
    }
    return params;
}

AnswerReader::AnswerReader(std::int64_t id, std::size_t bytes_max)
    : id_{id},
      bytes_max_{bytes_max},
      decoder_{bytes_max},
      on_event_{[this](std::string_view, std::string_view data) {
          // An event without data only gives the stream an id.
          return data.empty() || has_answer() ? base::ok() : take_text(data);
      }} {}

Status AnswerReader::feed(std::string_view piece) {
    if (form_ == Form::unknown) {
        const auto begin = piece.find_first_not_of(" \t\r\n");
        if (begin == std::string_view::npos) {
            return base::ok();
        }
        piece.remove_prefix(begin);
        // No line of an event stream means anything that begins like JSON does.
        form_ = piece.front() == '{' || piece.front() == '[' ? Form::json : Form::events;
    }
    if (form_ == Form::events) {
        if (has_answer()) {
            return base::ok();
        }
        auto fed = decoder_.feed(piece, on_event_);
        return fed ? base::ok() : Status{Error{ErrorCode::tool_error, fed.error().message}};
    }
    if (whole_.size() + piece.size() > bytes_max_) {
        return nonsense("is too large");
    }
    whole_ += piece;
    return base::ok();
}

Status AnswerReader::finish() {
    if (form_ == Form::json) {
        if (auto taken = take_text(std::exchange(whole_, {})); !taken) {
            return taken;
        }
    }
    return has_answer() ? base::ok() : Status{nonsense("holds no response to the request")};
}

Status AnswerReader::take_text(std::string_view text) {
    const base::JsonLimits limits{.depth_max = 64, .bytes_max = bytes_max_};
    auto message = base::parse_json(text, "answer", limits);
    if (!message) {
        // Bytes that are no UTF-8 are replaced, as they are in other tools' answers.
        std::string literal;
        base::append_json_string(literal, text);
        const base::JsonLimits roomy{.depth_max = 1, .bytes_max = literal.size()};
        if (const auto repaired = base::parse_json(literal, "answer", roomy); repaired) {
            message = base::parse_json(repaired->get_ref<const std::string&>(), "answer",
                                       {.depth_max = 64, .bytes_max = literal.size()});
        }
    }
    if (!message) {
        return nonsense("is not JSON, or too deep");
    }
    if (message->is_array()) {  // a batch, as 2025-03-26 has them
        for (auto& each : *message) {
            take_message(each);
        }
    } else {
        take_message(*message);
    }
    return base::ok();
}

void AnswerReader::take_message(Json& message) {
    if (const auto* method = find(message, "method"); method != nullptr) {
        list_changed_ = list_changed_ || *method == "notifications/tools/list_changed";
        return;
    }
    const auto* id = find(message, "id");
    if (id == nullptr || !id->is_number_integer() || *id != id_ || has_answer()) {
        return;
    }
    if (const auto* error = find(message, "error"); error != nullptr) {
        answer_ = read_refusal(*error);
    } else if (find(message, "result") != nullptr) {
        answer_ = std::move(message["result"]);
    }
}

std::variant<Json, Refusal> AnswerReader::take_answer() {
    HEDDLE_ASSERT(has_answer());
    return *std::exchange(answer_, std::nullopt);
}

Result<std::string> read_version(const Json& result) {
    auto version = text_of(result, "protocolVersion");
    if (version == kNewestVersion || version == "2025-03-26") {
        return version;
    }
    return Error{ErrorCode::tool_error,
                 fmt::format("the server speaks MCP \"{}\"; expected 2025-06-18 or 2025-03-26",
                             shortened(std::move(version), kTypeBytesMax))};
}

Result<ToolPage> read_tool_page(Json result) {
    const auto* listed = find(result, "tools");
    if (listed == nullptr || !listed->is_array()) {
        return nonsense("holds no list of tools");
    }
    ToolPage page;
    page.next_cursor = text_of(result, "nextCursor");
    if (page.next_cursor.size() > kCursorBytesMax) {
        return nonsense("holds a cursor that is too long");
    }
    for (auto& entry : result["tools"]) {
        auto spec = read_tool(entry);
        if (spec) {
            page.tools.push_back(*std::move(spec));
        } else {
            ++page.left_out;
        }
    }
    return page;
}

Result<ToolAnswer> read_call_result(const Json& result) {
    const auto* content = find(result, "content");
    const auto* structured = find(result, "structuredContent");
    const bool is_list = content != nullptr && content->is_array();
    if (!is_list && structured == nullptr) {
        return nonsense("holds no content");
    }
    ToolAnswer answer;
    answer.is_error = is_true(find(result, "isError"));
    bool any_text = false;
    if (is_list) {
        for (const auto& item : *content) {
            auto [text, is_text] = read_item(item);
            any_text = any_text || is_text;
            answer.content += (answer.content.empty() ? "" : "\n") + std::move(text);
        }
    }
    if (!any_text && structured != nullptr && !structured->is_null()) {
        answer.content += (answer.content.empty() ? "" : "\n") + base::dump_json(*structured);
    }
    if (answer.is_error && answer.content.empty()) {
        answer.content = "the tool failed and says no more";
    }
    return answer;
}

bool is_session_id(std::string_view text) noexcept {
    return !text.empty() && text.size() <= 1024 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c < 0x7F; });
}

}  // namespace heddle::tools::mcp
