#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/net/sse.hpp"
#include "engine/tools/tool.hpp"

/// What is said to an MCP server and what it says (modelcontextprotocol.io, 2025-06-18). Pure; what
/// comes from the server is hostile.
namespace heddle::tools::mcp {

inline constexpr std::string_view kNewestVersion = "2025-06-18";
inline constexpr std::string_view kIdempotencyKey = "heddle/idempotency-key";
inline constexpr std::size_t kToolsMax = 512;  ///< of one server, after `only`
inline constexpr std::size_t kDescriptionBytesMax = 16U << 10U;

std::string write_request(std::int64_t id, std::string_view method, base::Json params);
std::string write_notification(std::string_view method);
base::Json initialize_params();
/// @param idempotency_key  goes into _meta; may be empty
base::Json call_params(const std::string& tool, base::Json args, const std::string& key);

/// A JSON-RPC error.
struct Refusal {
    std::int64_t code = 0;
    std::string message;

    /// Nothing was carried out: the request itself is wrong.
    [[nodiscard]] bool is_final() const noexcept { return code <= -32600 && code >= -32602; }
};

/// Finds the response to one request in the body that came for it, JSON or an event stream cut
/// anywhere. Notifications and requests of the server's are passed over.
class AnswerReader {
public:
    /// @param bytes_max  of one event, or of the whole JSON
    AnswerReader(std::int64_t id, std::size_t bytes_max);
    AnswerReader(const AnswerReader&) = delete;
    AnswerReader& operator=(const AnswerReader&) = delete;

    /// @return tool_error: what comes is no MCP
    base::Status feed(std::string_view piece);
    /// After the last piece.
    base::Status finish();

    [[nodiscard]] bool has_answer() const noexcept { return answer_.has_value(); }
    /// The result or the error; has_answer() must hold.
    [[nodiscard]] std::variant<base::Json, Refusal> take_answer();
    /// The server said that its tools are others now.
    [[nodiscard]] bool saw_list_changed() const noexcept { return list_changed_; }

private:
    enum class Form : std::uint8_t { unknown, json, events };
    base::Status take_text(std::string_view text);
    void take_message(base::Json& message);

    const std::int64_t id_;
    const std::size_t bytes_max_;
    Form form_ = Form::unknown;
    std::string whole_;
    net::SseDecoder decoder_;
    base::UniqueFunction<base::Status(std::string_view, std::string_view)> on_event_;
    std::optional<std::variant<base::Json, Refusal>> answer_;
    bool list_changed_ = false;
};

/// @return the protocol version of an initialize result; tool_error if we do not speak it
base::Result<std::string> read_version(const base::Json& result);

/// One page of a tools/list result.
struct ToolPage {
    std::vector<ToolSpec> tools;  ///< recorded unless the server says that they only read
    std::size_t left_out = 0;     ///< whose name or schema cannot be used
    std::string next_cursor;      ///< empty: this was the last
};
base::Result<ToolPage> read_tool_page(base::Json result);

/// The texts of a tools/call result, joined by newlines; else its structuredContent. Of images and
/// the like the model gets a note, of other items their JSON.
base::Result<ToolAnswer> read_call_result(const base::Json& result);

/// Where Mcp-Session-Id may be used as it came: 1 to 1024 visible ASCII characters.
bool is_session_id(std::string_view text) noexcept;

}  // namespace heddle::tools::mcp
