#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/tools/tool.hpp"

namespace heddle::tools {

/// What every source of tools that is asked over HTTP reads from its entry of the agent file.
struct SourceSettings {
    /// {NAME: value}, sent with every request; a value "env:NAME" is read from the environment.
    std::vector<std::pair<std::string, std::string>> headers;
    base::Duration timeout = std::chrono::seconds{30};  ///< seconds, for one call
    std::size_t answer_bytes_max = 256U << 10U;
    std::vector<std::string> only;                     ///< names of tools; empty: all
    std::optional<OnUnknown> on_unknown;               ///< of all that may change something
    std::map<std::string, OnUnknown> on_unknown_of{};  ///< by name
};

/// Reads one member of the entry if it is one of these.
/// @return whether it was; invalid_argument with `field` naming it
base::Result<bool> read_source_setting(const std::string& key,
                                       const base::Json& value,
                                       SourceSettings& settings);

/// What the agent file says of a tool counts more than what its source does: a policy for it, and
/// with that a record of its calls.
void apply_on_unknown(const SourceSettings& settings, ToolSpec& spec);

/// A text that may stand in a header or URL: no control characters, at most 8 KB.
/// @return invalid_argument with that field
base::Status check_plain(const std::string& field, const std::string& text);

}  // namespace heddle::tools
