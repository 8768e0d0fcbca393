#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/nodes/agent_loader.hpp"

/// A YAML file as a plain tree with line numbers: what the loader reads instead of the library's
/// nodes.
namespace heddle::nodes {

struct YamlNode {
    enum class Kind : std::uint8_t { null, scalar, list, map };
    Kind kind = Kind::null;
    int line = 0;         ///< from 1
    std::string text;     ///< scalar, variables expanded
    bool quoted = false;  ///< the scalar is a string whatever it looks like
    std::vector<YamlNode> elements;
    std::vector<std::pair<std::string, YamlNode>> members;  ///< in the order of the file
    std::map<std::string, int, std::less<>> member_lines;   ///< line of each key

    [[nodiscard]] const YamlNode* find(std::string_view key) const noexcept;
    /// Scalars by YAML's core schema: null, true, 12, 0.5; a quoted one is a string.
    [[nodiscard]] base::Json to_json() const;
    [[nodiscard]] std::string_view kind_name() const noexcept;
};

/// Parses `text`: at most 1 MB, 32 levels, 20,000 nodes (aliases counted as often as they are
/// used).
/// ${NAME} and ${NAME:-default} in values are replaced, $${ is a literal ${.
/// @param problems  syntax errors, repeated keys, keys that are no text, unset variables
/// @return the tree as far as it could be read
YamlNode parse_yaml(const std::string& text,
                    const std::string& file,
                    const std::map<std::string, std::string>& variables,
                    std::vector<Problem>& problems);

}  // namespace heddle::nodes
