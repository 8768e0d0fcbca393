#pragma once

#include <string_view>

#include "engine/base/json.hpp"
#include "engine/graph/node.hpp"
#include "engine/graph/state.hpp"

/// How the nodes that talk use the state: all messages are in the channel `messages`.
namespace heddle::nodes {

inline constexpr std::string_view kMessages = "messages";

/// The newest message of this type. @return nullptr if there is none
const graph::Item* find_last_message(const graph::State& state, std::string_view type);
/// @return the tool calls of the last message if that is an ai message with any, else an empty list
const base::Json& pending_tool_calls(const graph::State& state);
/// An output that appends one message.
graph::NodeOutput write_message(base::Json message);

}  // namespace heddle::nodes
