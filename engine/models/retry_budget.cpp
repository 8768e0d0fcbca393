#include "engine/models/retry_budget.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <random>
#include <string>

namespace heddle::models {
namespace {

constexpr std::int64_t kRetryAfterSecondsMax = 300;

}  // namespace

RetryBudget::RetryBudget(double reserve, double ratio)
    : reserve_{reserve}, ratio_{ratio}, saved_{reserve} {}

void RetryBudget::count_call() {
    const std::lock_guard lock{mutex_};
    saved_ = std::min(reserve_, saved_ + ratio_);
}

bool RetryBudget::try_retry() {
    const std::lock_guard lock{mutex_};
    if (saved_ < 1.0) {
        return false;
    }
    saved_ -= 1.0;
    return true;
}

base::Duration retry_delay(unsigned attempt, std::optional<base::Duration> retry_after) {
    using std::chrono::milliseconds;
    constexpr unsigned kDoublingsMax = 5;  // 250 ms, 500 ms, ... 8 s
    const auto whole = 250U << std::min(attempt > 0 ? attempt - 1 : 0, kDoublingsMax);
    thread_local std::minstd_rand random{std::random_device{}()};
    const auto half = whole / 2;
    const base::Duration delay =
        milliseconds{half + std::uniform_int_distribution<unsigned>{0, half}(random)};
    return retry_after ? std::max(delay, *retry_after) : delay;
}

std::optional<base::Duration> parse_retry_after(std::string_view value, std::int64_t now_unix_us) {
    std::int64_t seconds = 0;
    const auto* end = value.data() + value.size();
    if (const auto read = std::from_chars(value.data(), end, seconds);
        read.ec != std::errc{} || read.ptr != end) {
        std::tm date{};
        const std::string text{value};
        const char* rest = strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &date);
        if (rest == nullptr || *rest != '\0') {
            return std::nullopt;
        }
        seconds = static_cast<std::int64_t>(timegm(&date)) - now_unix_us / 1'000'000;
    }
    return std::chrono::seconds{std::clamp<std::int64_t>(seconds, 0, kRetryAfterSecondsMax)};
}

}  // namespace heddle::models
