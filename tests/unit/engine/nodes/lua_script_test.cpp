#include "engine/nodes/lua_script.hpp"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "engine/nodes/lua_nodes.hpp"
#include "tests/unit/engine/graph/support.hpp"

namespace heddle::nodes {
namespace {

using base::Json;
using graph::State;

struct LuaTest : ::testing::Test {
    LuaTest() {
        const std::vector<graph::ChannelWrite> writes{
            {"messages", Json::parse(R"([{"type":"human","content":"hi","id":"1"},
                {"type":"ai","content":"","id":"2",
                 "tool_calls":[{"name":"t","args":{},"id":"c"}]}])")},
            {"topic", "looms"}};
        std::string delta;
        EXPECT_TRUE(state.apply(writes, delta));
    }
    base::Result<Json> run(const std::string& code) {
        auto script = LuaScript::compile(code, "test.lua");
        if (!script) {
            return std::move(script).error();
        }
        LuaInputs inputs;
        inputs.state = &state;
        inputs.configurable = &config;
        return (*script)->run(inputs);
    }
    std::string error(const std::string& code) {
        auto result = run(code);
        return result ? "no error but " + result->dump() : result.error().message;
    }
    bool holds(const std::string& expression) {
        auto script = compile_expression(expression, "when");
        EXPECT_TRUE(script) << (script ? "" : script.error().message);
        auto held = make_lua_condition(*script)->holds(state);
        EXPECT_TRUE(held) << (held ? "" : held.error().message);
        return held && *held;
    }

    State state{graph::test::usual_channels()};
    Json config{{"user", "ana"}, {"list", {1, nullptr, "x"}}, {"none", nullptr}};
};

TEST_F(LuaTest, SeesTheStateAndReturnsWrites) {
    EXPECT_EQ(*run("return {topic = topic .. '!', log = {#messages, messages[1].content}}"),
              Json::parse(R"({"topic":"looms!","log":[2,"hi"]})"));
    EXPECT_EQ(*run("local n = 0; for i, m in ipairs(messages) do n = n + i end "
                   "for i, m in pairs(messages) do n = n + #m.id end return n"),
              Json(5));
    EXPECT_EQ(*run("return config.user .. #config.list"), Json("ana3"));
    EXPECT_EQ(*run("return {config.list[2] == null, config.none == nil, messages[3] == nil, "
                   "unknown == nil}"),
              Json::parse("[true,true,true,true]"));
}

TEST_F(LuaTest, KeepsKindsOfValuesThroughARoundTrip) {
    EXPECT_EQ(*run("return {a = config.list, m = messages, o = object(), l = list(), f = 1.5, "
                   "i = 3, b = false}")
                   ->find("a"),
              Json::parse(R"([1,null,"x"])"));
    const auto all = *run("return {m = messages, o = object(), l = list(), f = 1.5, i = 3}");
    EXPECT_EQ(all["m"], state.to_json()["messages"]);
    EXPECT_EQ(all["o"], Json::object());
    EXPECT_EQ(all["l"], Json::array());
    EXPECT_TRUE(all["i"].is_number_integer());
    EXPECT_EQ((*run("return messages[2].tool_calls[1].args")), Json::object());
}

TEST_F(LuaTest, ConditionsFollowTheDesign) {
    EXPECT_TRUE(holds("last(messages).tool_calls"));
    EXPECT_FALSE(holds("last(messages).content"));
    EXPECT_FALSE(holds("log"));
    EXPECT_FALSE(holds("last(log)"));
    EXPECT_TRUE(holds("messages"));
    EXPECT_FALSE(holds("nil"));
    EXPECT_FALSE(holds("false"));
    EXPECT_FALSE(holds("{}"));
    EXPECT_FALSE(holds("null"));
    EXPECT_TRUE(holds("0"));
    EXPECT_TRUE(holds("topic == 'looms' -- why"));
    EXPECT_TRUE(holds("#messages >= 2 and string.find(topic, 'oo')"));
}

TEST_F(LuaTest, NothingOfTheSystemCanBeReached) {
    for (const std::string name :
         {"os",           "io",           "debug",       "package",       "require",
          "load",         "loadstring",   "loadfile",    "dofile",        "collectgarbage",
          "getmetatable", "setmetatable", "rawget",      "rawset",        "rawequal",
          "coroutine",    "pcall",        "xpcall",      "print",         "_G",
          "_ENV._G",      "string.dump",  "string.gsub", "string.gmatch", "string.match",
          "table.move",   "('').dump",    "('').gsub",   "warn"}) {
        EXPECT_EQ(*run("return " + name + " == nil"), Json(true)) << name;
    }
}

TEST_F(LuaTest, BytecodeIsRefused) {
    EXPECT_NE(error(std::string{"\x1bLua\x54\x00\x19\x93", 8}).find("attempt to load a binary"),
              std::string::npos);
}

TEST_F(LuaTest, EndlessLoopsEnd) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_NE(error("while true do end").find("too many instructions"), std::string::npos);
    EXPECT_NE(error("local function f() return f() end return f()").find("too many instructions"),
              std::string::npos);
    EXPECT_NE(error("for i = 1, 1e18 do end").find("too many instructions"), std::string::npos);
    EXPECT_NE(error("local t = {} for i = 1, 1e9 do t[1] = ('x'):rep(1000) end").find("too"),
              std::string::npos);
    EXPECT_NE(error("local t = {} for i = 1, 50000 do table.insert(t, 1, i) end").find("too"),
              std::string::npos);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds{10});
}

TEST_F(LuaTest, MemoryBombsAreRefused) {
    EXPECT_EQ(error("return #string.rep('x', 1e6, string.rep('y', 1000))"),
              "the script takes too much memory");
    EXPECT_NE(error("return ('x'):rep(1e9)").find("too many repetitions"), std::string::npos);
    EXPECT_NE(error("return (''):rep(1e18)").find("too many repetitions"), std::string::npos);
    EXPECT_NE(error("local s = 'x' while true do s = s .. s end").find("too"), std::string::npos);
    EXPECT_NE(error("local t = {} for i = 1, 1e9 do t[i] = {} end").find("too"), std::string::npos);
    EXPECT_NE(error("return string.format('%1000000d', 1)").find("conversion"), std::string::npos);
}

TEST_F(LuaTest, DeepRecursionIsAnError) {
    const auto message = error("local function f() return 1 + f() end return f()");
    EXPECT_TRUE(message.find("overflow") != std::string::npos ||
                message.find("too") != std::string::npos)
        << message;
}

TEST_F(LuaTest, WhatJsonCannotHoldIsRefused) {
    EXPECT_NE(error("return print or type").find("function"), std::string::npos);
    EXPECT_NE(error("local t = {} t[1] = t return t").find("nested"), std::string::npos);
    EXPECT_NE(error("return {1, 2, a = 3}").find("a table must be"), std::string::npos);
    EXPECT_NE(error("return {[1.5] = 3}").find("a table must be"), std::string::npos);
    EXPECT_NE(error("local t = {'x'} for i = 1, 30 do t = {t, t} end return t").find("too much"),
              std::string::npos);
}

TEST_F(LuaTest, MetatableTricksFail) {
    EXPECT_NE(error("messages[1] = 1").find("read-only"), std::string::npos);
    EXPECT_NE(error("string.rep = nil").find("read-only"), std::string::npos);
    EXPECT_NE(error("table.insert(string, 1)").find("read-only"), std::string::npos);
    EXPECT_NE(error("object(string)").find("expected a table of yours"), std::string::npos);
    EXPECT_NE(error("list(math)").find("expected a table of yours"), std::string::npos);
    EXPECT_EQ(*run("return ('abc'):upper():rep(2, '-'):sub(1, 5)"), Json("ABC-A"));
}

TEST_F(LuaTest, NothingSurvivesACall) {
    auto script = LuaScript::compile(
        "local before = {seen, config.x} seen = 1 config.x = 2 string = 3 topic = 4 return before",
        "test.lua");
    ASSERT_TRUE(script);
    LuaInputs inputs;
    inputs.state = &state;
    inputs.configurable = &config;
    EXPECT_EQ(*(*script)->run(inputs), Json::array());
    EXPECT_EQ(*(*script)->run(inputs), Json::array());
    EXPECT_FALSE(config.contains("x"));
    EXPECT_EQ(state.find_value("topic")->json(), "looms");
}

TEST_F(LuaTest, ErrorsNameTheLine) {
    EXPECT_EQ(error("local a = nil\nreturn a.b"),
              "test.lua:2: attempt to index a nil value (local "
              "'a')");
    EXPECT_EQ(error("\nreturn +"), "test.lua:2: unexpected symbol near '+'");
    EXPECT_EQ(error("error({})"), "the script raised an error that is no text");
    EXPECT_EQ(error("error('\\255bad')").substr(0, 12), "test.lua:1: ");
}

TEST_F(LuaTest, HelpersForText) {
    EXPECT_EQ(*run("return string.split('a,b,,c', ',')"), Json::parse(R"(["a","b","","c"])"));
    EXPECT_EQ(*run("return string.trim('  x y \\n')"), Json("x y"));
    EXPECT_EQ(*run("return {string.find('hello', 'l')}"), Json::parse("[3,3]"));
    EXPECT_EQ(*run("local t = {3,1,2} table.sort(t, function(a, b) return a > b end) return t"),
              Json::parse("[3,2,1]"));
}

TEST_F(LuaTest, ManyThreadsShareAScript) {
    auto script = LuaScript::compile("local s = 0 for i = 1, 1000 do s = s + i end return s", "t");
    ASSERT_TRUE(script);
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int j = 0; j < 50; ++j) {
                const auto value = (*script)->run(LuaInputs{});
                if (value && *value == 500500) {
                    ++right;
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(right, 200);
}

TEST_F(LuaTest, ALongListIsNotConvertedWhole) {
    std::vector<graph::ChannelWrite> writes{{"messages", Json::array()}};
    for (int i = 0; i < 50'000; ++i) {
        writes[0].value.push_back(Json{
            {"type", "ai"}, {"content", std::string(300, 'x')}, {"id", std::to_string(i + 10)}});
    }
    std::string delta;
    ASSERT_TRUE(state.apply(writes, delta));
    // Converted whole the list would need four times the memory that a condition may use.
    EXPECT_TRUE(holds("last(messages).content and #messages == 50002"));
}

}  // namespace
}  // namespace heddle::nodes
