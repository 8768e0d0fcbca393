#include "engine/nodes/lua_script.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <ctime>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <lua.hpp>

#include "engine/nodes/lua_library.hpp"
#include "engine/nodes/lua_values.hpp"

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;

constexpr int kHookEvery = 200;  // instructions
constexpr std::size_t kBytesPerInstruction = 64;
constexpr std::size_t kMessageMax = 512;

std::int64_t thread_cpu_ms() noexcept {
    timespec now{};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

/// What the running call may still use; the allocator and the hook find it through the state.
struct Budget {
    std::size_t bytes = 0;
    std::size_t bytes_max = 0;
    std::int64_t instructions = 0;
    std::int64_t cpu_ms_end = 0;
    bool limited = false;  ///< a call is running; setting up is not counted
};

void* allocate(void* user, void* block, std::size_t old_size, std::size_t new_size) {
    auto& budget = *static_cast<Budget*>(user);
    if (block == nullptr) {
        old_size = 0;
    }  // Lua passes a kind of object there
    if (new_size == 0) {
        std::free(block);  // NOLINT: the allocator that Lua's interface asks for
        budget.bytes -= old_size;
        return nullptr;
    }
    if (new_size > old_size) {
        const auto more = new_size - old_size;
        if (budget.bytes + more > budget.bytes_max) {
            return nullptr;
        }
        // A single instruction may copy megabytes: what it allocates counts as well.
        budget.instructions -= static_cast<std::int64_t>(more / kBytesPerInstruction);
    }
    void* moved = std::realloc(block, new_size);  // NOLINT: as above
    if (moved != nullptr) {
        budget.bytes = budget.bytes - old_size + new_size;
    }
    return moved;
}

Budget& budget_of(lua_State* lua) {
    void* user = nullptr;
    (void)lua_getallocf(lua, &user);
    return *static_cast<Budget*>(user);
}

void on_count(lua_State* lua, lua_Debug*) {
    auto& budget = budget_of(lua);
    if (!budget.limited) {
        return;
    }
    budget.instructions -= kHookEvery;
    if (budget.instructions < 0) {
        luaL_error(lua, "the script takes too many instructions");
    }
    if (thread_cpu_ms() > budget.cpu_ms_end) {
        luaL_error(lua, "the script takes too long");
    }
}

/// One call on its way through the protected part. Only borrowed things: a Lua error skips
/// destructors.
struct Call {
    const LuaInputs* inputs = nullptr;
    Error* emit_error = nullptr;  ///< set when emit() got what is no JSON
};

int emit(lua_State* lua) {
    const auto* call = static_cast<const Call*>(lua_touserdata(lua, lua_upvalueindex(1)));
    if (call->inputs->emit == nullptr) {
        return 0;
    }
    bool good = false;
    {
        auto value = to_json(lua, 1);
        good = value.has_value();
        if (good) {
            (*call->inputs->emit)(std::move(*value));
        } else {
            *call->emit_error = std::move(value).error();
        }
    }
    return good ? 0 : luaL_error(lua, "emit: the value has no JSON form");
}

// __index of a call's globals: upvalues are the call and the library. What was converted is kept in
// the table, so that it is done once.
int find_global(lua_State* lua) {
    const auto* call = static_cast<const Call*>(lua_touserdata(lua, lua_upvalueindex(1)));
    if (lua_type(lua, 2) != LUA_TSTRING) {
        return 0;
    }
    std::size_t size = 0;
    const char* text = lua_tolstring(lua, 2, &size);
    const std::string_view name{text, size};
    const graph::State* state = call->inputs->state;
    const graph::Item* value = state == nullptr ? nullptr : state->find_value(name);
    const auto* list = state == nullptr ? nullptr : state->find_list(name);
    if (value != nullptr) {
        push_json(lua, value->json());
    } else if (list != nullptr) {
        push_items(lua, list);
    } else if (name == "config") {
        if (call->inputs->configurable != nullptr) {
            push_json(lua, *call->inputs->configurable);
        } else {
            lua_newtable(lua);
        }
    } else if (name == "emit") {
        lua_pushvalue(lua, lua_upvalueindex(1));
        lua_pushcclosure(lua, emit, 1);
    } else {
        lua_pushvalue(lua, 2);
        lua_rawget(lua, lua_upvalueindex(2));
        return 1;
    }
    lua_pushvalue(lua, 2);
    lua_pushvalue(lua, -2);
    lua_rawset(lua, 1);
    return 1;
}

// Protected: the chunk is the first upvalue's function in the registry, the argument is the Call.
int invoke(lua_State* lua) {
    lua_getfield(lua, LUA_REGISTRYINDEX, "heddle.chunk");
    lua_newtable(lua);  // the globals of this call
    lua_createtable(lua, 0, 2);
    lua_pushvalue(lua, 1);
    lua_getfield(lua, LUA_REGISTRYINDEX, "heddle.library");
    lua_pushcclosure(lua, find_global, 2);
    lua_setfield(lua, -2, "__index");
    lua_pushboolean(lua, 0);
    lua_setfield(lua, -2, "__metatable");
    lua_setmetatable(lua, -2);
    // A chunk that names no global has no such upvalue.
    if (lua_setupvalue(lua, -2, 1) == nullptr) {
        lua_pop(lua, 1);
    }
    lua_call(lua, 0, 1);
    return 1;
}

int set_up(lua_State* lua) {
    open_values(lua);
    push_library(lua);
    lua_setfield(lua, LUA_REGISTRYINDEX, "heddle.library");
    return 0;
}

std::string message_at_top(lua_State* lua) {
    std::size_t size = 0;
    const char* text = lua_type(lua, -1) == LUA_TSTRING ? lua_tolstring(lua, -1, &size) : nullptr;
    if (text == nullptr) {
        return "the script raised an error that is no text";
    }
    return std::string{text, std::min(size, kMessageMax)};
}

}  // namespace

/// One Lua state that has the script loaded.
class LuaScript::Interpreter {
public:
    static Result<std::unique_ptr<Interpreter>> make(const LuaScript& script) {
        auto made = std::unique_ptr<Interpreter>{new Interpreter{script.limits_}};  // NOLINT
        lua_State* lua = made->lua_.get();
        if (lua == nullptr) {
            return Error{ErrorCode::graph_error, "no memory for Lua"};
        }
        lua_pushcfunction(lua, set_up);
        bool good = lua_pcall(lua, 0, 0, 0) == LUA_OK;
        // Text only: compiled chunks can break out of any sandbox.
        good = good && luaL_loadbufferx(lua, script.source_.data(), script.source_.size(),
                                        ("=" + script.chunk_name_).c_str(), "t") == LUA_OK;
        if (!good) {
            return Error{ErrorCode::graph_error, message_at_top(lua)};
        }
        lua_setfield(lua, LUA_REGISTRYINDEX, "heddle.chunk");
        lua_sethook(lua, on_count, LUA_MASKCOUNT, kHookEvery);
        return made;
    }

    // Leaves what the chunk returned on the stack.
    base::Status call(const LuaInputs& inputs, const LuaLimits& limits) {
        lua_State* lua = lua_.get();
        Error emit_error;
        Call call{&inputs, &emit_error};
        budget_.instructions = limits.instructions_max;
        budget_.cpu_ms_end = thread_cpu_ms() + limits.cpu_ms_max;
        lua_pushcfunction(lua, invoke);
        lua_pushlightuserdata(lua, &call);
        budget_.limited = true;
        const int outcome = lua_pcall(lua, 1, 1, 0);
        budget_.limited = false;
        if (outcome == LUA_OK) {
            return base::ok();
        }
        if (outcome == LUA_ERRMEM) {
            return Error{ErrorCode::graph_error, "the script takes too much memory"};
        }
        return Error{ErrorCode::graph_error, message_at_top(lua)};
    }

    [[nodiscard]] lua_State* lua() const noexcept { return lua_.get(); }
    void tidy() {
        lua_settop(lua_.get(), 0);
        if (budget_.bytes > budget_.bytes_max / 4) {
            lua_gc(lua_.get(), LUA_GCCOLLECT);
        }
    }

private:
    struct Close {
        void operator()(lua_State* lua) const noexcept { lua_close(lua); }
    };
    explicit Interpreter(const LuaLimits& limits) {
        budget_.bytes_max = limits.bytes_max;
        lua_.reset(lua_newstate(allocate, &budget_));
    }

    Budget budget_;
    std::unique_ptr<lua_State, Close> lua_;
};

/// An interpreter for one call: an idle one or a new one. It goes back only if the call succeeded.
class LuaScript::Borrowed {
public:
    explicit Borrowed(const LuaScript& script) : script_{script} {
        for (auto& slot : script.idle_) {
            interpreter_.reset(slot.exchange(nullptr, std::memory_order_acq_rel));
            if (interpreter_ != nullptr) {
                return;
            }
        }
        auto made = Interpreter::make(script);
        if (made) {
            interpreter_ = std::move(*made);
        } else {
            error_ = std::move(made).error();
        }
    }
    base::Status call(const LuaInputs& inputs) {
        if (interpreter_ == nullptr) {
            return error_;
        }
        auto status = interpreter_->call(inputs, script_.limits_);
        if (!status) {
            interpreter_.reset();
        }
        return status;
    }
    [[nodiscard]] lua_State* lua() const noexcept { return interpreter_->lua(); }
    void give_back() {
        interpreter_->tidy();
        for (auto& slot : script_.idle_) {
            Interpreter* expected = nullptr;
            if (slot.compare_exchange_strong(expected, interpreter_.get(),
                                             std::memory_order_acq_rel)) {
                (void)interpreter_.release();  // NOLINT: the slot owns it now
                return;
            }
        }
    }

private:
    const LuaScript& script_;
    std::unique_ptr<Interpreter> interpreter_;
    Error error_;
};

LuaScript::LuaScript(std::string source, std::string chunk_name, LuaLimits limits)
    : source_{std::move(source)}, chunk_name_{std::move(chunk_name)}, limits_{limits} {}

LuaScript::~LuaScript() {
    for (auto& slot : idle_) {
        std::unique_ptr<Interpreter>{slot.load()}.reset();
    }
}

Result<std::shared_ptr<const LuaScript>> LuaScript::compile(std::string source,
                                                            std::string chunk_name,
                                                            LuaLimits limits) {
    // NOLINTNEXTLINE: make_shared cannot reach the private constructor
    const auto fresh = new LuaScript{std::move(source), std::move(chunk_name), limits};
    const std::shared_ptr<const LuaScript> script{fresh};
    auto first = Interpreter::make(*script);
    if (!first) {
        return std::move(first).error();
    }
    script->idle_[0] = first->release();
    return script;
}

Result<Json> LuaScript::run(const LuaInputs& inputs) const {
    Borrowed borrowed{*this};
    auto status = borrowed.call(inputs);
    if (!status) {
        return std::move(status).error();
    }
    auto value = to_json(borrowed.lua(), -1);
    borrowed.give_back();
    return value;
}

Result<bool> LuaScript::test(const LuaInputs& inputs) const {
    Borrowed borrowed{*this};
    auto status = borrowed.call(inputs);
    if (!status) {
        return std::move(status).error();
    }
    const bool truthy = is_truthy(borrowed.lua(), -1);
    borrowed.give_back();
    return truthy;
}

bool LuaScript::is_free_name(std::string_view name) noexcept {
    static constexpr std::string_view kKeywords[] = {
        "and",      "break",  "do",   "else", "elseif", "end",  "false", "for",
        "function", "goto",   "if",   "in",   "local",  "nil",  "not",   "or",
        "repeat",   "return", "then", "true", "until",  "while"};
    if (name.empty() || name.size() > 64 ||
        std::isdigit(static_cast<unsigned char>(name[0])) != 0) {
        return false;
    }
    const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
    });
    for (const char* const* reserved = kLibraryNames; *reserved != nullptr; ++reserved) {
        if (name == *reserved) {
            return false;
        }
    }
    return plain &&
           std::find(std::begin(kKeywords), std::end(kKeywords), name) == std::end(kKeywords);
}

}  // namespace heddle::nodes
