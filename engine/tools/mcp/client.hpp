#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"
#include "engine/net/http_client.hpp"
#include "engine/tools/mcp/protocol.hpp"
#include "engine/tools/mcp/settings.hpp"

namespace heddle::tools::mcp {

/// What a request has to say of the session that it belongs to.
struct Link {
    std::string session_id;  ///< empty: the server keeps none
    std::string version;     ///< empty: not yet agreed upon
};

struct Bounds {
    base::Instant deadline{};
    std::size_t bytes_max = 0;  ///< of the answer as it comes
    bool once = false;          ///< as HttpRequest's
};

struct Answer {
    std::variant<base::Json, Refusal> value;  ///< the result, or a JSON-RPC error
    bool list_changed = false;                ///< the server said so on the way
    std::size_t bytes = 0;
    std::string session_id;  ///< of the header, if the body's end was waited for
};

struct Offer {
    std::vector<ToolSpec> tools;
    std::size_t left_out = 0;  ///< as ToolPage's
};

/// Speaks MCP over streamable HTTP; keeps nothing but the number of its last request. Any shard.
/// Errors of all members:
///   not_found     the server does not know the link's session (404): nothing was carried out
///   tool_error    another status, the connection broke, or what came is no answer
///   timeout, unavailable, overloaded   as HttpClient's
///   cancelled     (or cancel's reason)
class McpClient {
public:
    /// Both outlive this.
    McpClient(net::HttpClient& http, const McpSettings& settings)
        : http_{http}, settings_{settings} {}

    /// Opens a session: initialize and notifications/initialized.
    base::Task<base::Result<Link>> open(base::Instant deadline, base::CancelSource& cancel);
    /// All pages of tools/list, at most 32 and 8 MB together.
    base::Task<base::Result<Offer>> list_tools(const Link& link,
                                               base::Instant deadline,
                                               base::CancelSource& cancel);
    /// Any request. Once the response is there, its body's end is waited for a second at most.
    base::Task<base::Result<Answer>> request(const Link& link,
                                             std::string_view method,
                                             base::Json params,
                                             Bounds bounds,
                                             base::CancelSource& cancel);

private:
    base::Task<base::Result<Answer>> exchange(net::HttpRequest request,
                                              std::int64_t id,
                                              bool ends_early,
                                              base::CancelSource& cancel);
    base::Task<base::Status> notify(const Link& link,
                                    std::string_view method,
                                    Bounds bounds,
                                    base::CancelSource& cancel);
    [[nodiscard]] net::HttpRequest make_request(const Link& link,
                                                std::string body,
                                                const Bounds& bounds) const;

    net::HttpClient& http_;        // NOLINT: outlives this
    const McpSettings& settings_;  // NOLINT: as above
    std::atomic<std::int64_t> last_id_{0};
};

}  // namespace heddle::tools::mcp
