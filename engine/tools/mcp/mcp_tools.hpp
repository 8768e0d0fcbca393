#pragma once

#include <memory>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/net/http_client.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/tools/tool.hpp"

namespace heddle::tools {

/// The tools of an MCP server (Model Context Protocol 2025-06-18 and 2025-03-26) that speaks
/// streamable HTTP; ADR 0014. Nothing is sent before the first load(), which opens a session; one
/// session serves all shards of the process. The list of tools is kept, and asked for again when
/// the server says that it changed, when it is five minutes old, or with a new session.
///
/// settings (one entry of the agent file's `tools`, environment already expanded):
///   mcp          the server's URL, without user, password and fragment
///   headers, timeout, answer_bytes_max, only, on_unknown   see SourceSettings. `timeout` also
///                bounds the opening of a session; `answer_bytes_max` counts what comes over the
///                wire. on_unknown is `fail` if it is not said. A tool that the server marks as
///                readOnlyHint is recorded only if on_unknown names it
/// load()
///   unavailable, timeout, overloaded   the server cannot be asked
///   tool_error   it answers nonsense, speaks another version, offers more than 512 tools, or lacks
///                one that `only` or `on_unknown` names
/// A call validates its args as far as validate_args() knows the server's schema and sends the
/// idempotency key of a recorded tool as params._meta["heddle/idempotency-key"]. It is sent once;
/// only when the server does not know the session (404: not carried out) once more in a new one.
///   a result           ToolAnswer: its texts; is_error as it says
///   a refusal          ToolAnswer with is_error: JSON-RPC errors -32600 to -32602
///   anything else      tool_error | timeout | in_doubt | unavailable | overloaded | cancelled
/// `http` and `metrics` outlive the source.
/// @return invalid_argument with `field` naming the setting
// NOLINTNEXTLINE: a source is shared by the nodes of its agent
base::Result<std::shared_ptr<ToolSource>> make_mcp_source(net::HttpClient& http,
                                                          observe::Metrics& metrics,
                                                          const base::Json& settings);

}  // namespace heddle::tools
