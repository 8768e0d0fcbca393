#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/tools/tool.hpp"

namespace heddle::tools {

/// One operation of an OpenAPI document, ready to be called.
struct Operation {
    ToolSpec spec;
    std::string method;  ///< in capitals
    std::string path;    ///< with {name} for path arguments
    std::vector<std::string> path_args;
    std::vector<std::string> query_args;
    std::vector<std::string> header_args;
    std::vector<std::string> body_args;
    bool has_body = false;
};

/// Whether the method only reads (RFC 9110, 9.2.1): GET and HEAD.
bool is_safe(const Operation& operation) noexcept;

/// Reads every operation that has an operationId. One with a safe method is not recorded; one that
/// has a header parameter Idempotency-Key is made again with the same key if its outcome is not
/// known, and the parameter is filled in by the driver, not by the model. Local $ref are resolved
/// (at most 32 deep).
/// @return invalid_argument with `field` naming the place ("paths./slots.get.parameters[0]")
base::Result<std::vector<Operation>> read_operations(const base::Json& document);

/// servers[0].url, or "".
std::string first_server(const base::Json& document);

}  // namespace heddle::tools
