#include "engine/nodes/lua_library.hpp"

#include <string_view>

#include <lua.hpp>

#include "engine/nodes/lua_values.hpp"

// Everything here runs below a protected call: a Lua error jumps out of these functions, so their
// frames hold nothing that has a destructor.
namespace heddle::nodes {
namespace {

constexpr lua_Integer kRepeatMax = 1'000'000;
constexpr lua_Unsigned kSortMax = 10'000;
constexpr std::size_t kNeedleMax = 256;

// string.rep loops n times even for an empty string.
int string_rep(lua_State* lua) {
    std::size_t size = 0;
    const char* text = luaL_checklstring(lua, 1, &size);
    const lua_Integer times = luaL_checkinteger(lua, 2);
    std::size_t between = 0;
    const char* separator = luaL_optlstring(lua, 3, "", &between);
    if (times <= 0) {
        lua_pushliteral(lua, "");
        return 1;
    }
    if (times > kRepeatMax) {
        return luaL_error(lua, "string.rep: too many repetitions");
    }
    luaL_Buffer buffer;
    luaL_buffinit(lua, &buffer);
    for (lua_Integer i = 0; i < times; ++i) {
        if (i > 0) {
            luaL_addlstring(&buffer, separator, between);
        }
        luaL_addlstring(&buffer, text, size);
    }
    luaL_pushresult(&buffer);
    return 1;
}

// Plain search only: a pattern may take exponential time inside one call that no hook interrupts.
int string_find(lua_State* lua) {
    std::size_t size = 0;
    std::size_t wanted_size = 0;
    const char* text = luaL_checklstring(lua, 1, &size);
    const char* wanted = luaL_checklstring(lua, 2, &wanted_size);
    lua_Integer from = luaL_optinteger(lua, 3, 1);
    if (wanted_size > kNeedleMax) {
        return luaL_error(lua, "string.find: at most 256 bytes");
    }
    if (from < 1) {
        from = 1;
    }
    if (static_cast<std::size_t>(from) > size + 1) {
        lua_pushnil(lua);
        return 1;
    }
    const auto at = std::string_view{text, size}.find(std::string_view{wanted, wanted_size},
                                                      static_cast<std::size_t>(from) - 1);
    if (at == std::string_view::npos) {
        lua_pushnil(lua);
        return 1;
    }
    lua_pushinteger(lua, static_cast<lua_Integer>(at) + 1);
    lua_pushinteger(lua, static_cast<lua_Integer>(at + wanted_size));
    return 2;
}

int string_trim(lua_State* lua) {
    std::size_t size = 0;
    const char* text = luaL_checklstring(lua, 1, &size);
    constexpr std::string_view kBlank = " \t\r\n\v\f";
    std::string_view rest{text, size};
    const auto begin = rest.find_first_not_of(kBlank);
    if (begin == std::string_view::npos) {
        lua_pushliteral(lua, "");
        return 1;
    }
    rest = rest.substr(begin, rest.find_last_not_of(kBlank) - begin + 1);
    lua_pushlstring(lua, rest.data(), rest.size());
    return 1;
}

int string_split(lua_State* lua) {
    std::size_t size = 0;
    std::size_t separator_size = 0;
    const char* text = luaL_checklstring(lua, 1, &size);
    const char* separator = luaL_checklstring(lua, 2, &separator_size);
    if (separator_size == 0 || separator_size > kNeedleMax) {
        return luaL_error(lua, "string.split: the separator has 1 to 256 bytes");
    }
    std::string_view rest{text, size};
    const std::string_view by{separator, separator_size};
    lua_newtable(lua);
    for (lua_Integer i = 1;; ++i) {
        const auto at = rest.find(by);
        const auto part = rest.substr(0, at);
        lua_pushlstring(lua, part.data(), part.size());
        lua_rawseti(lua, -2, i);
        if (at == std::string_view::npos) {
            return 1;
        }
        rest.remove_prefix(at + by.size());
    }
}

// The library's sort is one C call: its size bounds it.
int table_sort(lua_State* lua) {
    luaL_checktype(lua, 1, LUA_TTABLE);
    if (lua_rawlen(lua, 1) > kSortMax) {
        return luaL_error(lua, "table.sort: list too long");
    }
    const int arguments = lua_gettop(lua);
    lua_pushvalue(lua, lua_upvalueindex(1));
    lua_insert(lua, 1);
    lua_call(lua, arguments, 0);
    return 0;
}

int last(lua_State* lua) {
    if (const auto* items = to_items(lua, 1); items != nullptr) {
        if (items->empty()) {
            lua_pushnil(lua);
        } else {
            push_json(lua, items->back().json());
        }
        return 1;
    }
    if (lua_isnoneornil(lua, 1)) {
        lua_pushnil(lua);
        return 1;
    }
    luaL_checktype(lua, 1, LUA_TTABLE);
    lua_rawgeti(lua, 1, static_cast<lua_Integer>(lua_rawlen(lua, 1)));
    return 1;
}

int make_list(lua_State* lua) {
    if (lua_isnoneornil(lua, 1)) {
        lua_newtable(lua);
    }
    luaL_argcheck(lua, is_markable(lua, -1), 1, "expected a table of yours");
    mark_list(lua);
    return 1;
}

int make_object(lua_State* lua) {
    if (lua_isnoneornil(lua, 1)) {
        lua_newtable(lua);
    }
    luaL_argcheck(lua, is_markable(lua, -1), 1, "expected a table of yours");
    mark_object(lua);
    return 1;
}

int read_only(lua_State* lua) {
    return luaL_error(lua, "the library is read-only");
}

// Replaces the table on the top of the stack by an empty one through which it is read.
void protect(lua_State* lua) {
    lua_newtable(lua);
    lua_createtable(lua, 0, 3);
    lua_pushvalue(lua, -3);
    lua_setfield(lua, -2, "__index");
    lua_pushcfunction(lua, read_only);
    lua_setfield(lua, -2, "__newindex");
    lua_pushboolean(lua, 0);
    lua_setfield(lua, -2, "__metatable");
    lua_setmetatable(lua, -2);
    lua_remove(lua, -2);
}

// With [library, source] on the stack: copies the named functions from the source to the library.
void copy(lua_State* lua, const char* const* names) {
    for (; *names != nullptr; ++names) {
        lua_getfield(lua, -1, *names);
        lua_setfield(lua, -3, *names);
    }
}

// Opens a standard library, takes the named functions and leaves the new table on the stack.
void take(lua_State* lua, lua_CFunction open, const char* name, const char* const* names) {
    lua_newtable(lua);
    luaL_requiref(lua, name, open, 0);
    copy(lua, names);
    lua_pop(lua, 1);
}

void add_string(lua_State* lua) {
    static const char* const kNames[] = {"byte",  "char", "format",  "len",  "lower",
                                         "upper", "sub",  "reverse", nullptr};
    take(lua, luaopen_string, LUA_STRLIBNAME, kNames);
    const luaL_Reg own[] = {{"rep", string_rep},
                            {"find", string_find},
                            {"trim", string_trim},
                            {"split", string_split},
                            {nullptr, nullptr}};
    luaL_setfuncs(lua, own, 0);
    protect(lua);
    // Methods of strings (("x"):rep(9)) go the same way; the library's own metatable would lead to
    // string.dump and to patterns.
    lua_pushliteral(lua, "");
    lua_createtable(lua, 0, 2);
    lua_pushvalue(lua, -3);
    lua_setfield(lua, -2, "__index");
    lua_pushboolean(lua, 0);
    lua_setfield(lua, -2, "__metatable");
    lua_setmetatable(lua, -2);
    lua_pop(lua, 1);
    lua_setfield(lua, -2, "string");
}

void add_table(lua_State* lua) {
    static const char* const kNames[] = {"concat", "insert", "remove", "pack", "unpack", nullptr};
    take(lua, luaopen_table, LUA_TABLIBNAME, kNames);
    luaL_requiref(lua, LUA_TABLIBNAME, luaopen_table, 0);
    lua_getfield(lua, -1, "sort");
    lua_pushcclosure(lua, table_sort, 1);
    lua_setfield(lua, -3, "sort");
    lua_pop(lua, 1);
    protect(lua);
    lua_setfield(lua, -2, "table");
}

void add_rest(lua_State* lua) {
    static const char* const kMath[] = {
        "abs", "ceil", "floor", "max", "min",       "fmod",       "modf",       "sqrt",
        "exp", "log",  "sin",   "cos", "tan",       "asin",       "acos",       "atan",
        "pi",  "huge", "type",  "ult", "tointeger", "maxinteger", "mininteger", nullptr};
    static const char* const kUtf8[] = {"char",  "codepoint",   "len",  "offset",
                                        "codes", "charpattern", nullptr};
    take(lua, luaopen_math, LUA_MATHLIBNAME, kMath);
    protect(lua);
    lua_setfield(lua, -2, "math");
    take(lua, luaopen_utf8, LUA_UTF8LIBNAME, kUtf8);
    protect(lua);
    lua_setfield(lua, -2, "utf8");
}

}  // namespace

const char* const kLibraryNames[] = {"type", "tostring", "tonumber", "ipairs", "pairs",
                                     "next", "select",   "error",    "assert", "last",
                                     "list", "object",   "null",     "string", "table",
                                     "math", "utf8",     "config",   "emit",   nullptr};

void push_library(lua_State* lua) {
    static const char* const kBase[] = {"type", "tostring", "tonumber", "ipairs", "pairs",
                                        "next", "select",   "error",    "assert", nullptr};
    take(lua, luaopen_base, LUA_GNAME, kBase);
    add_string(lua);
    add_table(lua);
    add_rest(lua);
    const luaL_Reg own[] = {
        {"last", last}, {"list", make_list}, {"object", make_object}, {nullptr, nullptr}};
    luaL_setfuncs(lua, own, 0);
    push_null(lua);
    lua_setfield(lua, -2, "null");
}

}  // namespace heddle::nodes
