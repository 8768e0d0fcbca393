#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"

/// The tool port. Drivers: tools/http (from an OpenAPI file) and tools/mcp (of an MCP server). Runs
/// on the calling shard.
namespace heddle::tools {

/// What becomes of a call whose outcome is not known: it was begun, and the engine was gone before
/// the answer was on disk (ADR 0011).
enum class OnUnknown : std::uint8_t {
    retry,  ///< it is made again with the same key: for tools that act once for a key
    fail,   ///< it is not made again; the model is told that the outcome is not known
    ask,    ///< the run is interrupted until somebody decides
};
/// As spelled in agent files.
std::optional<OnUnknown> parse_on_unknown(std::string_view text) noexcept;

/// [A-Za-z0-9_-]{1,64}: what every model provider takes.
bool is_tool_name(std::string_view name) noexcept;

struct ToolSpec {
    std::string name;  ///< what the model calls: [A-Za-z0-9_-]{1,64}
    std::string description;
    base::Json parameters;  ///< JSON Schema of the arguments (an object schema)
    /// Calls are recorded before they are made: all but those of tools that only read.
    bool recorded = true;
    OnUnknown on_unknown = OnUnknown::fail;  ///< of recorded calls

    /// Nobody could tell if the transport made a call twice: see net::HttpRequest::once.
    [[nodiscard]] bool is_called_once() const noexcept {
        return recorded && on_unknown != OnUnknown::retry;
    }
};

struct ToolCall {
    std::string id;   ///< the model's tool_call id
    base::Json args;  ///< hostile: as the model wrote it
    base::Instant deadline{};
    /// A UUID, the same whenever this call is made again. A driver sends it with every call of a
    /// recorded tool: HTTP as the header Idempotency-Key, MCP in the request's _meta.
    std::string idempotency_key;
};

struct ToolAnswer {
    std::string content;    ///< what the model is told
    bool is_error = false;  ///< the tool answered, and its answer is a failure (HTTP 4xx)
};

class Tool {
public:
    virtual ~Tool() = default;
    [[nodiscard]] virtual const ToolSpec& spec() const noexcept = 0;
    /// @return invalid_argument  args do not fit the schema (field names the property)
    ///         timeout, in_doubt  it was sent and no answer came: it may have been carried out
    ///         tool_error, unavailable, cancelled
    virtual base::Task<base::Result<ToolAnswer>> call(ToolCall call,
                                                      base::CancelSource& cancel) = 0;
};

using ToolSet = std::vector<std::shared_ptr<Tool>>;  // NOLINT: shared by the nodes of many agents

/// Where the tools of one entry of an agent's `tools` come from. Any shard may call. Outlives its
/// tools.
class ToolSource {
public:
    virtual ~ToolSource() = default;
    /// @return the tools, if they are known before anything runs and never change; nullptr: they
    ///         have to be loaded
    [[nodiscard]] virtual const ToolSet* known() const noexcept = 0;
    /// The tools as they are now. Free if they are known, or were loaded before and are kept.
    /// @return unavailable, timeout, overloaded, tool_error (the source offers what cannot be
    ///         used), cancelled; the message names the source
    virtual base::Task<base::Result<std::shared_ptr<const ToolSet>>> load(
        base::Instant deadline, base::CancelSource& cancel) = 0;
};
using ToolSources = std::vector<std::shared_ptr<ToolSource>>;  // NOLINT: as the tools

/// A source whose tools are known.
std::shared_ptr<ToolSource> make_static_source(ToolSet tools);  // NOLINT: as the tools

}  // namespace heddle::tools
