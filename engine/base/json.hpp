#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/base/result.hpp"

namespace heddle::base {

using Json = nlohmann::json;

/// Bounds for text from outside. Depth counts arrays and objects.
struct JsonLimits {
    std::size_t depth_max = 64;
    std::size_t bytes_max = 64U << 20U;
};

/// Parses one JSON text from outside (RFC 8259). Refuses what a lenient reader would let through:
/// a repeated key, bytes that are not UTF-8, trailing text, nesting past the limit.
/// @param what   how the error names the text ("request body", "model answer")
/// @return bad_request with the byte offset and the path of the offending key
///         payload_too_large past limits.bytes_max
/// Never throws; memory is bounded by a small multiple of the text.
Result<Json> parse_json(std::string_view text, std::string_view what, JsonLimits limits = {});

/// Parses text that we wrote ourselves (store, vectors). @return internal if it is broken.
Result<Json> parse_stored_json(std::string_view text);

/// Compact text; bytes that are not UTF-8 become U+FFFD. Never throws.
std::string dump_json(const Json& value);
/// Appends the JSON string literal of `text` (with quotes) to `out`; invalid UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

/// JSON containment as Postgres' `whole @> part`: objects by key, arrays by element, scalars equal.
bool json_contains(const Json& whole, const Json& part);

}  // namespace heddle::base
