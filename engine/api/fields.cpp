#include "engine/api/fields.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace heddle::api {

using base::Error;
using base::ErrorCode;
using base::Json;

Fields::Fields(const Json& object, std::string path) : object_{object}, path_{std::move(path)} {}

const Json* Fields::find(std::string_view name) {
    known_.push_back(name);
    const auto at = object_.find(name);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
}

std::optional<std::string> Fields::text(std::string_view name) {
    const auto* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_string()) {
        refuse(name, "must be a string");
        return std::nullopt;
    }
    return value->get<std::string>();
}

std::optional<bool> Fields::flag(std::string_view name) {
    const auto* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_boolean()) {
        refuse(name, "must be true or false");
        return std::nullopt;
    }
    return value->get<bool>();
}

std::optional<std::int64_t> Fields::integer(std::string_view name,
                                            std::int64_t least,
                                            std::int64_t most) {
    const auto* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    // A uint64 past int64's range would turn negative in get<int64_t>().
    const bool fits =
        value->is_number_integer() &&
        (!value->is_number_unsigned() || value->get<std::uint64_t>() <= std::uint64_t(INT64_MAX)) &&
        value->get<std::int64_t>() >= least && value->get<std::int64_t>() <= most;
    if (!fits) {
        refuse(name, fmt::format("must be an integer from {} to {}", least, most));
        return std::nullopt;
    }
    return value->get<std::int64_t>();
}

std::optional<double> Fields::number(std::string_view name) {
    const auto* value = find(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (!value->is_number()) {
        refuse(name, "must be a number");
        return std::nullopt;
    }
    return value->get<double>();
}

const Json* Fields::object(std::string_view name) {
    const auto* value = find(name);
    if (value != nullptr && !value->is_object()) {
        refuse(name, "must be an object");
        return nullptr;
    }
    return value;
}

const Json* Fields::array(std::string_view name) {
    const auto* value = find(name);
    if (value != nullptr && !value->is_array()) {
        refuse(name, "must be a list");
        return nullptr;
    }
    return value;
}

std::optional<std::vector<std::string>> Fields::texts(std::string_view name, std::size_t most) {
    const auto* value = array(name);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (value->size() > most) {
        refuse(name, fmt::format("has more than {} items", most));
        return std::nullopt;
    }
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < value->size(); ++i) {
        if (!(*value)[i].is_string()) {
            refuse(fmt::format("{}[{}]", name, i), "must be a string");
            return std::nullopt;
        }
        texts.push_back((*value)[i].get<std::string>());
    }
    return texts;
}

std::optional<std::size_t> Fields::choice(std::string_view name,
                                          const std::vector<std::string_view>& choices) {
    const auto value = text(name);
    if (!value) {
        return std::nullopt;
    }
    const auto at = std::find(choices.begin(), choices.end(), *value);
    if (at == choices.end()) {
        refuse(name, fmt::format("must be one of {}", fmt::join(choices, ", ")));
        return std::nullopt;
    }
    return static_cast<std::size_t>(at - choices.begin());
}

void Fields::refuse(std::string_view name, std::string_view problem, ErrorCode code) {
    if (error_) {
        return;
    }
    const auto path = path_of(name);
    error_ = Error{code, fmt::format("{} {}", path, problem), path};
}

void Fields::refuse_unsupported(std::string_view name, std::string_view why) {
    refuse(name, why, ErrorCode::unsupported);
}

void Fields::keep(base::Status status) {
    if (!status && !error_) {
        error_ = std::move(status).error();
    }
}

std::string Fields::path_of(std::string_view name) const {
    return path_.empty() ? std::string{name} : fmt::format("{}.{}", path_, name);
}

base::Status Fields::finish() {
    if (error_) {
        return *error_;
    }
    for (const auto& [name, value] : object_.items()) {
        if (value.is_null()) {
            continue;
        }
        if (std::find(known_.begin(), known_.end(), name) == known_.end()) {
            constexpr std::size_t kShownMax = 64;
            const auto shown = path_of(name.substr(0, kShownMax));
            return Error{ErrorCode::invalid_argument, fmt::format("{} is not a known field", shown),
                         shown};
        }
    }
    return base::ok();
}

base::Result<Json> parse_body(std::string_view body) {
    if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
        return Json::object();
    }
    auto parsed = base::parse_json(body, "request body");
    if (parsed && !parsed->is_object()) {
        return Error{ErrorCode::invalid_argument, "the request body must be a JSON object"};
    }
    return parsed;
}

}  // namespace heddle::api
