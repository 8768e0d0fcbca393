#include "engine/scheduler/event_id.hpp"

#include <charconv>

#include <fmt/format.h>

namespace heddle::scheduler {
namespace {

constexpr unsigned kNumberBits = 26;
constexpr unsigned kAttemptBits = 5;

}  // namespace

std::string EventId::to_string() const {
    const auto packed = (((rows << kAttemptBits) | attempt) << kNumberBits) | std::uint64_t{number};
    return fmt::format_int(packed).str();
}

std::optional<EventId> EventId::parse(std::string_view text) noexcept {
    std::uint64_t packed = 0;
    const auto* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, packed);
    if (read.ec != std::errc{} || read.ptr != end) {
        return std::nullopt;
    }
    EventId id;
    id.number = static_cast<std::uint32_t>(packed & kNumberMax);
    id.attempt = static_cast<std::uint32_t>((packed >> kNumberBits) & kAttemptMax);
    id.rows = packed >> (kNumberBits + kAttemptBits);
    return id;
}

}  // namespace heddle::scheduler
