#include "engine/api/http.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;

constexpr std::size_t kQueryPairsMax = 256;

int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

std::string percent_decode(std::string_view raw) {
    std::string out;
    out.reserve(raw.size());
    for (std::size_t i = 0; i < raw.size(); ++i) {
        if (raw[i] == '+') {
            out += ' ';
            continue;
        }
        if (raw[i] == '%' && i + 2 < raw.size()) {
            const int high = hex_digit(raw[i + 1]);
            const int low = hex_digit(raw[i + 2]);
            if (high >= 0 && low >= 0) {
                out += static_cast<char>(high * 16 + low);
                i += 2;
                continue;
            }
        }
        out += raw[i];
    }
    return out;
}

}  // namespace

const std::string* Request::find_header(std::string_view name) const noexcept {
    const auto at = std::find_if(headers.begin(), headers.end(),
                                 [&](const auto& header) { return header.first == name; });
    return at == headers.end() ? nullptr : &at->second;
}

Response json_response(std::uint16_t status, std::string json) {
    return Response{status, {{"content-type", "application/json"}}, std::move(json)};
}

std::string error_json(const Error& error) {
    std::string body = R"({"detail":)";
    base::append_json_string(body, error.message);
    body += R"(,"code":)";
    base::append_json_string(body, base::error_traits(error.code).wire_name);
    if (!error.field.empty()) {
        body += R"(,"field":)";
        base::append_json_string(body, error.field);
    }
    body += '}';
    return body;
}

Response error_response(const Error& error) {
    return json_response(base::error_traits(error.code).http_status, error_json(error));
}

Query::Query(std::string_view raw) {
    while (!raw.empty() && pairs_.size() < kQueryPairsMax) {
        const auto pair = raw.substr(0, raw.find('&'));
        raw.remove_prefix(std::min(raw.size(), pair.size() + 1));
        if (pair.empty()) {
            continue;
        }
        const auto equals = pair.find('=');
        const auto value = equals == std::string_view::npos ? "" : pair.substr(equals + 1);
        pairs_.emplace_back(percent_decode(pair.substr(0, equals)), percent_decode(value));
    }
}

const std::string* Query::find(std::string_view name) const noexcept {
    const auto at = std::find_if(pairs_.rbegin(), pairs_.rend(),
                                 [&](const auto& pair) { return pair.first == name; });
    return at == pairs_.rend() ? nullptr : &at->second;
}

std::vector<std::string> Query::list(std::string_view name) const {
    std::vector<std::string> values;
    for (const auto& [key, value] : pairs_) {
        if (key != name || value.empty()) {
            continue;
        }
        if (value.front() != '[') {
            values.push_back(value);
            continue;
        }
        const auto parsed = base::parse_json(value, name);
        if (!parsed || !parsed->is_array()) {
            values.push_back(value);  // the caller refuses it as an unknown value, and names it
            continue;
        }
        for (const auto& item : *parsed) {
            values.push_back(item.is_string() ? item.get<std::string>() : base::dump_json(item));
        }
    }
    return values;
}

base::Result<bool> Query::flag(std::string_view name, bool otherwise) const {
    const auto* value = find(name);
    if (value == nullptr || value->empty()) {
        return otherwise;
    }
    if (*value == "1" || *value == "true" || *value == "True") {
        return true;
    }
    if (*value == "0" || *value == "false" || *value == "False") {
        return false;
    }
    return Error{ErrorCode::invalid_argument, fmt::format("{} must be true or false", name),
                 std::string{name}};
}

base::Result<std::int64_t> Query::integer(std::string_view name,
                                          std::int64_t otherwise,
                                          std::int64_t least,
                                          std::int64_t most) const {
    const auto* value = find(name);
    if (value == nullptr || value->empty()) {
        return otherwise;
    }
    std::int64_t number = 0;
    const auto* end = value->data() + value->size();
    const auto parsed = std::from_chars(value->data(), end, number);
    if (parsed.ec != std::errc{} || parsed.ptr != end || number < least || number > most) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("{} must be an integer from {} to {}", name, least, most),
                     std::string{name}};
    }
    return number;
}

}  // namespace heddle::api
