#pragma once

#include <cstdint>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

namespace heddle::tools {

/// What becomes of a property that a schema neither lists nor rules out.
enum class Unlisted : std::uint8_t {
    refused,  ///< so that the model hears of a slip of its own: for schemas that list all there is
    allowed,  ///< as JSON Schema says: for schemas that may say more than is looked at here
};

/// Checks a tool call's arguments against the part of JSON Schema that tools use: type (one or a
/// list), nullable, required, properties, additionalProperties (if the schema does not say: as
/// `unlisted` does, and true in a nested one that lists no properties), items, minItems, maxItems,
/// enum, const, minimum, maximum, exclusive*, minLength, maxLength (in code points), format date,
/// date-time and uuid. Other keywords are not looked at. `$ref` must be resolved before.
/// @param args  hostile
/// @return invalid_argument; `field` is the path of the offending property ("slot.date")
base::Status validate_args(const base::Json& schema,
                           const base::Json& args,
                           Unlisted unlisted = Unlisted::refused);

}  // namespace heddle::tools
