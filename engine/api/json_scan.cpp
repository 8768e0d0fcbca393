#include "engine/api/json_scan.hpp"

#include <cstddef>

namespace heddle::api {
namespace {

// Position after the string literal that begins at `at`; npos if it does not end.
std::size_t skip_string(std::string_view text, std::size_t at) noexcept {
    for (++at;; ++at) {
        at = text.find_first_of("\"\\", at);
        if (at == std::string_view::npos) {
            return at;
        }
        if (text[at] == '"') {
            return at + 1;
        }
        ++at;  // whatever is escaped
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

std::optional<std::string_view> find_member(std::string_view object, std::string_view name) {
    if (object.size() < 2 || object.front() != '{') {
        return std::nullopt;
    }
    std::size_t at = 1;
    while (at < object.size() && object[at] == '"') {
        const auto key_end = skip_string(object, at);
        if (key_end == std::string_view::npos || key_end >= object.size() ||
            object[key_end] != ':') {
            return std::nullopt;
        }
        const auto key = object.substr(at + 1, key_end - at - 2);
        const auto value_end = skip_value(object, key_end + 1);
        if (value_end == std::string_view::npos) {
            return std::nullopt;
        }
        if (key == name) {
            return object.substr(key_end + 1, value_end - key_end - 1);
        }
        at = value_end + 1;
    }
    return std::nullopt;
}

std::optional<std::string_view> find_last_element(std::string_view array) {
    if (array.size() < 3 || array.front() != '[') {
        return std::nullopt;
    }
    std::size_t at = 1;
    while (true) {
        const auto end = skip_value(array, at);
        if (end == std::string_view::npos || end == at) {
            return std::nullopt;
        }
        if (array[end] == ']') {
            return array.substr(at, end - at);
        }
        if (array[end] != ',') {
            return std::nullopt;
        }
        at = end + 1;
    }
}

}  // namespace heddle::api
