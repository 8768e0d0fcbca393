#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"

/// The tool port. Driver: tools/http (from an OpenAPI file). Runs on the calling shard.
namespace heddle::tools {

struct ToolSpec {
    std::string name;  ///< what the model calls: [A-Za-z0-9_-]{1,64}
    std::string description;
    base::Json parameters;  ///< JSON Schema of the arguments (an object schema)
};

struct ToolCall {
    std::string id;   ///< the model's tool_call id
    base::Json args;  ///< hostile: as the model wrote it
    base::Instant deadline{};
    std::string idempotency_key;  ///< same for every repetition of this call after a crash
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
    ///         tool_error, timeout, unavailable, cancelled
    virtual base::Task<base::Result<ToolAnswer>> call(ToolCall call,
                                                      base::CancelSource& cancel) = 0;
};

using ToolSet = std::vector<std::shared_ptr<Tool>>;  // NOLINT: shared by the nodes of many agents

}  // namespace heddle::tools
