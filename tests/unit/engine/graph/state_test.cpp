#include "engine/graph/state.hpp"

#include <gtest/gtest.h>

#include "tests/unit/engine/graph/support.hpp"

namespace heddle::graph::test {
namespace {

using base::ErrorCode;

struct StateTest : ::testing::Test {
    base::Status apply(const std::vector<ChannelWrite>& list) { return state.apply(list, delta); }
    Json contents() {
        Json found = Json::array();
        for (const auto& item : *state.find_list("messages")) {
            found.push_back(item.json()["id"].get<std::string>() + "=" +
                            item.json().value("content", ""));
        }
        return found;
    }
    static Json message(const std::string& id, const std::string& content) {
        return Json{{"role", "user"}, {"content", content}, {"id", id}};
    }
    static Json removal(const std::string& id) { return Json{{"type", "remove"}, {"id", id}}; }

    State state{usual_channels()};
    std::string delta;
};

TEST_F(StateTest, BeginsWithEmptyListsAndDefaults) {
    EXPECT_EQ(state.to_text(), R"({"messages":[],"log":[]})");
    State with_default{std::make_shared<const Channels>(
        Channels{{"n", Reducer::last_value, 5, "integer"}, {"l", Reducer::append, {1, 2}, ""}})};
    EXPECT_EQ(with_default.to_text(), R"({"n":5,"l":[1,2]})");
}

TEST_F(StateTest, LastValueReplacesAndRefusesTwoWritesInAStep) {
    ASSERT_TRUE(apply({{"topic", "a"}}));
    ASSERT_TRUE(apply({{"topic", "b"}}));
    EXPECT_EQ(state.find_value("topic")->json(), "b");
    EXPECT_EQ(delta, R"({"d":{"topic":{"v":"b"}}})");

    const auto status = apply({{"log", 1}, {"topic", "c"}, {"topic", "d"}});
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::graph_error);
    EXPECT_EQ(status.error().message.substr(0, 58),
              "At key 'topic': Can receive only one value per step. Give ");
    EXPECT_EQ(state.to_text(), R"({"messages":[],"log":[],"topic":"b"})");
}

TEST_F(StateTest, AppendTakesListsApart) {
    ASSERT_TRUE(apply({{"log", {1, 2}}, {"log", "x"}}));
    ASSERT_TRUE(apply({{"log", Json::array()}}));
    EXPECT_EQ(state.to_json()["log"], Json::parse(R"([1,2,"x"])"));
    EXPECT_EQ(delta, R"({"d":{}})");
}

TEST_F(StateTest, MessagesAppendAndReplaceById) {
    ASSERT_TRUE(apply({{"messages", {message("1", "a"), message("2", "b")}}}));
    ASSERT_TRUE(apply({{"messages", {message("1", "A"), message("3", "c"), message("3", "C")}}}));
    EXPECT_EQ(contents(), Json::parse(R"(["1=A","2=b","3=C"])"));
    EXPECT_TRUE(state.has_message(0, "3"));
    EXPECT_FALSE(state.has_message(0, "4"));
}

TEST_F(StateTest, RemovalsFollowLangGraph) {
    ASSERT_TRUE(apply({{"messages", {message("1", "a"), message("2", "b"), message("3", "c")}}}));
    ASSERT_TRUE(apply({{"messages", {removal("2"), message("4", "d")}}}));
    EXPECT_EQ(contents(), Json::parse(R"(["1=a","3=c","4=d"])"));
    // Removed and put again in one write: it stays, at its place.
    ASSERT_TRUE(apply({{"messages", {removal("3"), message("3", "C")}}}));
    EXPECT_EQ(contents(), Json::parse(R"(["1=a","3=C","4=d"])"));
    const auto status = apply({{"topic", "x"}, {"messages", {removal("9")}}});
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("ID that doesn't exist ('9')"), std::string::npos);
    EXPECT_EQ(state.find_value("topic"), nullptr);
    ASSERT_TRUE(
        apply({{"messages", {message("5", "e"), removal("__remove_all__"), message("6", "f")}}}));
    EXPECT_EQ(contents(), Json::parse(R"(["6=f"])"));
    EXPECT_FALSE(state.has_message(0, "1"));
}

TEST_F(StateTest, CopiesDoNotSeeLaterWrites) {
    ASSERT_TRUE(apply({{"messages", {message("1", "a")}}, {"topic", "x"}}));
    const State copy = state;
    const auto text = copy.to_text();
    ASSERT_TRUE(apply({{"messages", {message("1", "b"), message("2", "c")}}, {"topic", "y"}}));
    EXPECT_EQ(copy.to_text(), text);
    EXPECT_FALSE(copy.has_message(0, "2"));
}

TEST_F(StateTest, RevertTakesBackEveryKindOfWrite) {
    ASSERT_TRUE(apply({{"messages", {message("1", "a"), message("2", "b")}}, {"topic", "x"}}));
    const auto before = state.to_text();
    const std::vector<std::vector<ChannelWrite>> steps{
        {{"messages", {message("3", "c"), message("1", "A"), message("1", "AA")}}, {"log", 1}},
        {{"messages", {removal("1"), message("3", "c")}}, {"topic", "y"}}};
    for (const auto& step : steps) {
        IdMint mint;
        auto prepared = prepare_writes(state.channels(), step, "", mint);
        State::Undo undo;
        ASSERT_TRUE(state.apply(*prepared, delta, &undo));
        EXPECT_NE(state.to_text(), before);
        state.revert(std::move(undo));
        EXPECT_EQ(state.to_text(), before);
        EXPECT_TRUE(state.has_message(0, "1"));
        EXPECT_FALSE(state.has_message(0, "3"));
    }
    ASSERT_TRUE(apply({{"messages", {message("1", "again")}}}));
    EXPECT_EQ(contents(), Json::parse(R"(["1=again","2=b"])"));
}

TEST_F(StateTest, WritesAreChecked) {
    EXPECT_EQ(apply({{"nowhere", 1}}).error().field, "nowhere");
    EXPECT_EQ(apply({{"topic", 7}}).error().message, "topic: expected string, got number");
    EXPECT_TRUE(apply({{"topic", nullptr}}));
    const auto input = Json::parse(R"({"messages":["a",["human","b"],{"content":"c"}]})");
    const auto prepared = prepare_input(*usual_channels(), input, {});
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().field, "input.messages[2].role");
    EXPECT_EQ(prepare_input(*usual_channels(), Json{{"x", 1}}, {}).error().field, "input.x");
    EXPECT_EQ(prepare_input(*usual_channels(), Json("hi"), {}).error().field, "input");
    EXPECT_TRUE(prepare_input(*usual_channels(), Json{{"messages", "hi"}}, {}));
}

// So that what a crash makes an engine prepare again is what the first one had.
TEST_F(StateTest, MissingIdsOfAnInputFollowFromItsRun) {
    const auto ids_of = [](const base::RunId& run) {
        const auto prepared =
            prepare_input(*usual_channels(), Json::parse(R"({"messages":["a","b"]})"), run);
        std::vector<std::string> ids;
        for (const auto& item : prepared->get()->front().items) {
            ids.emplace_back(item.id());
        }
        return ids;
    };
    const base::RunId run{base::make_uuid_v7()};
    const auto ids = ids_of(run);
    ASSERT_EQ(ids.size(), 2U);
    EXPECT_NE(ids[0], ids[1]);
    EXPECT_EQ(ids_of(run), ids);
    EXPECT_NE(ids_of(base::RunId{base::make_uuid_v7()}), ids);
    EXPECT_NE(ids_of({}), ids_of({})) << "without a run they are random";
}

TEST_F(StateTest, ReplayRefusesBrokenRows) {
    for (const std::string row :
         {"", "7", "{}", R"({"d":7})", R"({"s":7})", R"({"s":{"log":7}})", R"({"d":{"log":7}})",
          R"({"d":{"log":{"v":1}}})", R"({"d":{"topic":{"a":[]}}})",
          R"({"d":{"log":{"r":[[5,1]]}}})", R"({"d":{"log":{"x":[0]}}})",
          R"({"d":{"log":{"r":[7]}}})", R"({"d":{"log":{"x":["a"]}}})", "{\"d\":{"}) {
        State other{usual_channels()};
        const auto status = other.replay(row);
        EXPECT_FALSE(status) << row;
        if (!status) {
            EXPECT_EQ(status.error().code, ErrorCode::internal);
        }
    }
    EXPECT_TRUE(state.replay(R"({"d":{"gone":{"v":1}}})"));
    EXPECT_TRUE(state.replay(R"({"s":{"gone":1,"topic":"t"}})"));
    EXPECT_EQ(state.find_value("topic")->json(), "t");
}

TEST_F(StateTest, BadUtf8IsReplacedOnceAndForAll) {
    ASSERT_TRUE(apply({{"topic", std::string{"a\xff"}}}));
    State other{usual_channels()};
    ASSERT_TRUE(other.replay(state.to_snapshot()));
    EXPECT_EQ(other.to_text(), state.to_text());
}

}  // namespace
}  // namespace heddle::graph::test
