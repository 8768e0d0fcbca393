#include "engine/nodes/lua_values.hpp"

#include <limits>
#include <utility>

#include <fmt/format.h>
#include <lua.hpp>

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using graph::Item;

using Items = std::vector<Item>;

constexpr const char* kItemsType = "heddle.items";
constexpr const char* kListType = "heddle.list";
constexpr const char* kObjectType = "heddle.object";
constexpr int kDepthMax = 32;
constexpr std::size_t kValuesMax = 100'000;
constexpr std::size_t kBytesMax = 8U << 20U;

const Items& items_at(lua_State* lua, int index) {
    return **static_cast<const Items**>(luaL_checkudata(lua, index, kItemsType));
}

int items_index(lua_State* lua) {
    const Items& items = items_at(lua, 1);
    int is_integer = 0;
    const lua_Integer at = lua_tointegerx(lua, 2, &is_integer);
    if (is_integer == 0 || at < 1 || static_cast<std::size_t>(at) > items.size()) {
        lua_pushnil(lua);
    } else {
        push_json(lua, items[static_cast<std::size_t>(at) - 1].json());
    }
    return 1;
}

int items_length(lua_State* lua) {
    lua_pushinteger(lua, static_cast<lua_Integer>(items_at(lua, 1).size()));
    return 1;
}

int items_next(lua_State* lua) {
    const Items& items = items_at(lua, 1);
    const lua_Integer at = lua_tointegerx(lua, 2, nullptr) + 1;
    if (at < 1 || static_cast<std::size_t>(at) > items.size()) {
        lua_pushnil(lua);
        return 1;
    }
    lua_pushinteger(lua, at);
    push_json(lua, items[static_cast<std::size_t>(at) - 1].json());
    return 2;
}

int items_pairs(lua_State* lua) {
    (void)items_at(lua, 1);
    lua_pushcfunction(lua, items_next);
    lua_pushvalue(lua, 1);
    lua_pushinteger(lua, 0);
    return 3;
}

int read_only(lua_State* lua) {
    return luaL_error(lua, "the state is read-only: return what is to be written");
}

void make_type(lua_State* lua, const char* name) {
    luaL_newmetatable(lua, name);
    // What getmetatable would answer, did it exist: never the table itself.
    lua_pushboolean(lua, 0);
    lua_setfield(lua, -2, "__metatable");
}

bool has_type(lua_State* lua, int index, const char* name) {
    if (lua_getmetatable(lua, index) == 0) {
        return false;
    }
    luaL_getmetatable(lua, name);
    const bool same = lua_rawequal(lua, -1, -2) != 0;
    lua_pop(lua, 2);
    return same;
}

/// One conversion out of Lua, with what it has taken so far. Uses only calls that raise nothing.
class Reader {
public:
    explicit Reader(lua_State* lua) : lua_{lua} {}

    Result<Json> read(int index, int depth) {
        if (++values_ > kValuesMax || bytes_ > kBytesMax) {
            return too_much();
        }
        switch (lua_type(lua_, index)) {
            case LUA_TNIL:
                return Json{};
            case LUA_TBOOLEAN:
                return Json(lua_toboolean(lua_, index) != 0);
            case LUA_TNUMBER:
                return read_number(index);
            case LUA_TSTRING:
                return read_string(index);
            case LUA_TLIGHTUSERDATA:
                return Json{};
            case LUA_TTABLE:
                return read_table(lua_absindex(lua_, index), depth + 1);
            case LUA_TUSERDATA:
                return read_items(index);
            default:
                break;
        }
        return Error{ErrorCode::graph_error,
                     fmt::format("a {} cannot be written to the state",
                                 lua_typename(lua_, lua_type(lua_, index)))};
    }

private:
    static Error too_much() {
        return Error{ErrorCode::graph_error, "the script returned too much"};
    }
    Json read_number(int index) {
        if (lua_isinteger(lua_, index) != 0) {
            return Json(lua_tointegerx(lua_, index, nullptr));
        }
        return Json(lua_tonumberx(lua_, index, nullptr));
    }
    Json read_string(int index) {
        std::size_t size = 0;
        const char* text = lua_tolstring(lua_, index, &size);
        bytes_ += size;
        return Json(std::string{text, size});
    }
    Result<Json> read_items(int index) {
        const auto* items = to_items(lua_, index);
        if (items == nullptr) {
            return Error{ErrorCode::graph_error, "unknown userdata"};
        }
        Json list = Json::array();
        for (const auto& item : *items) {
            bytes_ += item.text().size();
            if (++values_ > kValuesMax || bytes_ > kBytesMax) {
                return too_much();
            }
            list.push_back(item.json());
        }
        return list;
    }
    Result<Json> read_table(int index, int depth) {
        if (depth > kDepthMax || lua_checkstack(lua_, 8) == 0) {
            return Error{ErrorCode::graph_error,
                         fmt::format("a table is nested more than {} levels "
                                     "deep",
                                     kDepthMax)};
        }
        const auto length = lua_rawlen(lua_, index);
        const bool object = has_type(lua_, index, kObjectType);
        if (length > 0 && !object) {
            return read_list(index, length, depth);
        }
        Json out = Json::object();
        lua_pushnil(lua_);
        while (lua_next(lua_, index) != 0) {
            if (lua_type(lua_, -2) != LUA_TSTRING) {
                lua_pop(lua_, 2);
                return Error{ErrorCode::graph_error,
                             "a table must be a list or have only strings as keys"};
            }
            std::size_t size = 0;
            const char* key = lua_tolstring(lua_, -2, &size);
            bytes_ += size;
            auto value = read(-1, depth);
            if (!value) {
                lua_pop(lua_, 2);
                return value;
            }
            out[std::string{key, size}] = std::move(*value);
            lua_pop(lua_, 1);
        }
        if (out.empty() && !object) {
            return Json::array();
        }
        return out;
    }
    Result<Json> read_list(int index, std::size_t length, int depth) {
        Json out = Json::array();
        for (std::size_t i = 1; i <= length; ++i) {
            lua_rawgeti(lua_, index, static_cast<lua_Integer>(i));
            auto value = read(-1, depth);
            lua_pop(lua_, 1);
            if (!value) {
                return value;
            }
            out.push_back(std::move(*value));
        }
        std::size_t keys = 0;
        lua_pushnil(lua_);
        while (lua_next(lua_, index) != 0) {
            lua_pop(lua_, 1);
            if (++keys > length) {
                lua_pop(lua_, 1);
                return Error{ErrorCode::graph_error,
                             "a table must be a list or have only strings as keys"};
            }
        }
        return out;
    }

    lua_State* lua_;
    std::size_t values_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace

void push_null(lua_State* lua) {
    lua_pushlightuserdata(lua, nullptr);
}

void push_json(lua_State* lua, const Json& value) {
    luaL_checkstack(lua, 6, "value nested too deeply");
    switch (value.type()) {
        case Json::value_t::boolean:
            lua_pushboolean(lua, static_cast<int>(*value.get_ptr<const bool*>()));
            return;
        case Json::value_t::number_integer:
            lua_pushinteger(lua, *value.get_ptr<const Json::number_integer_t*>());
            return;
        case Json::value_t::number_unsigned: {
            const auto number = *value.get_ptr<const Json::number_unsigned_t*>();
            if (number <=
                static_cast<Json::number_unsigned_t>(std::numeric_limits<lua_Integer>::max())) {
                lua_pushinteger(lua, static_cast<lua_Integer>(number));
            } else {
                lua_pushnumber(lua, static_cast<lua_Number>(number));
            }
            return;
        }
        case Json::value_t::number_float:
            lua_pushnumber(lua, *value.get_ptr<const Json::number_float_t*>());
            return;
        case Json::value_t::string: {
            const auto* text = value.get_ptr<const std::string*>();
            lua_pushlstring(lua, text->data(), text->size());
            return;
        }
        case Json::value_t::array: {
            lua_newtable(lua);
            lua_Integer at = 0;
            for (auto element = value.cbegin(); element != value.cend(); ++element) {
                if (element->is_null()) {
                    push_null(lua);
                } else {
                    push_json(lua, *element);
                }
                lua_rawseti(lua, -2, ++at);
            }
            mark_list(lua);
            return;
        }
        case Json::value_t::object:
            lua_newtable(lua);
            for (auto member = value.cbegin(); member != value.cend(); ++member) {
                if (member->is_null()) {
                    continue;
                }
                lua_pushlstring(lua, member.key().data(), member.key().size());
                push_json(lua, *member);
                lua_rawset(lua, -3);
            }
            mark_object(lua);
            return;
        default:
            lua_pushnil(lua);
            return;
    }
}

void push_items(lua_State* lua, const Items* items) {
    auto** proxy = static_cast<const Items**>(lua_newuserdatauv(lua, sizeof(items), 0));
    *proxy = items;
    luaL_setmetatable(lua, kItemsType);
}

void open_values(lua_State* lua) {
    make_type(lua, kListType);
    make_type(lua, kObjectType);
    make_type(lua, kItemsType);
    const luaL_Reg functions[] = {{"__index", items_index},
                                  {"__len", items_length},
                                  {"__pairs", items_pairs},
                                  {"__newindex", read_only},
                                  {nullptr, nullptr}};
    luaL_setfuncs(lua, functions, 0);
    lua_pop(lua, 3);
}

void mark_list(lua_State* lua) {
    luaL_setmetatable(lua, kListType);
}
void mark_object(lua_State* lua) {
    luaL_setmetatable(lua, kObjectType);
}

bool is_markable(lua_State* lua, int index) {
    if (lua_type(lua, index) != LUA_TTABLE) {
        return false;
    }
    if (lua_getmetatable(lua, index) == 0) {
        return true;
    }
    lua_pop(lua, 1);
    return has_type(lua, index, kListType) || has_type(lua, index, kObjectType);
}

const Items* to_items(lua_State* lua, int index) {
    if (lua_type(lua, index) != LUA_TUSERDATA || !has_type(lua, index, kItemsType)) {
        return nullptr;
    }
    return *static_cast<const Items**>(lua_touserdata(lua, index));
}

bool is_truthy(lua_State* lua, int index) {
    switch (lua_type(lua, index)) {
        case LUA_TNIL:
            return false;
        case LUA_TBOOLEAN:
            return lua_toboolean(lua, index) != 0;
        case LUA_TSTRING:
            return lua_rawlen(lua, index) > 0;
        case LUA_TLIGHTUSERDATA:
            return lua_touserdata(lua, index) != nullptr;
        case LUA_TUSERDATA: {
            const auto* items = to_items(lua, index);
            return items != nullptr && !items->empty();
        }
        case LUA_TTABLE: {
            const int table = lua_absindex(lua, index);
            lua_pushnil(lua);
            if (lua_next(lua, table) == 0) {
                return false;
            }
            lua_pop(lua, 2);
            return true;
        }
        default:
            return true;
    }
}

Result<Json> to_json(lua_State* lua, int index) {
    return Reader{lua}.read(index, 0);
}

}  // namespace heddle::nodes
