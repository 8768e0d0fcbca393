#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "engine/base/result.hpp"
#include "engine/base/unique_function.hpp"

namespace heddle::net {

/// Reads a text/event-stream (HTML Living Standard, 9.2.6) from pieces cut anywhere. The input is
/// hostile: one event holds at most `event_bytes_max`, whether in one line or in many.
class SseDecoder {
public:
    explicit SseDecoder(std::size_t event_bytes_max = 1U << 20U)
        : event_bytes_max_{event_bytes_max} {}

    /// Calls on_event(event name, data) for every event completed by `piece`.
    /// @return the error of on_event, or payload_too_large for an event past the limit; then the
    ///         decoder is used up
    [[nodiscard]] base::Status feed(
        std::string_view piece,
        base::UniqueFunction<base::Status(std::string_view name, std::string_view data)>& on_event);

private:
    using OnEvent = base::UniqueFunction<base::Status(std::string_view, std::string_view)>;
    base::Status take_line(std::string_view line, OnEvent& on_event);

    std::size_t event_bytes_max_;
    std::string line_;  ///< the begun line
    std::string name_;
    std::string data_;
    bool has_data_ = false;
    bool after_cr_ = false;
    bool at_start_ = true;
};

}  // namespace heddle::net
