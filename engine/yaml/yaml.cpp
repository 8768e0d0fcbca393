#include "engine/yaml/yaml.hpp"

#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

namespace heddle::yaml {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;

template <class Number>
bool read_whole(const std::string& text, Number& number) {
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    return read.ec == std::errc{} && read.ptr == end;
}

Json scalar(const YAML::Node& node) {
    const auto& text = node.Scalar();
    if (node.Tag() == "!") {
        return text;
    }  // quoted
    if (text.empty() || text == "~" || text == "null") {
        return nullptr;
    }
    if (text == "true") {
        return true;
    }
    if (text == "false") {
        return false;
    }
    std::int64_t whole = 0;
    if (read_whole(text, whole)) {
        // A count is unsigned in JSON as we parse it, too.
        return whole < 0 ? Json(whole) : Json(static_cast<std::uint64_t>(whole));
    }
    double real = 0;
    if (read_whole(text, real) && std::isfinite(real)) {
        return real;
    }
    return text;
}

class Converter {
public:
    Converter(std::string_view what, const Limits& limits) : what_{what}, limits_{limits} {}

    Result<Json> convert(const YAML::Node& node, std::size_t depth) {
        if (depth > limits_.depth_max) {
            return refuse(node, fmt::format("nested more than {} levels deep", limits_.depth_max));
        }
        if (++nodes_ > limits_.nodes_max) {
            return refuse(node, fmt::format("more than {} values", limits_.nodes_max));
        }
        if (node.IsScalar()) {
            return scalar(node);
        }
        if (node.IsSequence()) {
            return convert_list(node, depth);
        }
        if (node.IsMap()) {
            return convert_map(node, depth);
        }
        return Json{};
    }

private:
    [[nodiscard]] Error refuse(const YAML::Node& node, const std::string& problem) const {
        return {ErrorCode::bad_request,
                fmt::format("{}:{}: {}", what_, node.Mark().line + 1, problem)};
    }
    Result<Json> convert_list(const YAML::Node& node, std::size_t depth) {
        Json list = Json::array();
        for (const auto& element : node) {
            auto value = convert(element, depth + 1);
            if (!value) {
                return value;
            }
            list.push_back(*std::move(value));
        }
        return list;
    }
    Result<Json> convert_map(const YAML::Node& node, std::size_t depth) {
        Json object = Json::object();
        for (const auto& member : node) {
            if (!member.first.IsScalar()) {
                return refuse(member.first, "a key must be text");
            }
            const auto& key = member.first.Scalar();
            if (object.contains(key)) {
                return refuse(member.first, fmt::format("the key \"{}\" is repeated", key));
            }
            auto value = convert(member.second, depth + 1);
            if (!value) {
                return value;
            }
            object[key] = *std::move(value);
        }
        return object;
    }

    std::string what_;
    const Limits limits_;
    std::size_t nodes_ = 0;
};

}  // namespace

Result<Json> parse(std::string_view text, std::string_view what, Limits limits) try {
    if (text.size() > limits.bytes_max) {
        return Error{ErrorCode::payload_too_large,
                     fmt::format("{} has {} bytes, at most {} are read", what, text.size(),
                                 limits.bytes_max)};
    }
    const auto root = YAML::Load(std::string{text});
    return Converter{what, limits}.convert(root, 1);
} catch (const YAML::Exception& problem) {
    return Error{ErrorCode::bad_request,
                 fmt::format("{}:{}: {}", what, problem.mark.line + 1, problem.msg)};
}

Result<Json> load(const std::filesystem::path& file, Limits limits) {
    std::ifstream input{file, std::ios::binary};
    std::ostringstream text;
    if (!input || !(text << input.rdbuf())) {
        return Error{ErrorCode::not_found, fmt::format("{} cannot be read", file.string())};
    }
    return parse(text.str(), file.string(), limits);
}

}  // namespace heddle::yaml
