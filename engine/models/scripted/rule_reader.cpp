#include "engine/models/scripted/rule_reader.hpp"

#include <algorithm>
#include <initializer_list>

#include <fmt/format.h>

#include "engine/models/scripted/text.hpp"

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;

constexpr std::size_t kRulesMax = 1000;

Status check_members(const Json& object,
                     const std::string& field,
                     std::initializer_list<std::string_view> known) {
    if (!object.is_object()) {
        return base::invalid_field(field, "expected an object");
    }
    for (const auto& item : object.items()) {
        if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
            return base::invalid_field(field + "." + item.key(), "unknown");
        }
    }
    return base::ok();
}

Status read_words(const Json& list, const std::string& field, std::vector<std::string>& words) {
    if (!list.is_array() || list.empty()) {
        return base::invalid_field(field, "expected a list of words");
    }
    for (const auto& word : list) {
        if (!word.is_string() || fold(word.get<std::string>()).size() < 2) {
            return base::invalid_field(field, "expected words that are not empty");
        }
        words.push_back(fold(word.get<std::string>()));
    }
    return base::ok();
}

Status read_text(const Json& value, const std::string& field, std::string& text) {
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) {
        return base::invalid_field(field, "expected a text");
    }
    text = value.get<std::string>();
    return base::ok();
}

}  // namespace

Result<Script> RuleReader::read(const Json& script) {
    if (auto checked = check_members(script, "script", {"rules", "default"}); !checked) {
        return std::move(checked).error();
    }
    Script out;
    const auto rules = script.value("rules", Json::array());
    if (!rules.is_array() || rules.size() > kRulesMax) {
        return base::invalid_field("rules",
                                   fmt::format("expected a list of at most {} rules", kRulesMax));
    }
    for (std::size_t i = 0; i < rules.size(); ++i) {
        auto rule = read_rule(rules[i], fmt::format("rules[{}]", i));
        if (!rule) {
            return std::move(rule).error();
        }
        out.rules_.push_back(*std::move(rule));
    }
    if (script.contains("default")) {
        Script::Rule rule;
        if (auto read = read_reply(script["default"], "default", rule); !read) {
            return std::move(read).error();
        }
        out.default_ = std::move(rule);
    }
    return out;
}

Result<Script::Rule> RuleReader::read_rule(const Json& rule, const std::string& field) {
    Script::Rule out;
    if (auto checked = check_members(rule, field, {"when", "reply", "tool_calls", "latency_ms"});
        !checked) {
        return std::move(checked).error();
    }
    if (rule.contains("reply") == rule.contains("tool_calls")) {
        return base::invalid_field(field, "expected either reply or tool_calls");
    }
    Status read;
    if (rule.contains("when")) {
        read = read_when(rule["when"], field + ".when", out);
    }
    if (read && rule.contains("reply")) {
        read = read_reply(rule["reply"], field + ".reply", out);
    }
    if (read && rule.contains("tool_calls")) {
        read = read_calls(rule["tool_calls"], field + ".tool_calls", out);
    }
    if (!read) {
        return std::move(read).error();
    }
    if (rule.contains("latency_ms")) {
        const auto& value = rule["latency_ms"];
        if (!value.is_number_integer() || value < 0 || value > 60'000) {
            return base::invalid_field(field + ".latency_ms", "expected 0 to 60000");
        }
        out.latency_ms = value.get<int>();
    }
    return out;
}

Status RuleReader::read_when(const Json& when, const std::string& field, Script::Rule& rule) {
    if (auto checked = check_members(when, field,
                                     {"contains", "all", "after_tool", "result_contains",
                                      "language", "turn", "capture", "recall"});
        !checked) {
        return checked;
    }
    for (const auto& item : when.items()) {
        const auto at = field + "." + item.key();
        const auto& value = item.value();
        Status read;
        if (item.key() == "contains") {
            read = read_words(value, at, rule.any);
        } else if (item.key() == "all") {
            read = read_words(value, at, rule.all);
        } else if (item.key() == "result_contains") {
            read = read_words(value, at, rule.result_any);
        } else if (item.key() == "after_tool") {
            read = read_text(value, at, rule.after_tool);
        } else if (item.key() == "language") {
            if (value != "en" && value != "es") {
                return base::invalid_field(at, "expected en or es");
            }
            rule.language = value.get<std::string>();
        } else if (item.key() == "turn") {
            if (!value.is_number_integer() || value < 1) {
                return base::invalid_field(at, "expected 1 or more");
            }
            rule.turn = value.get<std::size_t>();
        } else {
            read = read_captures(value, at, item.key() == "recall", rule);
        }
        if (!read) {
            return read;
        }
    }
    return base::ok();
}

Status RuleReader::read_captures(const Json& what,
                                 const std::string& field,
                                 bool in_all,
                                 Script::Rule& rule) {
    if (!what.is_object()) {
        return base::invalid_field(field, "expected {name: kind}");
    }
    for (const auto& item : what.items()) {
        const auto at = field + "." + item.key();
        Script::Capture capture;
        capture.name = item.key();
        capture.in_all = in_all;
        if (item.value().is_string()) {
            capture.kind = item.value().get<std::string>();
            if (!is_kind_of_thing(capture.kind)) {
                return base::invalid_field(
                    at, "expected number, word, date, time, code, email, name or choices");
            }
        } else if (item.value().is_object() && !item.value().empty()) {
            for (const auto& choice : item.value().items()) {
                std::vector<std::string> words;
                if (auto read = read_words(choice.value(), at + "." + choice.key(), words); !read) {
                    return read;
                }
                capture.choices.emplace_back(choice.key(), std::move(words));
            }
        } else {
            return base::invalid_field(at, "expected a kind, or choices {value: [words]}");
        }
        rule.captures.push_back(std::move(capture));
    }
    return base::ok();
}

Status RuleReader::read_calls(const Json& calls, const std::string& field, Script::Rule& rule) {
    if (!calls.is_array() || calls.empty() || calls.size() > 16) {
        return base::invalid_field(field, "expected a list of 1 to 16 calls");
    }
    for (std::size_t i = 0; i < calls.size(); ++i) {
        const auto at = fmt::format("{}[{}]", field, i);
        if (auto checked = check_members(calls[i], at, {"name", "args"}); !checked) {
            return checked;
        }
        ScriptedCall call;
        if (auto read = read_text(calls[i].value("name", Json{}), at + ".name", call.name); !read) {
            return read;
        }
        call.args = calls[i].value("args", Json::object());
        if (!call.args.is_object()) {
            return base::invalid_field(at + ".args", "expected an object");
        }
        rule.calls.push_back(std::move(call));
    }
    return base::ok();
}

Status RuleReader::read_reply(const Json& reply, const std::string& field, Script::Rule& rule) {
    if (reply.is_string()) {
        return read_text(reply, field, rule.replies[""]);
    }
    if (auto checked = check_members(reply, field, {"en", "es"}); !checked) {
        return checked;
    }
    if (reply.empty()) {
        return base::invalid_field(field, "expected a text, or {en, es}");
    }
    for (const auto& item : reply.items()) {
        if (auto read = read_text(item.value(), field + "." + item.key(), rule.replies[item.key()]);
            !read) {
            return read;
        }
    }
    return base::ok();
}

}  // namespace heddle::models
