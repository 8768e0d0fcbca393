#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

namespace heddle::models {

/// What the rules look at, taken from a conversation once per call.
struct Situation {
    std::string input;                ///< the last human message, clipped
    std::string folded_input;         ///< see fold()
    std::vector<std::string> humans;  ///< the last ten human messages, clipped, newest first
    std::string language;             ///< en | es, of the newest human message that shows one
    std::size_t turn = 0;             ///< human messages
    bool after_tool = false;          ///< the last message is a tool's
    std::string tool_name;
    std::string tool_text;
    base::Json tool_result;  ///< tool_text parsed, or null
};
Situation look_at(const base::Json& messages);

struct ScriptedCall {
    std::string name;
    base::Json args;
};
struct ScriptedReply {
    std::string text;
    std::vector<ScriptedCall> calls;
    std::optional<int> latency_ms;
};

/// Rules in order; the first that matches answers. Immutable.
class Script {
public:
    /// @param script  {rules, default}
    /// @return invalid_argument with `field` naming the rule ("rules[2].when.contains")
    static base::Result<Script> read(const base::Json& script);
    [[nodiscard]] ScriptedReply answer(const Situation& situation) const;

private:
    struct Capture {
        std::string name;
        std::string kind;  ///< see find_thing(); empty: one of choices
        std::vector<std::pair<std::string, std::vector<std::string>>> choices;
        bool in_all = false;  ///< looks through earlier human messages too
    };
    struct Rule {
        std::vector<std::string> any;
        std::vector<std::string> all;
        std::vector<std::string> result_any;
        std::string after_tool;
        std::string language;
        std::size_t turn = 0;
        std::vector<Capture> captures;
        std::map<std::string, std::string> replies;  ///< by language; "" for every one
        std::vector<ScriptedCall> calls;
        std::optional<int> latency_ms;
    };
    using Captured = std::map<std::string, std::string>;
    friend class RuleReader;

    static bool matches(const Rule& rule, const Situation& situation, Captured& captured);
    static bool capture(const Capture& what, const Situation& situation, Captured& captured);
    static ScriptedReply fill(const Rule& rule,
                              const Situation& situation,
                              const Captured& captured);

    std::vector<Rule> rules_;
    std::optional<Rule> default_;
};

}  // namespace heddle::models
