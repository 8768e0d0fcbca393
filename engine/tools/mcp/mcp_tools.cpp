#include "engine/tools/mcp/mcp_tools.hpp"

#include <utility>

#include "engine/tools/mcp/server.hpp"
#include "engine/tools/mcp/settings.hpp"

namespace heddle::tools {

base::Result<std::shared_ptr<ToolSource>> make_mcp_source(net::HttpClient& http,  // NOLINT
                                                          observe::Metrics& metrics,
                                                          const base::Json& settings) {
    auto read = mcp::read_mcp_settings(settings);
    if (!read) {
        return std::move(read).error();
    }
    std::shared_ptr<ToolSource> source =  // NOLINT: see the header
        std::make_shared<mcp::McpServer>(http, metrics, *std::move(read));
    return source;
}

}  // namespace heddle::tools
