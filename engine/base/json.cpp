#include "engine/base/json.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace heddle::base {
namespace {

// Builds the value while it is read, so that depth and repeated keys are refused at once and the
// parser's own recursion never comes into it (nlohmann's reader is iterative).
class BoundedBuilder final : public nlohmann::json_sax<Json> {
public:
    explicit BoundedBuilder(std::size_t depth_max) : depth_max_{depth_max} {}

    bool null() override { return add(nullptr); }
    bool boolean(bool value) override { return add(value); }
    bool number_integer(number_integer_t value) override { return add(value); }
    bool number_unsigned(number_unsigned_t value) override { return add(value); }
    bool number_float(number_float_t value, const string_t&) override { return add(value); }
    bool string(string_t& value) override { return add(std::move(value)); }
    bool binary(binary_t&) override { return false; }

    bool start_object(std::size_t) override { return open(Json::object()); }
    bool end_object() override { return close(); }
    bool start_array(std::size_t) override { return open(Json::array()); }
    bool end_array() override { return close(); }

    bool key(string_t& name) override {
        if (open_.back()->contains(name)) {
            problem = fmt::format("the key \"{}\" is repeated", shorten(name));
            return false;
        }
        key_ = std::move(name);
        return true;
    }
    bool parse_error(std::size_t position,
                     const std::string&,
                     const nlohmann::detail::exception& error) override {
        problem = position_free(error.what());
        offset = position;
        return false;
    }

    Json root;
    std::string problem;
    std::size_t offset = 0;

private:
    static std::string shorten(const std::string& name) {
        constexpr std::size_t kShownMax = 64;
        return name.size() <= kShownMax ? name : name.substr(0, kShownMax) + "...";
    }
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ..."
    static std::string position_free(std::string text) {
        const auto at = text.find(": ");
        return at == std::string::npos ? text : text.substr(at + 2);
    }
    bool open(Json value) {
        if (open_.size() >= depth_max_) {
            problem = fmt::format("nested more than {} levels deep", depth_max_);
            return false;
        }
        open_.push_back(place(std::move(value)));
        return true;
    }
    bool close() {
        open_.pop_back();
        return true;
    }
    template <class T>
    bool add(T&& value) {
        place(Json(std::forward<T>(value)));
        return true;
    }
    Json* place(Json value) {
        if (open_.empty()) {
            root = std::move(value);
            return &root;
        }
        Json& parent = *open_.back();
        if (parent.is_array()) {
            parent.push_back(std::move(value));
            return &parent.back();
        }
        return &(parent[key_] = std::move(value));
    }

    std::size_t depth_max_;
    // Pointers stay valid: only the innermost open container grows.
    std::vector<Json*> open_;
    std::string key_;
};

// ---- writing. nlohmann's serializer decodes every byte; here text goes out in whole runs.

constexpr bool is_ordinary(unsigned char byte) noexcept {
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

// @return the bytes of the well-formed sequence that `text` begins with (RFC 3629, section 4),
// which
//         is not ASCII; 0 if there is none
std::size_t utf8_length(std::string_view text) noexcept {
    const auto byte = [text](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    const auto is_tail = [&](std::size_t at, unsigned least = 0x80, unsigned most = 0xBF) {
        return at < text.size() && byte(at) >= least && byte(at) <= most;
    };
    const unsigned first = byte(0);
    if (first >= 0xC2 && first <= 0xDF) {
        return is_tail(1) ? 2 : 0;
    }
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned least = first == 0xE0 ? 0xA0 : 0x80;
        const unsigned most = first == 0xED ? 0x9F : 0xBF;
        return is_tail(1, least, most) && is_tail(2) ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const unsigned least = first == 0xF0 ? 0x90 : 0x80;
        const unsigned most = first == 0xF4 ? 0x8F : 0xBF;
        return is_tail(1, least, most) && is_tail(2) && is_tail(3) ? 4 : 0;
    }
    return 0;
}

void append_escape(std::string& out, unsigned char byte) {
    constexpr std::string_view kNamed = "\"\\\b\f\n\r\t";
    constexpr std::string_view kNames = "\"\\bfnrt";
    constexpr std::string_view kHexDigits = "0123456789abcdef";
    out += '\\';
    const auto at = kNamed.find(static_cast<char>(byte));
    if (at != std::string_view::npos) {
        out += kNames[at];
        return;
    }
    out += "u00";
    out += kHexDigits[byte >> 4U];
    out += kHexDigits[byte & 0x0FU];
}

// What is rare or has rules of its own: fractions, bytes that are not UTF-8.
std::string dump_by_library(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <class Integer>
void append_integer(std::string& out, Integer value) {
    std::array<char, std::numeric_limits<Integer>::digits10 + 3> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
    out.append(digits.data(), end);
}

void append_json(std::string& out, const Json& value) {
    switch (value.type()) {
        case Json::value_t::object: {
            char before = '{';
            for (const auto& [key, member] : value.get_ref<const Json::object_t&>()) {
                out += before;
                append_json_string(out, key);
                out += ':';
                append_json(out, member);
                before = ',';
            }
            out += before == '{' ? "{}" : "}";
            return;
        }
        case Json::value_t::array: {
            char before = '[';
            for (const auto& element : value.get_ref<const Json::array_t&>()) {
                out += before;
                append_json(out, element);
                before = ',';
            }
            out += before == '[' ? "[]" : "]";
            return;
        }
        case Json::value_t::string:
            append_json_string(out, value.get_ref<const std::string&>());
            return;
        case Json::value_t::boolean:
            out += value.get<bool>() ? "true" : "false";
            return;
        case Json::value_t::null:
            out += "null";
            return;
        case Json::value_t::number_integer:
            append_integer(out, value.get<std::int64_t>());
            return;
        case Json::value_t::number_unsigned:
            append_integer(out, value.get<std::uint64_t>());
            return;
        default:
            out += dump_by_library(value);
    }
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what, JsonLimits limits) {
    if (text.size() > limits.bytes_max) {
        return Error{ErrorCode::payload_too_large,
                     fmt::format("{} has {} bytes, at most {} are read", what, text.size(),
                                 limits.bytes_max)};
    }
    BoundedBuilder builder{limits.depth_max};
    if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
        const auto where =
            builder.offset > 0 ? fmt::format(" at byte {}", builder.offset) : std::string{};
        // The parser's message may quote the offending bytes; they need not be UTF-8.
        const auto problem = dump_json(Json(builder.problem));
        return Error{ErrorCode::bad_request,
                     fmt::format("{} is not acceptable JSON{}: {}", what, where,
                                 Json::parse(problem).get<std::string>())};
    }
    return std::move(builder.root);
}

Result<Json> parse_stored_json(std::string_view text) {
    auto value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded()) {
        return Error{ErrorCode::internal, "stored JSON is broken"};
    }
    return value;
}

std::string dump_json(const Json& value) {
    // Room that grows once; what is returned takes no more than it needs.
    constexpr std::size_t kKeptMax = std::size_t{64} << 10U;
    thread_local std::string room;
    room.clear();
    append_json(room, value);
    if (room.capacity() > kKeptMax) {
        return std::exchange(room, {});
    }
    return room;
}

void append_json_string(std::string& out, std::string_view text) {
    const auto begin = out.size();
    out += '"';
    std::size_t copied = 0;
    for (std::size_t at = 0; at < text.size();) {
        const auto byte = static_cast<unsigned char>(text[at]);
        if (is_ordinary(byte)) {
            ++at;
            continue;
        }
        if (byte >= 0x80) {
            const auto length = utf8_length(text.substr(at));
            if (length == 0) {
                out.resize(begin);
                out += dump_by_library(Json(std::string{text}));
                return;
            }
            at += length;
            continue;
        }
        out.append(text, copied, at - copied);
        append_escape(out, byte);
        copied = ++at;
    }
    out.append(text, copied);
    out += '"';
}

bool json_contains(const Json& whole, const Json& part) {
    if (part.is_object()) {
        if (!whole.is_object()) {
            return false;
        }
        return std::all_of(part.items().begin(), part.items().end(), [&](const auto& item) {
            const auto found = whole.find(item.key());
            return found != whole.end() && json_contains(*found, item.value());
        });
    }
    if (part.is_array()) {
        if (!whole.is_array()) {
            return false;
        }
        return std::all_of(part.begin(), part.end(), [&](const Json& wanted) {
            return std::any_of(whole.begin(), whole.end(),
                               [&](const Json& have) { return json_contains(have, wanted); });
        });
    }
    return whole == part;
}

}  // namespace heddle::base
