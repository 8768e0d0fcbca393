#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace heddle::base {

using Duration = std::chrono::nanoseconds;
using Instant = std::chrono::steady_clock::time_point;

/// Where the engine gets the time from; tests own another one. Any thread.
class Clock {
public:
    virtual ~Clock() = default;
    [[nodiscard]] virtual Instant now() const noexcept = 0;
    /// Wall time, microseconds since the Unix epoch: for stored and shown times, never for waiting.
    [[nodiscard]] virtual std::int64_t unix_us() const noexcept = 0;
};

/// The machine's clocks.
const Clock& system_clock() noexcept;

/// Whole microseconds, as stores keep durations.
[[nodiscard]] constexpr std::int64_t microseconds(Duration duration) noexcept {
    return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

std::int64_t unix_milliseconds() noexcept;
std::int64_t unix_microseconds() noexcept;

/// @param unix_us microseconds since the Unix epoch
/// @return "2026-11-21T09:30:00.123456+00:00", as LangGraph writes times
std::string format_iso8601(std::int64_t unix_us);

}  // namespace heddle::base
