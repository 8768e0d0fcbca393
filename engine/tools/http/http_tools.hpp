#pragma once

#include <filesystem>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/net/http_client.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/tools/tool.hpp"

namespace heddle::tools {

/// Every operation of an OpenAPI 3 document that has an operationId, as a tool of that name: its
/// parameters are the path, query and JSON body properties in one object schema.
///
/// settings (one entry of the agent file's `tools`, environment already expanded):
///   http         the document, YAML or JSON, relative to base_dir, at most 4 MB
///   base_url     where to send; default the document's servers[0].url
///   headers      {NAME: value} added to every request (value "env:NAME" reads the environment)
///   timeout      seconds for one call, default 30        answer_bytes_max  default 256 KB
///   only         [operationId], default all
///   on_unknown   retry, fail or ask, or {operationId: one of them}: what becomes of a call whose
///                outcome is not known. Default retry if the operation has a header parameter
///                Idempotency-Key, else fail. A GET or HEAD is recorded only if it is named here
/// A call validates its args, fills the URL (a path argument is one percent-encoded segment: no
/// argument can leave base_url's host or path) and sends Idempotency-Key with whatever is recorded.
///   2xx          ToolAnswer, content is the body
///   3xx, 4xx     ToolAnswer with is_error and the body
///   5xx, no answer   what is not recorded is repeated within the deadline (at most 3 times), then
///                tool_error | timeout | in_doubt | unavailable
/// `http` and `metrics` outlive the tools.
/// @return not_found, invalid_argument with `field` naming the operation and what was expected
base::Result<ToolSet> make_http_tools(net::HttpClient& http,
                                      observe::Metrics& metrics,
                                      const base::Json& settings,
                                      const std::filesystem::path& base_dir);

}  // namespace heddle::tools
