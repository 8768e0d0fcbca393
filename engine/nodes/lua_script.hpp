#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/unique_function.hpp"
#include "engine/graph/state.hpp"

namespace heddle::nodes {

/// Bounds of one call of a script.
struct LuaLimits {
    std::size_t bytes_max = 8U << 20U;          ///< of the whole Lua state
    std::int64_t instructions_max = 1'000'000;  ///< allocated bytes count too, 64 for one
    std::int64_t cpu_ms_max = 250;              ///< of the calling OS thread
};

/// What a script sees. All of it must outlive the call.
struct LuaInputs {
    const graph::State* state = nullptr;
    const base::Json* configurable = nullptr;                ///< as `config`; null: empty
    base::UniqueFunction<void(base::Json)>* emit = nullptr;  ///< behind emit(value); null: ignored
};

/// A compiled Lua 5.4 chunk in a sandbox: no io, os, debug, load, require, metatables, coroutines,
/// protected calls or patterns (which can run for ever inside one C call); memory, instructions and
/// time bounded. Nothing survives from one call to the next. Channel names are read-only variables,
/// converted when they are used: a long list is never converted whole.
///
/// Immutable; shared by all shards, which use pooled interpreter states, one call at a time each.
class LuaScript {
public:
    /// @param chunk_name  how errors name the script ("reply.lua"); the line follows it
    /// @return graph_error with Lua's message
    static base::Result<std::shared_ptr<const LuaScript>> compile(std::string source,
                                                                  std::string chunk_name,
                                                                  LuaLimits limits = {});
    ~LuaScript();
    LuaScript(const LuaScript&) = delete;
    LuaScript& operator=(const LuaScript&) = delete;

    /// Runs the chunk. @return what it returned; graph_error with Lua's message or the limit it
    /// broke
    [[nodiscard]] base::Result<base::Json> run(const LuaInputs& inputs) const;
    /// Runs the chunk and asks whether what it returned is truthy (see is_truthy()).
    [[nodiscard]] base::Result<bool> test(const LuaInputs& inputs) const;

    /// Whether `name` can be a channel name that scripts use as a variable.
    static bool is_free_name(std::string_view name) noexcept;

private:
    class Interpreter;
    class Borrowed;
    LuaScript(std::string source, std::string chunk_name, LuaLimits limits);

    static constexpr std::size_t kIdleMax = 8;
    std::string source_;
    std::string chunk_name_;
    LuaLimits limits_;
    // Owned: taken and put back by exchange, so no lock is needed.
    mutable std::array<std::atomic<Interpreter*>, kIdleMax> idle_{};
};

}  // namespace heddle::nodes
