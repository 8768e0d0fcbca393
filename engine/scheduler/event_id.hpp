#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace heddle::scheduler {

/// Where an event stands in its run's stream: the `id:` of server-sent events. Ids ascend within a
/// run whatever engine makes them, so a client's last id means the same to every engine (ADR 0009).
///
/// An event of a superstep that is on disk belongs to journal row `rows - 1` and has attempt 0:
/// whoever reads the row gives the event the same id. What happens while a superstep runs (tokens,
/// custom events) comes after the rows before it and carries the attempt that made it. {0, 0, 0}
/// is the metadata event that every stream begins with.
struct EventId {
    static constexpr std::uint32_t kAttemptMax = 31;
    static constexpr std::uint32_t kNumberMax = (1U << 26U) - 1;

    std::uint64_t rows = 0;     ///< journal rows of the thread up to this event
    std::uint32_t attempt = 0;  ///< of the run, at most kAttemptMax; 0 for the events of a row
    std::uint32_t number = 0;   ///< from 1, at most kNumberMax; 0 is an attempt's metadata event

    auto operator<=>(const EventId&) const = default;

    /// What comes after everything that the run did, whoever tells it: how it ended.
    static EventId of_failure(std::uint64_t rows) noexcept { return {rows, kAttemptMax, 1}; }
    /// That it stopped to be told something: in `updates`, then in `values`.
    static EventId of_stop(std::uint64_t rows, bool in_values) noexcept {
        return {rows, kAttemptMax, in_values ? 3U : 2U};
    }
    [[nodiscard]] bool is_of_end() const noexcept { return attempt == kAttemptMax; }

    /// One decimal number that ascends as the id does. Below 2^53 up to four million rows.
    [[nodiscard]] std::string to_string() const;
    /// @return nothing if `text` is no such number, as LangGraph's "-1" for the beginning
    static std::optional<EventId> parse(std::string_view text) noexcept;
};

}  // namespace heddle::scheduler
