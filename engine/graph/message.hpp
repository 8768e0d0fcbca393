#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/uuid.hpp"

namespace heddle::graph {

/// Makes ids for messages that came without one. With a seed (a task's or a run's id) the same
/// message gets the same id when the step is run again after a crash; without one ids are random.
class IdMint {
public:
    IdMint() = default;
    explicit IdMint(const base::Uuid& seed) : seed_{seed} {}
    [[nodiscard]] std::string next();

private:
    base::Uuid seed_{};
    std::uint64_t made_ = 0;
};

/// Brings one chat message into the form that the messages channel holds, which is how LangChain
/// serialises it: {type, content, id, name, additional_kwargs, response_metadata, ...}.
///
/// Accepts what LangChain's coercion accepts: a string (a human message), ["role", content],
/// {role, content}, {type, content}, OpenAI's tool calls, and serialised constructors
/// ({lc: 1, type: "constructor", id: [..., "HumanMessage"], kwargs}). Keys it does not know are
/// kept. {type: "remove", id} passes through as {type, id}.
/// @param path  of the message in what the client sent ("input.messages[2]"), for errors
/// @return invalid_argument with the field ("input.messages[2].role")
base::Result<base::Json> normalize_message(base::Json form, const std::string& path, IdMint& mint);

/// The id RemoveMessage uses to mean every message (LangGraph's REMOVE_ALL_MESSAGES).
inline constexpr std::string_view kRemoveAll = "__remove_all__";

}  // namespace heddle::graph
