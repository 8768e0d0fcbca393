#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>

#include "engine/base/clock.hpp"

namespace heddle::models {

/// Keeps an outage from being multiplied: over time at most `ratio` retries per call, of all models
/// of the process together, after a first reserve. Any OS thread.
class RetryBudget {
public:
    /// @param reserve  retries allowed at the start, and the most that can be saved up
    /// @param ratio    retries earned by each call
    explicit RetryBudget(double reserve = 100.0, double ratio = 0.2);

    void count_call();
    /// @return false if the budget is used up: report the failure instead
    [[nodiscard]] bool try_retry();

private:
    std::mutex mutex_;
    double reserve_;
    double ratio_;
    double saved_;
};

/// How long to wait before retry number `attempt` (1, 2, ...): exponential from 0.25 s to 8 s, of
/// which a random half. A server's Retry-After, if given, is the least (at most 5 minutes).
base::Duration retry_delay(unsigned attempt, std::optional<base::Duration> retry_after);

/// Reads a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3).
std::optional<base::Duration> parse_retry_after(std::string_view value, std::int64_t now_unix_us);

}  // namespace heddle::models
