#include "engine/nodes/yaml_tree.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

namespace heddle::nodes {
namespace {

using base::Json;

constexpr std::size_t kBytesMax = 1U << 20U;
constexpr int kDepthMax = 32;
constexpr int kNodesMax = 20'000;

class Converter {
public:
    Converter(const std::string& file,
              const std::map<std::string, std::string>& variables,
              std::vector<Problem>& problems)
        : file_{file}, variables_{variables}, problems_{problems} {}

    YamlNode convert(const YAML::Node& source, int depth) {
        YamlNode node;
        node.line = source.Mark().line + 1;
        if (++nodes_ > kNodesMax || depth > kDepthMax) {
            if (!overflowed_) {
                complain(node.line, "nested too deeply, or too many values");
            }
            overflowed_ = true;
            return node;
        }
        switch (source.Type()) {
            case YAML::NodeType::Scalar:
                node.kind = YamlNode::Kind::scalar;
                // Plain scalars carry the tag "?", quoted and block ones "!".
                node.quoted = source.Tag() == "!";
                node.text = expand(source.Scalar(), node.line);
                break;
            case YAML::NodeType::Sequence:
                node.kind = YamlNode::Kind::list;
                for (const auto& element : source) {
                    node.elements.push_back(convert(element, depth + 1));
                }
                break;
            case YAML::NodeType::Map:
                convert_map(source, node, depth);
                break;
            default:
                break;
        }
        return node;
    }

private:
    void convert_map(const YAML::Node& source, YamlNode& node, int depth) {
        node.kind = YamlNode::Kind::map;
        for (const auto& member : source) {
            const int line = member.first.Mark().line + 1;
            if (!member.first.IsScalar()) {
                complain(line, "a key must be text");
                continue;
            }
            const auto& key = member.first.Scalar();
            const auto [at, fresh] = node.member_lines.emplace(key, line);
            if (!fresh) {
                complain(line, fmt::format("the key \"{}\" is repeated, it was given on line {}",
                                           key, at->second));
                continue;
            }
            auto value = convert(member.second, depth + 1);
            if (value.line == 0) {
                value.line = line;
            }
            node.members.emplace_back(key, std::move(value));
        }
    }

    std::string expand(const std::string& text, int line) {
        std::string out;
        std::size_t at = 0;
        while (at < text.size()) {
            const auto dollar = text.find('$', at);
            out.append(text, at, dollar == std::string::npos ? dollar : dollar - at);
            if (dollar == std::string::npos) {
                break;
            }
            if (text.compare(dollar, 3, "$${") == 0) {
                out += "${";
                at = dollar + 3;
                continue;
            }
            const auto end = text.find('}', dollar);
            if (text.compare(dollar, 2, "${") != 0 || end == std::string::npos) {
                out += '$';
                at = dollar + 1;
                continue;
            }
            out += value_of(text.substr(dollar + 2, end - dollar - 2), line);
            at = end + 1;
        }
        return out;
    }

    // `inside` is what stands between ${ and }.
    std::string value_of(const std::string& inside, int line) {
        const auto colon = inside.find(":-");
        const auto name = inside.substr(0, colon);
        const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
            return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
        });
        if (!plain) {
            complain(line,
                     fmt::format("\"${{{}}}\" is not ${{NAME}} or ${{NAME:-default}}", inside));
            return {};
        }
        const auto found = variables_.find(name);
        // As in the shell, ":-" also stands in for a variable that is set but empty.
        if (found != variables_.end() && (!found->second.empty() || colon == std::string::npos)) {
            return found->second;
        }
        if (colon != std::string::npos) {
            return inside.substr(colon + 2);
        }
        complain(line, fmt::format("the environment variable {} is not set; set it or write "
                                   "${{{}:-default}}",
                                   name, name));
        return {};
    }

    void complain(int line, std::string text) {
        problems_.push_back(Problem{file_, line, std::move(text)});
    }

    const std::string& file_;
    const std::map<std::string, std::string>& variables_;
    std::vector<Problem>& problems_;
    int nodes_ = 0;
    bool overflowed_ = false;
};

template <class T>
std::optional<T> parse_number(const std::string& text) {
    T value{};
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(begin, end, value);
    if (error != std::errc{} || stopped != end) {
        return std::nullopt;
    }
    return value;
}

Json plain_value(const std::string& text) {
    if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
        return Json{};
    }
    if (text == "true" || text == "True" || text == "TRUE") {
        return Json(true);
    }
    if (text == "false" || text == "False" || text == "FALSE") {
        return Json(false);
    }
    // from_chars would also take "inf" and "nan", which JSON cannot hold.
    const char first =
        text[text.find_first_not_of("+-.") == std::string::npos ? 0
                                                                : text.find_first_not_of("+-.")];
    if (std::isdigit(static_cast<unsigned char>(first)) == 0) {
        return Json(text);
    }
    if (const auto whole = parse_number<std::int64_t>(text)) {
        return Json(*whole);
    }
    if (const auto real = parse_number<double>(text)) {
        return Json(*real);
    }
    return Json(text);
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const noexcept {
    const auto found = std::find_if(members.begin(), members.end(),
                                    [&](const auto& member) { return member.first == key; });
    return found == members.end() ? nullptr : &found->second;
}

Json YamlNode::to_json() const {
    switch (kind) {
        case Kind::scalar:
            return quoted ? Json(text) : plain_value(text);
        case Kind::list: {
            Json list = Json::array();
            for (const auto& element : elements) {
                list.push_back(element.to_json());
            }
            return list;
        }
        case Kind::map: {
            Json object = Json::object();
            for (const auto& [key, value] : members) {
                object[key] = value.to_json();
            }
            return object;
        }
        default:
            return Json{};
    }
}

std::string_view YamlNode::kind_name() const noexcept {
    switch (kind) {
        case Kind::scalar:
            return "a single value";
        case Kind::list:
            return "a list";
        case Kind::map:
            return "a table";
        default:
            return "nothing";
    }
}

YamlNode parse_yaml(const std::string& text,
                    const std::string& file,
                    const std::map<std::string, std::string>& variables,
                    std::vector<Problem>& problems) {
    if (text.size() > kBytesMax) {
        problems.push_back(Problem{file, 0, fmt::format("larger than {} bytes", kBytesMax)});
        return {};
    }
    try {
        Converter converter{file, variables, problems};
        return converter.convert(YAML::Load(text), 0);
    } catch (const YAML::Exception& e) {
        problems.push_back(Problem{file, e.mark.line + 1, fmt::format("not YAML: {}", e.msg)});
    } catch (const std::exception& e) {
        problems.push_back(Problem{file, 0, fmt::format("not YAML: {}", e.what())});
    }
    return {};
}

}  // namespace heddle::nodes
