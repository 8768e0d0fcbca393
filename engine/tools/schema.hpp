#pragma once

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

namespace heddle::tools {

/// Checks a tool call's arguments against the part of JSON Schema that tools use: type (one or a
/// list), nullable, required, properties, additionalProperties (false unless the schema says
/// otherwise, or is a nested one that lists no properties), items, minItems, maxItems, enum, const,
/// minimum, maximum, exclusive*, minLength, maxLength (in code points), format date, date-time and
/// uuid. Other keywords are not looked at. `$ref` must be resolved before.
/// @param args  hostile
/// @return invalid_argument; `field` is the path of the offending property ("slot.date")
base::Status validate_args(const base::Json& schema, const base::Json& args);

}  // namespace heddle::tools
