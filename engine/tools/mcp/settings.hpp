#pragma once

#include <string>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/tools/source_settings.hpp"

namespace heddle::tools::mcp {

struct McpSettings {
    std::string url;
    std::string host;  ///< "127.0.0.1:3001": how errors and the log name the server
    SourceSettings source;
};

/// @return invalid_argument with the key as `field`
base::Result<McpSettings> read_mcp_settings(const base::Json& settings);

}  // namespace heddle::tools::mcp
