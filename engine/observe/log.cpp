#include "engine/observe/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace heddle::observe {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) noexcept {
    switch (level) {
        case LogLevel::debug:
            return spdlog::level::debug;
        case LogLevel::info:
            return spdlog::level::info;
        case LogLevel::warn:
            return spdlog::level::warn;
        case LogLevel::error:
            return spdlog::level::err;
    }
    return spdlog::level::info;
}

}  // namespace

void configure_log(LogLevel least, const std::string& name) {
    auto logger = spdlog::stderr_logger_mt(name.empty() ? "engine" : name);
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n %v", spdlog::pattern_time_type::utc);
    logger->set_level(spdlog_level(least));
    spdlog::set_default_logger(std::move(logger));
}

LogLevel parse_log_level(std::string_view name) noexcept {
    if (name == "debug") {
        return LogLevel::debug;
    }
    if (name == "warn") {
        return LogLevel::warn;
    }
    if (name == "error") {
        return LogLevel::error;
    }
    return LogLevel::info;
}

bool is_logged(LogLevel level) noexcept {
    return spdlog::default_logger_raw()->should_log(spdlog_level(level));
}

void write_log(LogLevel level, std::string_view component, const std::string& text) {
    spdlog::default_logger_raw()->log(spdlog_level(level), "[{}] {}", component, text);
}

}  // namespace heddle::observe
