#include "engine/base/error.hpp"

#include <array>
#include <cstddef>

namespace heddle::base {
namespace {

constexpr std::array kTraits{
    ErrorTraits{"bad_request", 400, true},        ErrorTraits{"invalid_argument", 422, true},
    ErrorTraits{"unsupported", 422, true},        ErrorTraits{"not_found", 404, true},
    ErrorTraits{"method_not_allowed", 405, true}, ErrorTraits{"conflict", 409, true},
    ErrorTraits{"thread_busy", 409, true},        ErrorTraits{"idempotency_mismatch", 422, true},
    ErrorTraits{"payload_too_large", 413, true},  ErrorTraits{"rate_limited", 429, true},
    ErrorTraits{"overloaded", 503, true},         ErrorTraits{"unavailable", 503, true},
    ErrorTraits{"draining", 503, true},           ErrorTraits{"owned_elsewhere", 503, true},
    ErrorTraits{"stale_epoch", 503, true},        ErrorTraits{"in_doubt", 503, false},
    ErrorTraits{"timeout", 504, false},           ErrorTraits{"cancelled", 409, false},
    ErrorTraits{"interrupted", 409, false},       ErrorTraits{"recursion_limit", 500, false},
    ErrorTraits{"graph_error", 500, false},       ErrorTraits{"model_error", 502, false},
    ErrorTraits{"tool_error", 502, false},        ErrorTraits{"internal", 500, false},
};
static_assert(kTraits.size() == static_cast<std::size_t>(ErrorCode::internal) + 1);

}  // namespace

const ErrorTraits& error_traits(ErrorCode code) noexcept {
    return kTraits[static_cast<std::size_t>(code)];
}

Error invalid_field(const std::string& field, std::string_view problem) {
    return {ErrorCode::invalid_argument, field + ": " + std::string{problem}, field};
}

}  // namespace heddle::base
