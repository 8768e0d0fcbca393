#pragma once

#include <memory>

#include "engine/graph/node.hpp"
#include "engine/nodes/lua_script.hpp"

namespace heddle::nodes {

/// kind lua: runs a script that returns a table of channel writes ({messages = {...}}) or nothing.
/// Its emit(value) goes to stream_mode custom.
std::shared_ptr<const graph::Node> make_lua_node(std::shared_ptr<const LuaScript> script);

/// `when` of an edge: the truth of a Lua expression over the state.
std::shared_ptr<const graph::Condition> make_lua_condition(std::shared_ptr<const LuaScript> script);

/// Compiles an expression. @return graph_error with Lua's message
base::Result<std::shared_ptr<const LuaScript>> compile_expression(const std::string& expression,
                                                                  std::string name);

}  // namespace heddle::nodes
