#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace heddle::base {

/// Every way an operation of ours can fail in a healthy program. Closed; spelled as in the HTTP
/// API's "code". error_traits() is the only table of what each means outside.
enum class ErrorCode : std::uint8_t {
    bad_request,         ///< not even well-formed: broken JSON, bad UTF-8, nested too deeply
    invalid_argument,    ///< well-formed, but a field has a value we cannot accept
    unsupported,         ///< a parameter that exists in the API and that we do not obey
    not_found,           ///< no such route, thread, run, assistant or checkpoint
    method_not_allowed,  ///< the route exists, not with this method
    conflict,            ///< exists already, or another write came first
    thread_busy,  ///< multitask_strategy reject, or a state update while a run is in progress
    idempotency_mismatch,  ///< same run id or Idempotency-Key, different body
    payload_too_large,
    rate_limited,
    overloaded,       ///< a bounded queue is full; nothing was done
    unavailable,      ///< a dependency (database, engine) cannot be reached; nothing was done
    draining,         ///< this engine takes nothing new; nothing was done
    owned_elsewhere,  ///< another engine owns the thread; nothing was done
    stale_epoch,      ///< this engine lost the thread; nothing was written
    in_doubt,         ///< it may have been written: read back before repeating
    timeout,          ///< a deadline passed
    cancelled,        ///< the client or another request asked to stop it
    interrupted,      ///< the run stopped for a human or for another run
    recursion_limit,  ///< the graph did not reach its end within recursion_limit supersteps
    graph_error,      ///< the agent's own logic failed (Lua error, bad channel write, bad edge)
    model_error,      ///< the model provider refused or answered nonsense
    tool_error,       ///< a tool failed in a way its node does not handle
    internal,         ///< our bug; the detail is in the log only
};

struct ErrorTraits {
    std::string_view wire_name;
    std::uint16_t http_status;
    bool retry_safe;  ///< repeating the same request cannot do it twice
};

/// @return the row for `code`; every enumerator has one. Free, any thread.
const ErrorTraits& error_traits(ErrorCode code) noexcept;

/// A failure on its way to the caller. `message` is written for the API client: it names the field
/// and never holds a secret, a stack or another tenant's data.
struct Error {
    ErrorCode code{ErrorCode::internal};
    std::string message;
    std::string field{};  ///< path of the offending field ("input.messages[2].role"), or empty

    friend bool operator==(const Error&, const Error&) = default;
};

/// invalid_argument: "field: problem".
[[nodiscard]] Error invalid_field(const std::string& field, std::string_view problem);

}  // namespace heddle::base
