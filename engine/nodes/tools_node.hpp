#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/graph/node.hpp"
#include "engine/nodes/tool_selection.hpp"

namespace heddle::nodes {

struct ToolsNodeSpec {
    ToolSelection tools;
    bool fail_on_error = false;  ///< on_error: fail. Else the model is told and may try again
};

/// kind tools: carries out the tool calls of the last ai message, all at once (at most 64, else the
/// node fails), and appends one tool message for each, in the order of the calls. A failing tool, a
/// tool that does not exist and arguments that do not fit become messages with status "error".
///
/// Calls of tools that are recorded (ToolSpec) are on disk before the first of them is made, in one
/// write, and each answer goes there as it arrives. When the task is run again, whatever for, a
/// call that was answered is not made again, and one that was not goes by the tool's on_unknown:
/// `fail` becomes a message that says so, `ask` an interrupt a call (call_decision.hpp). One of a
/// tool that its source offers no more is as unknown, and goes by `fail`.
std::shared_ptr<const graph::Node> make_tools_node(ToolsNodeSpec spec);

/// Holds when the last message calls one of these tools: breakpoints before tools.
std::shared_ptr<const graph::Condition> make_tool_called(std::vector<std::string> tools);

}  // namespace heddle::nodes
