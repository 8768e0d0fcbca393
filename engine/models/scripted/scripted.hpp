#pragma once

#include <filesystem>
#include <memory>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/models/model.hpp"
#include "engine/observe/metrics.hpp"

namespace heddle::models {

/// A deterministic model for tests and for the first minute without a key: rules in order, the
/// first that matches answers.
///
/// settings: `script` (file relative to base_dir, YAML or JSON: {rules, default}) or `rules` and
/// `default` inline; `latency_ms` 0..60000 before each answer; `model` a name for the metadata.
/// A rule: {when?, reply} or {when?, tool_calls} with
///   when.contains    [words]  one is in the last human message (case and accents ignored)
///   when.all         [words]  all of them are
///   when.after_tool  NAME     the last message is the result of that tool ("*": of any)
///   when.result_contains [words]  one of them is in that result
///   when.language    en | es  of the last human message, guessed from frequent words
///   when.turn        N        the conversation has N human messages
///   reply            text, or {en: text, es: text}
///   tool_calls       [{name, args}]   args' strings are templates too
///   latency_ms       instead of the settings'
///   when.capture     {NAME: number | word | date (YYYY-MM-DD) | time (HH:MM) | code | email |
///   name},
///                    or {NAME: {VALUE: [words]}}: must be in the last human message
///   when.recall      the same, in any of the last ten human messages, the newest first
/// A word matches at the beginning of a word ("cita" finds "citas"); at most 2 KB of a message are
/// looked at. A rule with after_tool matches only then, one without it never then. Templates in
/// replies and args: {{input}}, {{turn}}, {{language}}, {{captured.NAME}}, {{tool_result}} and
/// {{tool_result.a.0.b}}, a path into a JSON result; what is not there is empty. No rule matches:
/// after a tool its result, else `default`, else a polite sentence in the caller's language.
/// Usage: a quarter of the characters, rounded up, of all messages and of the answer.
/// @return invalid_argument with `field` naming the rule; not_found for a missing file
// NOLINTNEXTLINE: shared by the nodes of many agents
base::Result<std::shared_ptr<ChatModel>>
make_scripted_model(  // NOLINT: shared by many agents' nodes
    observe::Metrics& metrics,
    const base::Json& settings,
    const std::filesystem::path& base_dir);

}  // namespace heddle::models
