#pragma once

struct lua_State;

namespace heddle::nodes {

/// Pushes a table with everything scripts may call: type, tostring, tonumber, ipairs, pairs, next,
/// select, error, assert, last, list, object, null and read-only string, table, math and utf8 with
/// what is bounded in them. To be called protected; it also makes the methods of strings safe.
void push_library(lua_State* lua);

/// The name of every variable push_library() defines, and `config` and `emit`; ends with nullptr.
extern const char* const kLibraryNames[];

}  // namespace heddle::nodes
