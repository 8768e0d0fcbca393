#pragma once

#include <string>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/graph/item.hpp"

struct lua_State;

/// Values between JSON and Lua. What is pushed may raise Lua errors (no memory), so push_* is
/// called only below a protected call and keeps nothing with a destructor on its frame; to_json()
/// raises nothing and may be called anywhere.
namespace heddle::nodes {

/// JSON null inside a list, and the global `null`; a null member of an object is absent in Lua.
void push_null(lua_State* lua);
void push_json(lua_State* lua, const base::Json& value);
/// A read-only list that converts an element when it is asked for. `items` must outlive the call.
void push_items(lua_State* lua, const std::vector<graph::Item>* items);

/// Creates the metatables that push_* and to_json() use. Once for each state, protected.
void open_values(lua_State* lua);

/// Marks the table at the top of the stack as a list or as an object, so that an empty one keeps
/// its kind.
void mark_list(lua_State* lua);
void mark_object(lua_State* lua);

/// Whether the value at `index` is a table that may be marked: the library's own may not.
bool is_markable(lua_State* lua, int index);

/// @return the elements of the list proxy at `index`, nullptr if that is something else
const std::vector<graph::Item>* to_items(lua_State* lua, int index);

/// Whether the value at `index` counts as true in a condition: not nil, false, null, "" or an empty
/// list or table.
bool is_truthy(lua_State* lua, int index);

/// The value at `index`: at most 32 levels deep, 100,000 values and 8 MB of text; an unmarked empty
/// table is a list.
/// @return graph_error for what JSON has no form for (functions, cycles, mixed tables)
base::Result<base::Json> to_json(lua_State* lua, int index);

}  // namespace heddle::nodes
