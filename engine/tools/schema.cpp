#include "engine/tools/schema.hpp"

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace heddle::tools {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Status;

constexpr int kDepthMax = 32;
constexpr std::size_t kShownMax = 200;

Error refuse(const std::string& path, const std::string& problem) {
    const auto shown = path.empty() ? std::string{"arguments"} : path;
    return {ErrorCode::invalid_argument, shown + ": " + problem, path};
}

std::string join(const std::string& path, const std::string& key) {
    // The key is the model's; what it wrote must not fill the error.
    const auto shown = key.size() > 64 ? key.substr(0, 64) + "..." : key;
    return path.empty() ? shown : path + "." + shown;
}

std::string shown(const Json& value) {
    auto text = base::dump_json(value);
    if (text.size() > kShownMax) {
        text = text.substr(0, kShownMax) + "...";
    }
    return text;
}

bool has_type(const Json& value, std::string_view type) {
    if (type == "string") {
        return value.is_string();
    }
    if (type == "integer") {
        return value.is_number_integer() ||
               (value.is_number_float() &&
                value.get<double>() == static_cast<double>(static_cast<std::int64_t>(
                                           std::clamp(value.get<double>(), -9e15, 9e15))));
    }
    if (type == "number") {
        return value.is_number();
    }
    if (type == "boolean") {
        return value.is_boolean();
    }
    if (type == "array") {
        return value.is_array();
    }
    if (type == "object") {
        return value.is_object();
    }
    return type == "null" && value.is_null();
}

std::size_t characters(const std::string& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    }));
}

bool is_date(std::string_view text) {
    if (text.size() != 10) {
        return false;
    }
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool dash = i == 4 || i == 7;
        if (dash ? text[i] != '-' : std::isdigit(static_cast<unsigned char>(text[i])) == 0) {
            return false;
        }
    }
    const int month = (text[5] - '0') * 10 + (text[6] - '0');
    const int day = (text[8] - '0') * 10 + (text[9] - '0');
    return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

bool is_uuid(std::string_view text) {
    if (text.size() != 36) {
        return false;
    }
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0) {
            return false;
        }
    }
    return true;
}

const Json* find_member(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at == object.end() ? nullptr : &*at;
}

Status check_type(const Json& schema, const Json& value, const std::string& path) {
    const auto* type = find_member(schema, "type");
    if (type == nullptr) {
        return base::ok();
    }
    const auto* nullable = find_member(schema, "nullable");
    if (value.is_null() && nullable != nullptr && *nullable == true) {
        return base::ok();
    }
    std::string wanted;
    const auto accept = [&](const Json& name) {
        if (!name.is_string()) {
            return false;
        }
        wanted += (wanted.empty() ? "" : " or ") + name.get<std::string>();
        return has_type(value, name.get_ref<const std::string&>());
    };
    const bool fits =
        type->is_array() ? std::any_of(type->begin(), type->end(), accept) : accept(*type);
    return fits ? base::ok() : Status{refuse(path, "expected " + wanted)};
}

Status check_choice(const Json& schema, const Json& value, const std::string& path) {
    if (const auto* wanted = find_member(schema, "const"); wanted != nullptr && value != *wanted) {
        return refuse(path, "expected " + shown(*wanted));
    }
    const auto* choices = find_member(schema, "enum");
    if (choices == nullptr || !choices->is_array() ||
        std::find(choices->begin(), choices->end(), value) != choices->end()) {
        return base::ok();
    }
    return refuse(path, "expected one of " + shown(*choices));
}

Status check_number(const Json& schema, const Json& value, const std::string& path) {
    const auto bound = [&](const char* key, auto&& fits, const char* words) -> Status {
        const auto* limit = find_member(schema, key);
        if (limit == nullptr || !limit->is_number() ||
            fits(value.get<double>(), limit->get<double>())) {
            return base::ok();
        }
        return refuse(path, fmt::format("expected {} {}", words, shown(*limit)));
    };
    // OpenAPI 3.0 writes exclusiveMinimum as a boolean beside minimum, 3.1 as a number.
    const auto is_true = [&](const char* key) {
        const auto* flag = find_member(schema, key);
        return flag != nullptr && *flag == true;
    };
    const auto least = is_true("exclusiveMinimum");
    const auto most = is_true("exclusiveMaximum");
    Status checked = bound(
        "minimum", [&](double a, double b) { return least ? a > b : a >= b; },
        least ? "more than" : "at least");
    if (checked) {
        checked = bound(
            "maximum", [&](double a, double b) { return most ? a < b : a <= b; },
            most ? "less than" : "at most");
    }
    if (checked) {
        checked = bound(
            "exclusiveMinimum", [](double a, double b) { return a > b; }, "more than");
    }
    if (checked) {
        checked = bound(
            "exclusiveMaximum", [](double a, double b) { return a < b; }, "less than");
    }
    return checked;
}

// A whole number that somebody put in may be signed.
bool is_count(const Json& value) {
    return value.is_number_integer() && value >= 0;
}

Status check_size(const Json& schema,
                  std::size_t size,
                  const std::string& path,
                  std::pair<const char*, const char*> keys,
                  const char* unit) {
    const auto* least = find_member(schema, keys.first);
    if (least != nullptr && is_count(*least) && size < least->get<std::size_t>()) {
        return refuse(path,
                      fmt::format("expected at least {} {}", least->get<std::size_t>(), unit));
    }
    const auto* most = find_member(schema, keys.second);
    if (most != nullptr && is_count(*most) && size > most->get<std::size_t>()) {
        return refuse(path, fmt::format("expected at most {} {}", most->get<std::size_t>(), unit));
    }
    return base::ok();
}

Status check_string(const Json& schema, const std::string& text, const std::string& path) {
    if (auto sized =
            check_size(schema, characters(text), path, {"minLength", "maxLength"}, "characters");
        !sized) {
        return sized;
    }
    const auto* format = find_member(schema, "format");
    if (format == nullptr) {
        return base::ok();
    }
    if (*format == "date" && !is_date(text)) {
        return refuse(path, "expected a date YYYY-MM-DD");
    }
    const bool stamp = text.size() >= 19 && is_date(std::string_view{text}.substr(0, 10)) &&
                       (text[10] == 'T' || text[10] == 't' || text[10] == ' ');
    if (*format == "date-time" && !stamp) {
        return refuse(path, "expected a time YYYY-MM-DDTHH:MM:SSZ");
    }
    if (*format == "uuid" && !is_uuid(text)) {
        return refuse(path, "expected a UUID");
    }
    return base::ok();
}

/// Where a check has come to.
struct At {
    std::string path;
    int depth = 1;
    Unlisted unlisted = Unlisted::refused;

    [[nodiscard]] At below(std::string inner) const {
        return {std::move(inner), depth + 1, unlisted};
    }
};

Status check(const Json& schema, const Json& value, const At& at);

Status check_array(const Json& schema, const Json& list, const At& at) {
    if (auto sized = check_size(schema, list.size(), at.path, {"minItems", "maxItems"}, "items");
        !sized) {
        return sized;
    }
    const auto* items = find_member(schema, "items");
    if (items == nullptr) {
        return base::ok();
    }
    for (std::size_t i = 0; i < list.size(); ++i) {
        if (auto checked = check(*items, list[i], at.below(fmt::format("{}[{}]", at.path, i)));
            !checked) {
            return checked;
        }
    }
    return base::ok();
}

Status check_object(const Json& schema, const Json& object, const At& at) {
    static const Json none = Json::object();
    static const Json kAnything = true;
    const auto* listed = find_member(schema, "properties");
    const Json& properties = listed != nullptr && listed->is_object() ? *listed : none;
    if (const auto* required = find_member(schema, "required");
        required != nullptr && required->is_array()) {
        for (const auto& name : *required) {
            if (name.is_string() && !object.contains(name.get_ref<const std::string&>())) {
                return refuse(join(at.path, name.get<std::string>()), "missing");
            }
        }
    }
    const auto* others = find_member(schema, "additionalProperties");
    const bool lenient = at.unlisted == Unlisted::allowed;
    if (lenient && schema.contains("patternProperties")) {
        others = &kAnything;  // which names it means is not looked at
    }
    // An object schema that lists nothing describes a free object.
    const bool free =
        others == nullptr ? lenient || (listed == nullptr && at.depth > 1) : *others == true;
    for (const auto& item : object.items()) {
        const auto inner = join(at.path, item.key());
        const auto known = properties.find(item.key());
        const Json* rule = known != properties.end() ? &*known : nullptr;
        if (rule == nullptr && others != nullptr && others->is_object()) {
            rule = others;
        }
        if (rule == nullptr && !free) {
            return refuse(inner, "unknown argument");
        }
        if (rule != nullptr) {
            if (auto checked = check(*rule, item.value(), at.below(inner)); !checked) {
                return checked;
            }
        }
    }
    return base::ok();
}

Status check(const Json& schema, const Json& value, const At& at) {
    const auto& path = at.path;
    if (at.depth > kDepthMax) {
        return refuse(path, "nested too deeply");
    }
    if (!schema.is_object()) {
        return schema == false ? Status{refuse(path, "not allowed")} : base::ok();
    }
    if (auto typed = check_type(schema, value, path); !typed) {
        return typed;
    }
    if (auto chosen = check_choice(schema, value, path); !chosen) {
        return chosen;
    }
    if (value.is_number()) {
        return check_number(schema, value, path);
    }
    if (value.is_string()) {
        return check_string(schema, value.get_ref<const std::string&>(), path);
    }
    if (value.is_array()) {
        return check_array(schema, value, at);
    }
    if (value.is_object()) {
        return check_object(schema, value, at);
    }
    return base::ok();
}

}  // namespace

Status validate_args(const Json& schema, const Json& args, Unlisted unlisted) {
    if (!args.is_object()) {
        return refuse("", "expected an object");
    }
    return check(schema, args, {"", 1, unlisted});
}

}  // namespace heddle::tools
