#include "engine/base/clock.hpp"

#include <ctime>

#include <fmt/format.h>

#include "engine/base/machine.hpp"

namespace heddle::base {
namespace {

class SystemClock final : public Clock {
public:
    [[nodiscard]] Instant now() const noexcept override { return machine::now(); }
    [[nodiscard]] std::int64_t unix_us() const noexcept override { return unix_microseconds(); }
};

}  // namespace

const Clock& system_clock() noexcept {
    static const SystemClock clock;
    return clock;
}

std::int64_t unix_microseconds() noexcept {
    return machine::unix_us();
}

std::int64_t unix_milliseconds() noexcept {
    return unix_microseconds() / 1000;
}

std::string format_iso8601(std::int64_t unix_us) {
    constexpr std::int64_t kMicrosecondsPerSecond = 1'000'000;
    std::int64_t seconds = unix_us / kMicrosecondsPerSecond;
    std::int64_t fraction = unix_us % kMicrosecondsPerSecond;
    if (fraction < 0) {
        fraction += kMicrosecondsPerSecond;
        --seconds;
    }
    const std::time_t time = seconds;
    std::tm parts{};
    gmtime_r(&time, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}+00:00", parts.tm_year + 1900,
                       parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                       fraction);
}

}  // namespace heddle::base
