#include <gtest/gtest.h>

#include "engine/nodes/lua_nodes.hpp"
#include "engine/nodes/model_node.hpp"
#include "engine/nodes/native_nodes.hpp"
#include "engine/nodes/tools_node.hpp"
#include "tests/unit/engine/graph/support.hpp"
#include "tests/unit/engine/nodes/support.hpp"

namespace heddle::nodes::test {
namespace {

using base::Error;
using base::ErrorCode;
using graph::kEnd;
using graph::kStart;
using graph::Position;
using graph::StreamMode;
using graph::test::edge;
using graph::test::make_graph;
using graph::test::make_spec;
using graph::test::node;
using graph::test::RecordingHost;
using graph::test::run_to_end;
using storage::RunStatus;

Json ai_with_calls(const Json& calls) {
    return Json{{"type", "ai"}, {"content", ""}, {"id", "ai1"}, {"tool_calls", calls}};
}

ToolSelection known(tools::ToolSet tools) {
    return ToolSelection{std::move(tools)};
}

struct NodesTest : ::testing::Test {
    graph::RunResult run(std::shared_ptr<const graph::Node> body,
                         Json input,
                         Json configurable = Json::object()) {
        const auto graph = make_graph({node("n", std::move(body))}, {edge(kStart, "n")});
        auto spec = make_spec(std::move(input));
        spec.configurable = std::move(configurable);
        return run_to_end(graph::run_graph(graph, spec, position, host));
    }
    [[nodiscard]] Json messages() const { return position.state.to_json()["messages"]; }

    Position position{graph::test::usual_channels()};
    RecordingHost host;
};

TEST_F(NodesTest, EchoAnswersTheLastHumanMessage) {
    const auto echo = native_nodes().at("echo")(Json::object());
    ASSERT_TRUE(echo);
    EXPECT_EQ(run(*echo, Json{{"messages", {"one", "two"}}}).status, RunStatus::success);
    ASSERT_EQ(messages().size(), 3U);
    EXPECT_EQ(messages()[2]["content"], "two");
    EXPECT_EQ(messages()[2]["type"], "ai");
    Position empty{graph::test::usual_channels()};
    position = empty;
    EXPECT_EQ(run(*echo, Json{{"topic", "x"}}).error.code, ErrorCode::graph_error);
}

TEST_F(NodesTest, NativeNodesCheckTheirSettings) {
    EXPECT_EQ(native_nodes().at("append")(Json{{"bytes", -1}}).error().field, "bytes");
    EXPECT_EQ(native_nodes().at("append")(Json{{"size", 1}}).error().field, "size");
    EXPECT_EQ(native_nodes().at("echo")(Json{{"x", 1}}).error().field, "x");
}

TEST_F(NodesTest, ModelGetsPromptMessagesAndTools) {
    const auto model = std::make_shared<FakeModel>();
    model->replies.push_back({Json{{"type", "ai"}, {"content", "hola"}, {"id", "m1"}}, {11, 3}});
    ModelNodeSpec spec;
    spec.model = model;
    spec.system =
        *PromptTemplate::parse("{{topic}} <&> {{config.user}}{{#now.date}}!{{/now.date}}");
    spec.tools = known({std::make_shared<FakeTool>("t", tools::ToolAnswer{})});
    const auto result =
        run(make_model_node(spec), Json{{"messages", "hi"}, {"topic", "a \"b\" <c>"}},
            Json{{"user", "ana"}});

    EXPECT_EQ(result.status, RunStatus::success);
    ASSERT_EQ(model->requests.size(), 1U);
    const auto& request = model->requests[0];
    EXPECT_EQ(request.messages[0], (Json{{"type", "system"}, {"content", "a \"b\" <c> <&> ana!"}}));
    EXPECT_EQ(request.messages[1]["content"], "hi");
    ASSERT_EQ(request.tools.size(), 1U);
    EXPECT_EQ(
        request.tools[0],
        (Json{{"name", "t"}, {"description", "does t"}, {"parameters", {{"type", "object"}}}}));
    EXPECT_FALSE(request.stream);
    EXPECT_EQ(messages()[1]["content"], "hola");
    EXPECT_EQ(host.input_tokens, 11);
    EXPECT_EQ(host.output_tokens, 3);
}

TEST_F(NodesTest, ModelStreamsOnlyForReadersAndDoesNotRepeatItself) {
    host.modes = {StreamMode::messages_tuple};
    const auto model = std::make_shared<FakeModel>();
    model->chunks = {Json{{"type", "AIMessageChunk"}, {"content", "ho"}, {"id", "m1"}},
                     Json{{"type", "AIMessageChunk"}, {"content", "la"}, {"id", "m1"}}};
    model->replies.push_back({Json{{"type", "ai"}, {"content", "hola"}, {"id", "m1"}}, {}});
    ModelNodeSpec spec;
    spec.model = model;
    (void)run(make_model_node(spec), Json{{"messages", "hi"}});
    EXPECT_TRUE(model->requests[0].stream);
    EXPECT_EQ(host.events_of(StreamMode::messages_tuple).size(), 2U);
}

TEST_F(NodesTest, ModelErrorsEndTheRun) {
    ModelNodeSpec spec;
    spec.model = std::make_shared<FakeModel>();
    const auto result = run(make_model_node(spec), Json{{"messages", "hi"}});
    EXPECT_EQ(result.error, (Error{ErrorCode::model_error, "node \"n\": no reply"}));
}

TEST_F(NodesTest, ToolsAnswerEveryCallInOrder) {
    const auto good = std::make_shared<FakeTool>("good", tools::ToolAnswer{"42"});
    const auto refuses = std::make_shared<FakeTool>("refuses", tools::ToolAnswer{"404", true});
    const auto breaks =
        std::make_shared<FakeTool>("breaks", Error{ErrorCode::tool_error, "no answer"});
    const auto calls = Json::parse(R"([{"name":"good","args":{"a":1},"id":"c1"},
        {"name":"refuses","args":{},"id":"c2"},{"name":"breaks","args":{},"id":"c3"},
        {"name":"absent","args":{},"id":"c4"},{"name":"good","args":{},"id":null}])");
    const auto result = run(make_tools_node({known({good, refuses, breaks})}),
                            Json{{"messages", {ai_with_calls(calls)}}});

    EXPECT_EQ(result.status, RunStatus::success);
    const auto all = messages();
    ASSERT_EQ(all.size(), 6U);
    EXPECT_EQ(all[1]["content"], "42");
    EXPECT_EQ(all[1]["tool_call_id"], "c1");
    EXPECT_EQ(all[1]["status"], "success");
    EXPECT_EQ(all[2]["status"], "error");
    EXPECT_EQ(all[2]["content"], "404");
    EXPECT_EQ(all[3]["content"], "Error: no answer\n Please fix your mistakes.");
    EXPECT_EQ(all[4]["content"],
              "Error: absent is not a valid tool, try one of [good, refuses, breaks].");
    EXPECT_EQ(all[5]["tool_call_id"], "4");
    EXPECT_EQ(good->calls[0].args, (Json{{"a", 1}}));
    ASSERT_EQ(good->calls.size(), 2U);
    EXPECT_TRUE(base::Uuid::parse(good->calls[0].idempotency_key));
    EXPECT_NE(good->calls[0].idempotency_key, good->calls[1].idempotency_key);
}

TEST_F(NodesTest, ToolErrorsFailTheRunIfTheNodeSaysSo) {
    const auto breaks =
        std::make_shared<FakeTool>("breaks", Error{ErrorCode::tool_error, "no answer"});
    const auto calls = Json::parse(R"([{"name":"breaks","args":{},"id":"c3"}])");
    ToolsNodeSpec spec{known({breaks}), true};
    EXPECT_EQ(run(make_tools_node(spec), Json{{"messages", {ai_with_calls(calls)}}}).error.code,
              ErrorCode::tool_error);
}

TEST_F(NodesTest, ToolsRefuseWhatIsNoCall) {
    EXPECT_EQ(run(make_tools_node({}), Json{{"messages", "hi"}}).error.code,
              ErrorCode::graph_error);
    Json many = Json::array();
    for (int i = 0; i < 65; ++i) {
        many.push_back(Json{{"name", "x"}, {"args", Json::object()}, {"id", std::to_string(i)}});
    }
    const auto result = run(make_tools_node({}), Json{{"messages", {ai_with_calls(many)}}});
    EXPECT_EQ(result.error.code, ErrorCode::graph_error);
}

TEST_F(NodesTest, ToolCalledHoldsForTheLastMessageOnly) {
    const auto condition = make_tool_called({"cancel"});
    const auto calls = Json::parse(R"([{"name":"cancel","args":{},"id":"c"}])");
    std::string delta;
    (void)position.state.apply({{"messages", ai_with_calls(calls)}}, delta);
    EXPECT_TRUE(*condition->holds(position.state));
    (void)position.state.apply({{"messages", "no"}}, delta);
    EXPECT_FALSE(*condition->holds(position.state));
}

TEST_F(NodesTest, LuaWritesChannelsAndEmits) {
    host.modes = {StreamMode::custom};
    const auto script = LuaScript::compile(
        "emit({at = #messages}) emit('x') return {topic = config.t, log = {1, 2}}", "n.lua");
    ASSERT_TRUE(script);
    const auto result = run(make_lua_node(*script), Json{{"messages", "hi"}}, Json{{"t", "warp"}});
    EXPECT_EQ(result.status, RunStatus::success);
    EXPECT_EQ(position.state.find_value("topic")->json(), "warp");
    EXPECT_EQ(position.state.find_list("log")->size(), 2U);
    EXPECT_EQ(host.events_of(StreamMode::custom), (std::vector<Json>{Json{{"at", 1}}, Json("x")}));
}

TEST_F(NodesTest, LuaErrorsAreGraphErrors) {
    for (const std::string code : {"error('no')", "return 5", "return {nowhere = 1}",
                                   "return {topic = 7}", "return {messages = {{}}}"}) {
        const auto script = LuaScript::compile(code, "n.lua");
        const auto result = run(make_lua_node(*script), Json{{"messages", "hi"}});
        EXPECT_EQ(result.error.code, ErrorCode::graph_error) << code;
    }
    EXPECT_EQ(
        run(make_lua_node(*LuaScript::compile("return {}", "n")), Json{{"messages", "x"}}).status,
        RunStatus::success);
}

}  // namespace
}  // namespace heddle::nodes::test
