#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "engine/nodes/agent_reader.hpp"

namespace heddle::nodes {
namespace {

constexpr std::uintmax_t kFileBytesMax = 1U << 20U;

std::string list_names(std::initializer_list<std::string_view> names) {
    std::string text;
    for (const auto name : names) {
        if (!text.empty()) {
            text += ", ";
        }
        text += name;
    }
    return text;
}

std::string join(const std::string& path, std::string_view key) {
    return path.empty() ? std::string{key} : fmt::format("{}.{}", path, key);
}

}  // namespace

void AgentReader::complain(int line, const std::string& path, std::string_view text) {
    problems_.push_back(
        Problem{file_, line, path.empty() ? std::string{text} : fmt::format("{}: {}", path, text)});
}

bool AgentReader::is_map(const YamlNode& node, const std::string& path) {
    if (node.kind == YamlNode::Kind::map) {
        return true;
    }
    complain(node.line, path, fmt::format("expected a table, got {}", node.kind_name()));
    return false;
}

void AgentReader::check_keys(const YamlNode& map, const std::string& path, Keys known) {
    for (const auto& member : map.members) {
        if (std::find(known.begin(), known.end(), member.first) != known.end()) {
            continue;
        }
        complain(map.member_lines.find(member.first)->second, join(path, member.first),
                 fmt::format("unknown key; expected one of {}", list_names(known)));
    }
}

const YamlNode* AgentReader::need(const YamlNode& map,
                                  const std::string& path,
                                  std::string_view key) {
    const auto* found = map.find(key);
    if (found == nullptr) {
        complain(map.line, path, fmt::format("\"{}\" is missing", key));
    }
    return found;
}

std::optional<std::string> AgentReader::read_text(const YamlNode* node, const std::string& path) {
    if (node == nullptr) {
        return std::nullopt;
    }
    if (node->kind != YamlNode::Kind::scalar) {
        complain(node->line, path, fmt::format("expected text, got {}", node->kind_name()));
        return std::nullopt;
    }
    return node->text;
}

std::optional<std::int64_t> AgentReader::read_integer(const YamlNode& node,
                                                      const std::string& path,
                                                      std::int64_t least,
                                                      std::int64_t most) {
    const auto value = node.to_json();
    if (value.is_number_integer()) {
        const auto number = value.get<std::int64_t>();
        if (number >= least && number <= most) {
            return number;
        }
    }
    complain(node.line, path, fmt::format("expected an integer from {} to {}", least, most));
    return std::nullopt;
}

std::optional<double> AgentReader::read_number(const YamlNode& node,
                                               const std::string& path,
                                               double least,
                                               double most) {
    const auto value = node.to_json();
    if (value.is_number()) {
        const auto number = value.get<double>();
        if (number >= least && number <= most) {
            return number;
        }
    }
    complain(node.line, path, fmt::format("expected a number from {} to {}", least, most));
    return std::nullopt;
}

std::optional<base::Duration> AgentReader::read_duration(const YamlNode& node,
                                                         const std::string& path) {
    constexpr std::pair<std::string_view, double> kUnits[] = {
        {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"", 1e9}};
    const std::string& text = node.text;
    double number = 0;
    const auto [stopped, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view unit{stopped,
                                static_cast<std::size_t>(text.data() + text.size() - stopped)};
    for (const auto& [name, nanoseconds] : kUnits) {
        if (error != std::errc{} || unit != name) {
            continue;
        }
        const double value = number * nanoseconds;
        if (value >= 1e6 && value <= 24 * 3600e9) {
            return base::Duration{static_cast<base::Duration::rep>(value)};
        }
    }
    complain(node.line, path, "expected a time from 1ms to 24h, such as 500ms, 30s or 2m");
    return std::nullopt;
}

std::vector<std::string> AgentReader::read_names(const YamlNode* node, const std::string& path) {
    std::vector<std::string> names;
    if (node == nullptr) {
        return names;
    }
    if (node->kind == YamlNode::Kind::scalar) {
        return {node->text};
    }
    if (node->kind != YamlNode::Kind::list) {
        complain(node->line, path, fmt::format("expected a list, got {}", node->kind_name()));
        return names;
    }
    for (std::size_t i = 0; i < node->elements.size(); ++i) {
        auto name = read_text(&node->elements[i], fmt::format("{}[{}]", path, i));
        if (name) {
            names.push_back(std::move(*name));
        }
    }
    return names;
}

std::optional<std::string> AgentReader::read_file(const YamlNode& node, const std::string& path) {
    const auto name = read_text(&node, path);
    if (!name) {
        return std::nullopt;
    }
    const std::filesystem::path relative{*name};
    const auto climbs = std::find(relative.begin(), relative.end(), "..") != relative.end();
    if (name->empty() || relative.is_absolute() || climbs) {
        complain(node.line, path, "expected a file inside the agent's folder");
        return std::nullopt;
    }
    const auto full = base_dir_ / relative;
    std::error_code failure;
    const bool regular = std::filesystem::is_regular_file(full, failure);
    if (!regular || std::filesystem::file_size(full, failure) > kFileBytesMax || failure) {
        complain(node.line, path,
                 fmt::format("there is no readable file {} of at most 1 MB", full.string()));
        return std::nullopt;
    }
    std::ifstream stream{full, std::ios::binary};
    std::string text{std::istreambuf_iterator<char>{stream}, std::istreambuf_iterator<char>{}};
    if (!stream) {
        complain(node.line, path, fmt::format("the file {} cannot be read", full.string()));
        return std::nullopt;
    }
    return text;
}

bool AgentReader::has_node(std::string_view name) const {
    return graph_->find_node(name) != nullptr;
}

std::string AgentReader::node_names() const {
    std::string names;
    for (const auto& node : graph_->nodes) {
        if (!names.empty()) {
            names += ", ";
        }
        names += node.name;
    }
    return names.empty() ? "none" : names;
}

}  // namespace heddle::nodes
