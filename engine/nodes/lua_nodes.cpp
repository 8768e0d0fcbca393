#include "engine/nodes/lua_nodes.hpp"

#include <utility>

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

class LuaNode final : public graph::Node {
public:
    explicit LuaNode(std::shared_ptr<const LuaScript> script) : script_{std::move(script)} {}

    Task<Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        base::UniqueFunction<void(Json)> emit{
            [&context](Json value) { context.emit_custom(std::move(value)); }};
        LuaInputs inputs;
        inputs.state = &context.state();
        inputs.configurable = &context.configurable();
        inputs.emit = &emit;
        auto returned = script_->run(inputs);
        if (!returned) {
            co_return std::move(returned).error();
        }
        graph::NodeOutput output;
        // Lua's empty table is a list: it writes nothing.
        if (returned->is_null() || (returned->is_array() && returned->empty())) {
            co_return output;
        }
        if (!returned->is_object()) {
            co_return Error{ErrorCode::graph_error,
                            "a script returns a table with a value for each channel to write"};
        }
        for (auto& [channel, value] : returned->items()) {
            output.writes.push_back(graph::ChannelWrite{channel, std::move(value)});
        }
        co_return output;
    }
    [[nodiscard]] bool is_local() const noexcept override { return true; }

private:
    std::shared_ptr<const LuaScript> script_;
};

class LuaCondition final : public graph::Condition {
public:
    explicit LuaCondition(std::shared_ptr<const LuaScript> script) : script_{std::move(script)} {}

    [[nodiscard]] Result<bool> holds(const graph::State& state) const override {
        LuaInputs inputs;
        inputs.state = &state;
        return script_->test(inputs);
    }

private:
    std::shared_ptr<const LuaScript> script_;
};

}  // namespace

std::shared_ptr<const graph::Node> make_lua_node(std::shared_ptr<const LuaScript> script) {
    return std::make_shared<LuaNode>(std::move(script));
}

std::shared_ptr<const graph::Condition> make_lua_condition(
    std::shared_ptr<const LuaScript> script) {
    return std::make_shared<LuaCondition>(std::move(script));
}

Result<std::shared_ptr<const LuaScript>> compile_expression(const std::string& expression,
                                                            std::string name) {
    LuaLimits limits;
    limits.bytes_max = 4U << 20U;
    limits.instructions_max = 100'000;
    limits.cpu_ms_max = 50;
    // The line break ends a comment in the expression before it can hide what follows.
    return LuaScript::compile("return (" + expression + "\n)", std::move(name), limits);
}

}  // namespace heddle::nodes
