#include "engine/base/json_scan.hpp"

#include <cstddef>

namespace heddle::base {
namespace {

// Position after the string literal that begins at `at`; npos if it does not end.
std::size_t skip_string(std::string_view text, std::size_t at) noexcept {
    const std::size_t begin = at + 1;
    for (at = begin;; ++at) {
        at = text.find('"', at);
        if (at == std::string_view::npos) {
            return at;
        }
        std::size_t escapes = at;
        while (escapes > begin && text[escapes - 1] == '\\') {
            --escapes;
        }
        if ((at - escapes) % 2 == 0) {
            return at + 1;
        }
    }
}

// Position after the value that begins at `at`: the ',' or closing bracket that follows it.
std::size_t skip_value(std::string_view text, std::size_t at) noexcept {
    std::size_t depth = 0;
    while (at < text.size()) {
        const char c = text[at];
        if (c == '"') {
            at = skip_string(text, at);
            if (at == std::string_view::npos) {
                return at;
            }
            continue;
        }
        if (c == '{' || c == '[') {
            ++depth;
        }
        if (c == '}' || c == ']') {
            if (depth == 0) {
                return at;
            }
            --depth;
        }
        if (c == ',' && depth == 0) {
            return at;
        }
        ++at;
    }
    return std::string_view::npos;
}

}  // namespace

bool JsonScan::take(std::string_view literal) noexcept {
    if (text_.substr(at_, literal.size()) != literal) {
        return false;
    }
    at_ += literal.size();
    return true;
}

std::optional<std::string_view> JsonScan::take_value() noexcept {
    const auto end = at_ < text_.size() ? skip_value(text_, at_) : std::string_view::npos;
    if (end == std::string_view::npos || end == at_) {
        return std::nullopt;
    }
    const auto value = text_.substr(at_, end - at_);
    at_ = end;
    return value;
}

std::optional<std::string_view> JsonScan::take_key() noexcept {
    if (at_ >= text_.size() || text_[at_] != '"') {
        return std::nullopt;
    }
    const auto end = skip_string(text_, at_);
    if (end >= text_.size() || text_[end] != ':') {
        return std::nullopt;
    }
    const auto key = text_.substr(at_ + 1, end - at_ - 2);
    at_ = end + 1;
    return key;
}

bool each_element(std::string_view array, const std::function<bool(std::string_view)>& visit) {
    JsonScan scan{array};
    if (!scan.take("[")) {
        return false;
    }
    if (!scan.take("]")) {
        do {
            const auto element = scan.take_value();
            if (!element || !visit(*element)) {
                return false;
            }
        } while (scan.take(","));
        if (!scan.take("]")) {
            return false;
        }
    }
    return scan.at_end();
}

std::optional<std::string_view> find_member(std::string_view object, std::string_view name) {
    JsonScan scan{object};
    if (!scan.take("{")) {
        return std::nullopt;
    }
    do {
        const auto key = scan.take_key();
        const auto value = key ? scan.take_value() : std::nullopt;
        if (!value || *key == name) {
            return value;
        }
    } while (scan.take(","));
    return std::nullopt;
}

std::optional<std::string_view> find_last_element(std::string_view array) {
    std::optional<std::string_view> last;
    const bool whole = each_element(array, [&](std::string_view element) {
        last = element;
        return true;
    });
    return whole ? last : std::nullopt;
}

}  // namespace heddle::base
