#include "engine/graph/superstep.hpp"

#include <gtest/gtest.h>

#include "tests/unit/engine/graph/support.hpp"

namespace heddle::graph::test {
namespace {

using base::Result;
using Names = std::vector<std::string>;

std::shared_ptr<const Condition> always(bool value) {
    return when([value](const State&) -> Result<bool> { return value; });
}

Names follow(std::vector<EdgeSpec> edges, const Names& finished) {
    std::vector<NodeSpec> nodes;
    for (const std::string name : {"a", "b", "c", "d"}) {
        nodes.push_back(node(name, writing("log", name)));
    }
    const auto graph = make_graph(std::move(nodes), std::move(edges));
    auto next = follow_edges(graph, State{usual_channels()}, finished);
    EXPECT_TRUE(next);
    return next ? *next : Names{};
}

TEST(Superstep, UnconditionalEdgesAllFire) {
    EXPECT_EQ(follow({edge("a", "c"), edge("a", "b")}, {"a"}), (Names{"b", "c"}));
    EXPECT_EQ(follow({edge("a", "c"), edge("b", "c")}, {"a", "b"}), (Names{"c"}));
    EXPECT_EQ(follow({edge("a", kEnd)}, {"a"}), Names{});
    EXPECT_EQ(follow({edge(kStart, "a")}, {std::string{kStart}}), (Names{"a"}));
    EXPECT_EQ(follow({}, {"a"}), Names{});
}

TEST(Superstep, TheFirstConditionThatHoldsWins) {
    EXPECT_EQ(follow({edge("a", "b", always(false)), edge("a", "c", always(true)),
                      edge("a", "d", always(true))},
                     {"a"}),
              (Names{"c"}));
    EXPECT_EQ(follow({edge("a", "b", always(false))}, {"a"}), Names{});
}

TEST(Superstep, AnUnconditionalEdgeAfterConditionsIsTheirElse) {
    EXPECT_EQ(follow({edge("a", "b", always(true)), edge("a", "c")}, {"a"}), (Names{"b"}));
    EXPECT_EQ(follow({edge("a", "b", always(false)), edge("a", "c")}, {"a"}), (Names{"c"}));
    EXPECT_EQ(follow({edge("a", "d"), edge("a", "b", always(true)), edge("a", "c")}, {"a"}),
              (Names{"b", "d"}));
}

TEST(Superstep, TaskIdsDependOnCheckpointAndNodeOnly) {
    const auto graph = make_graph({node("a", writing("log", 1)), node("b", writing("log", 1))},
                                  {edge(kStart, "a"), edge("a", "b")});
    const base::CheckpointId one{base::make_uuid_v6()};
    const base::CheckpointId two{base::make_uuid_v6()};
    const auto first = plan_step(graph, {"a", "b"}, one);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->at(0).id, plan_step(graph, {"a"}, one)->at(0).id);
    EXPECT_NE(first->at(0).id, first->at(1).id);
    EXPECT_NE(first->at(0).id, plan_step(graph, {"a"}, two)->at(0).id);
    EXPECT_FALSE(plan_step(graph, {"gone"}, one));
}

TEST(Graph, ValidateNamesWhatIsWrong) {
    const auto problem = [](std::vector<NodeSpec> nodes, std::vector<EdgeSpec> edges) {
        const auto status = make_graph(std::move(nodes), std::move(edges)).validate();
        return status ? std::string{} : status.error().message;
    };
    const auto a = node("a", writing("log", 1));
    EXPECT_EQ(problem({a}, {edge(kStart, "a")}), "");
    EXPECT_EQ(problem({a}, {}), "no edge leads out of START");
    EXPECT_EQ(problem({a, a}, {edge(kStart, "a")}), "there are two nodes named \"a\"");
    EXPECT_EQ(problem({a}, {edge(kStart, "b")}), "an edge leads to \"b\", which is no node");
    EXPECT_EQ(problem({a}, {edge("b", "a")}), "an edge comes from \"b\", which is no node");
    EXPECT_EQ(problem({a, node("b", writing("log", 1))}, {edge(kStart, "a")}),
              "no path leads from START to node \"b\"");
    EXPECT_EQ(problem({node("", writing("log", 1))}, {}), "\"\" cannot be the name of a node");
    EXPECT_EQ(problem({node("a", nullptr)}, {}), "node \"a\" does nothing");
    auto graph = make_graph({a}, {edge(kStart, "a")});
    graph.interrupt_before = {"z"};
    EXPECT_FALSE(graph.validate());
}

}  // namespace
}  // namespace heddle::graph::test
