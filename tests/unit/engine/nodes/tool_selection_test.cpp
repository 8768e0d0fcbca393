#include "engine/nodes/tool_selection.hpp"

#include <gtest/gtest.h>

#include "engine/nodes/model_node.hpp"
#include "engine/nodes/tools_node.hpp"
#include "tests/unit/engine/graph/support.hpp"
#include "tests/unit/engine/nodes/support.hpp"

namespace heddle::nodes::test {
namespace {

using base::Error;
using base::ErrorCode;
using graph::kStart;
using storage::RunStatus;
using Names = std::vector<std::string>;

std::shared_ptr<FakeTool> tool(const std::string& name) {
    return std::make_shared<FakeTool>(name, tools::ToolAnswer{"did " + name});
}

std::shared_ptr<FakeSource> source(const Names& names) {
    auto made = std::make_shared<FakeSource>();
    for (const auto& name : names) {
        made->offered.push_back(tool(name));
    }
    return made;
}

struct ToolSelectionTest : ::testing::Test {
    // What a model is offered with this selection, or the run's error.
    base::Result<Names> offered(const ToolSelection& selection) {
        const auto model = std::make_shared<FakeModel>();
        model->replies.push_back({Json{{"type", "ai"}, {"content", ""}, {"id", "m1"}}, {}});
        ModelNodeSpec spec;
        spec.model = model;
        spec.tools = selection;
        const auto result = run(make_model_node(spec), Json{{"messages", "hi"}});
        if (result.status != RunStatus::success) {
            return result.error;
        }
        Names names;
        for (const auto& each : model->requests.at(0).tools) {
            names.push_back(each["name"]);
        }
        return names;
    }
    graph::RunResult run(std::shared_ptr<const graph::Node> body, Json input) {
        const auto graph = graph::test::make_graph({graph::test::node("n", std::move(body))},
                                                   {graph::test::edge(kStart, "n")});
        position = graph::Position{graph::test::usual_channels()};
        return graph::test::run_to_end(
            graph::run_graph(graph, graph::test::make_spec(std::move(input)), position, host));
    }

    graph::Position position{graph::test::usual_channels()};
    graph::test::RecordingHost host;
};

TEST_F(ToolSelectionTest, TakesAllOrWhatIsNamedOfWhatServersOffer) {
    const auto one = source({"a", "b"});
    const auto two = source({"c"});
    EXPECT_EQ(*offered(ToolSelection{{}, {one}, std::nullopt}), (Names{"a", "b"}));
    EXPECT_EQ(*offered(ToolSelection{{tool("x")}, {one, two}, std::nullopt}),
              (Names{"x", "a", "b", "c"}));
    EXPECT_EQ(*offered(ToolSelection{{tool("x")}, {one, two}, Names{"c", "b"}}),
              (Names{"x", "b", "c"}));
    EXPECT_EQ(*offered(ToolSelection{}), Names{});
}

TEST_F(ToolSelectionTest, AsksAtEveryExecution) {
    const auto one = source({"a"});
    const ToolSelection selection{{}, {one}, std::nullopt};
    EXPECT_EQ(*offered(selection), Names{"a"});
    one->offered.push_back(tool("b"));
    EXPECT_EQ(*offered(selection), (Names{"a", "b"}));
    EXPECT_EQ(one->loads, 2);
}

TEST_F(ToolSelectionTest, ANameThatNobodyOffersOrTwoDoIsThePreciseErrorOfTheNode) {
    const auto one = source({"a"});
    const auto two = source({"a", "c"});
    auto error = offered(ToolSelection{{}, {one}, Names{"z"}}).error();
    EXPECT_EQ(error.code, ErrorCode::graph_error);
    EXPECT_NE(error.message.find("there is no tool \"z\""), std::string::npos) << error.message;
    error = offered(ToolSelection{{}, {one, two}, std::nullopt}).error();
    EXPECT_EQ(error.code, ErrorCode::graph_error);
    EXPECT_NE(error.message.find("offer a tool \"a\""), std::string::npos) << error.message;
    error = offered(ToolSelection{{tool("c")}, {two}, std::nullopt}).error();
    EXPECT_NE(error.message.find("offer a tool \"c\""), std::string::npos) << error.message;
    EXPECT_EQ(*offered(ToolSelection{{}, {one, two}, Names{"c"}}), Names{"c"})
        << "what is not chosen clashes with nothing";
}

TEST_F(ToolSelectionTest, ASourceThatCannotBeAskedFailsTheNode) {
    const auto one = source({"a"});
    one->failure = Error{ErrorCode::unavailable, "MCP server x: no connection"};
    const ToolSelection selection{{}, {one}, std::nullopt};
    EXPECT_EQ(offered(selection).error(),
              (Error{ErrorCode::unavailable, "node \"n\": MCP server x: no connection"}));
    const auto calls = Json::parse(R"([{"name":"a","args":{},"id":"c1"}])");
    const Json message{{"type", "ai"}, {"content", ""}, {"id", "ai1"}, {"tool_calls", calls}};
    EXPECT_EQ(run(make_tools_node({selection}), Json{{"messages", {message}}}).error.code,
              ErrorCode::unavailable);
    one->failure.reset();
    EXPECT_EQ(run(make_tools_node({selection}), Json{{"messages", {message}}}).status,
              RunStatus::success);
    EXPECT_EQ(position.state.to_json()["messages"][1]["content"], "did a");
}

}  // namespace
}  // namespace heddle::nodes::test
