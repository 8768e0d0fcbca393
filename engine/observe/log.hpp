#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace heddle::observe {

enum class LogLevel : std::uint8_t { debug, info, warn, error };

/// Once, from main, before any other OS thread starts. Lines go to stderr as
/// `2026-11-21T09:30:00.123Z level [component] text`.
/// @param name  appears in each line: which engine speaks
void configure_log(LogLevel least, const std::string& name);
/// @return the level named "debug", "info", "warn" or "error"; info for anything else
LogLevel parse_log_level(std::string_view name) noexcept;
[[nodiscard]] bool is_logged(LogLevel level) noexcept;
/// Any OS thread. `text` must hold no secret and no user content above debug.
void write_log(LogLevel level, std::string_view component, const std::string& text);

template <class... Args>
void log(LogLevel level,
         std::string_view component,
         fmt::format_string<Args...> format,
         Args&&... args) {
    if (is_logged(level)) {
        write_log(level, component, fmt::format(format, std::forward<Args>(args)...));
    }
}

}  // namespace heddle::observe
