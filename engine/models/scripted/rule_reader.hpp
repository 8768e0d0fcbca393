#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/models/scripted/script.hpp"

namespace heddle::models {

/// Reads the rules of a script and says where one is wrong.
class RuleReader {
public:
    base::Result<Script> read(const base::Json& script);

private:
    using Json = base::Json;
    base::Result<Script::Rule> read_rule(const Json& rule, const std::string& field);
    base::Status read_when(const Json& when, const std::string& field, Script::Rule& rule);
    base::Status read_captures(const Json& what,
                               const std::string& field,
                               bool in_all,
                               Script::Rule& rule);
    base::Status read_calls(const Json& calls, const std::string& field, Script::Rule& rule);
    base::Status read_reply(const Json& reply, const std::string& field, Script::Rule& rule);
};

}  // namespace heddle::models
