#include "engine/models/scripted/script.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "engine/models/messages.hpp"
#include "engine/models/scripted/rule_reader.hpp"
#include "engine/models/scripted/text.hpp"

namespace heddle::models {
namespace {

using base::Json;

constexpr std::size_t kHumansMax = 10;
constexpr std::size_t kFilledBytesMax = 16U << 10U;
constexpr std::size_t kToolTextShownMax = 600;

std::string type_of(const Json& message) {
    for (const char* key : {"type", "role"}) {
        const auto at = message.find(key);
        if (at != message.end() && at->is_string()) {
            return at->get<std::string>();
        }
    }
    return {};
}

bool has_any(const std::string& text, const std::vector<std::string>& phrases) {
    return std::any_of(phrases.begin(), phrases.end(),
                       [&](const std::string& phrase) { return has_phrase(text, phrase); });
}

// "a.0.b" in a tool's result; null if it leads nowhere.
Json follow(const Json& root, std::string_view path) {
    const Json* at = &root;
    while (!path.empty()) {
        const auto dot = std::min(path.find('.'), path.size());
        const std::string key{path.substr(0, dot)};
        path.remove_prefix(std::min(dot + 1, path.size()));
        std::size_t index = 0;
        if (at->is_object() && at->contains(key)) {
            at = &(*at)[key];
        } else if (at->is_array() &&
                   std::from_chars(key.data(), key.data() + key.size(), index).ec == std::errc{} &&
                   index < at->size()) {
            at = &(*at)[index];
        } else {
            return {};
        }
    }
    return *at;
}

class Filler {
public:
    Filler(const Situation& situation, const std::map<std::string, std::string>& captured)
        : situation_{situation}, captured_{captured} {}

    [[nodiscard]] std::string text(std::string_view pattern) const {
        std::string out;
        for (;;) {
            const auto open = pattern.find("{{");
            const auto close = open == std::string_view::npos ? open : pattern.find("}}", open);
            out += pattern.substr(0, close == std::string_view::npos ? close : open);
            if (close == std::string_view::npos || out.size() > kFilledBytesMax) {
                break;
            }
            const auto value = find(pattern.substr(open + 2, close - open - 2));
            if (value.is_string()) {
                out += value.get_ref<const std::string&>();
            } else if (!value.is_null()) {
                out += base::dump_json(value);
            }
            pattern.remove_prefix(close + 2);
        }
        return std::string{clip(out, kFilledBytesMax)};
    }
    [[nodiscard]] Json value(const Json& pattern) const {
        if (pattern.is_string()) {
            return text(pattern.get_ref<const std::string&>());
        }
        if (!pattern.is_structured()) {
            return pattern;
        }
        Json out = pattern;
        for (auto& element : out) {
            element = value(element);
        }
        return out;
    }

private:
    [[nodiscard]] Json find(std::string_view name) const {
        while (name.starts_with(' ')) {
            name.remove_prefix(1);
        }
        while (name.ends_with(' ')) {
            name.remove_suffix(1);
        }
        constexpr std::string_view kResult = "tool_result";
        constexpr std::string_view kCaptured = "captured.";
        if (name == "input") {
            return situation_.input;
        }
        if (name == "turn") {
            return situation_.turn;
        }
        if (name == "language") {
            return situation_.language;
        }
        if (name == kResult) {
            return std::string{clip(situation_.tool_text, kToolTextShownMax)};
        }
        if (name.starts_with(kResult) && name[kResult.size()] == '.') {
            return follow(situation_.tool_result, name.substr(kResult.size() + 1));
        }
        if (name.starts_with(kCaptured)) {
            const auto at = captured_.find(std::string{name.substr(kCaptured.size())});
            if (at != captured_.end()) {
                return at->second;
            }
        }
        return {};
    }

    const Situation& situation_;                          // NOLINT: lives for one call
    const std::map<std::string, std::string>& captured_;  // NOLINT: as above
};

}  // namespace

Situation look_at(const Json& messages) {
    Situation out;
    if (!messages.is_array()) {
        return out;
    }
    for (auto at = messages.rbegin(); at != messages.rend(); ++at) {
        if (!at->is_object()) {
            continue;
        }
        const auto type = type_of(*at);
        if (type != "human" && type != "user") {
            continue;
        }
        ++out.turn;
        if (out.humans.size() < kHumansMax) {
            const auto text = message_text(*at);
            out.humans.emplace_back(clip(text, kMatchedBytesMax));
            if (out.language.empty()) {
                out.language = guess_language(out.humans.back());
            }
        }
    }
    if (out.language.empty()) {
        out.language = "en";
    }
    if (!out.humans.empty()) {
        out.input = out.humans.front();
    }
    out.folded_input = fold(out.input);
    if (!messages.empty() && messages.back().is_object() && type_of(messages.back()) == "tool") {
        const auto& last = messages.back();
        out.after_tool = true;
        out.tool_text = message_text(last);
        if (last.contains("name") && last["name"].is_string()) {
            out.tool_name = last["name"].get<std::string>();
        }
        if (auto parsed = base::parse_json(out.tool_text, "tool result"); parsed) {
            out.tool_result = *std::move(parsed);
        }
    }
    return out;
}

base::Result<Script> Script::read(const Json& script) {
    return RuleReader{}.read(script);
}

bool Script::matches(const Rule& rule, const Situation& situation, Captured& captured) {
    captured.clear();
    if (situation.after_tool != !rule.after_tool.empty()) {
        return false;
    }
    if (situation.after_tool && rule.after_tool != "*" && rule.after_tool != situation.tool_name) {
        return false;
    }
    if (!rule.language.empty() && rule.language != situation.language) {
        return false;
    }
    if (rule.turn != 0 && rule.turn != situation.turn) {
        return false;
    }
    if (!rule.any.empty() && !has_any(situation.folded_input, rule.any)) {
        return false;
    }
    if (!std::all_of(rule.all.begin(), rule.all.end(), [&](const std::string& phrase) {
            return has_phrase(situation.folded_input, phrase);
        })) {
        return false;
    }
    if (!rule.result_any.empty() &&
        !has_any(fold(clip(situation.tool_text, 4 * kMatchedBytesMax)), rule.result_any)) {
        return false;
    }
    return std::all_of(rule.captures.begin(), rule.captures.end(),
                       [&](const Capture& what) { return capture(what, situation, captured); });
}

bool Script::capture(const Capture& what, const Situation& situation, Captured& captured) {
    const std::size_t looked_at = what.in_all ? situation.humans.size() : 1;
    for (std::size_t i = 0; i < std::min(looked_at, situation.humans.size()); ++i) {
        if (!what.kind.empty()) {
            if (auto found = find_thing(what.kind, situation.humans[i]); found) {
                captured[what.name] = *std::move(found);
                return true;
            }
            continue;
        }
        const auto folded = fold(situation.humans[i]);
        for (const auto& [value, words] : what.choices) {
            if (has_any(folded, words)) {
                captured[what.name] = value;
                return true;
            }
        }
    }
    return false;
}

ScriptedReply Script::fill(const Rule& rule, const Situation& situation, const Captured& captured) {
    const Filler filler{situation, captured};
    ScriptedReply reply;
    reply.latency_ms = rule.latency_ms;
    for (const auto& call : rule.calls) {
        reply.calls.push_back({call.name, filler.value(call.args)});
    }
    auto at = rule.replies.find(situation.language);
    if (at == rule.replies.end()) {
        at = rule.replies.begin();
    }
    if (at != rule.replies.end()) {
        reply.text = filler.text(at->second);
    }
    return reply;
}

ScriptedReply Script::answer(const Situation& situation) const {
    Captured captured;
    for (const auto& rule : rules_) {
        if (matches(rule, situation, captured)) {
            return fill(rule, situation, captured);
        }
    }
    // After a tool its result is the most useful thing to say.
    if (situation.after_tool) {
        return {std::string{clip(situation.tool_text, kToolTextShownMax)}, {}, std::nullopt};
    }
    if (default_) {
        return fill(*default_, situation, {});
    }
    return {situation.language == "es"
                ? "Disculpe, no le he entendido. \u00bfPuede decirlo de otra manera?"
                : "I am sorry, I did not understand. Could you put it another way?",
            {},
            std::nullopt};
}

}  // namespace heddle::models
