#pragma once

#include <cstdint>
#include <string>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

namespace heddle::nodes {

/// What somebody decided about a tool call whose outcome is not known (on_unknown: ask). As JSON:
///
///     {"action": "retry"}                     make it again, with the same idempotency key
///     {"action": "fail"}                      tell the model that its outcome is not known
///     {"action": "result", "content": "…"}    this is its answer
struct CallDecision {
    enum class Action : std::uint8_t { retry, fail, result };
    Action action = Action::fail;
    std::string content;  ///< of result
};

/// @param field  where `value` comes from, for the error: "command.resume"
/// @return invalid_argument naming the member
base::Result<CallDecision> read_call_decision(const base::Json& value, const std::string& field);
base::Status check_call_decision(const base::Json& value, const std::string& field);

}  // namespace heddle::nodes
