#include "engine/base/json.hpp"

#include <algorithm>
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
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void append_json_string(std::string& out, std::string_view text) {
    const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
        return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
    });
    if (plain) {
        out += '"';
        out += text;
        out += '"';
        return;
    }
    out += dump_json(Json(std::string{text}));
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
