#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

using base::Json;

TEST(State, OfAnEmptyThreadIsEmpty) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto state = api.call("GET", path + "/state").json();
    EXPECT_EQ(state.at("values"), Json::object());
    EXPECT_EQ(state.at("next"), Json::array());
    EXPECT_TRUE(state.at("checkpoint").is_null());
    EXPECT_EQ(api.call("POST", path + "/history", "{}").body, "[]");
}

TEST(State, IsReadAtEveryCheckpoint) {
    TestApi api;
    const auto id = api.make_thread();
    const auto path = "/threads/" + id;
    ASSERT_EQ(api.call("POST", path + "/runs/wait", run_body("pair", "hi")).status, 200);

    const auto now = api.call("GET", path + "/state?subgraphs=false").json();
    EXPECT_EQ(now.at("values").at("messages").size(), 3U);
    EXPECT_EQ(now.at("next"), Json::array());
    EXPECT_EQ(now.at("checkpoint").at("thread_id"), id);
    EXPECT_EQ(now.at("metadata").at("source"), "loop");

    const auto history = api.call("POST", path + "/history", R"({"limit":10})").json();
    ASSERT_EQ(history.size(), 4U) << "input, loop, two supersteps";
    EXPECT_EQ(history[0], now) << "newest first";
    EXPECT_EQ(history[1].at("next"), (Json{"again"}));
    EXPECT_EQ(history[0].at("parent_checkpoint").at("checkpoint_id"),
              history[1].at("checkpoint").at("checkpoint_id"));
    EXPECT_TRUE(history[3].at("parent_checkpoint").is_null());

    const auto checkpoint = history[1].at("checkpoint").at("checkpoint_id").get<std::string>();
    EXPECT_EQ(api.call("GET", path + "/state/" + checkpoint).json(), history[1]);
    EXPECT_EQ(api.call("POST", path + "/state/checkpoint",
                       Json{{"checkpoint", history[1].at("checkpoint")}}.dump())
                  .json(),
              history[1]);

    for (const Json& before : {Json(checkpoint), history[1].at("checkpoint"),
                               Json{{"configurable", {{"checkpoint_id", checkpoint}}}}}) {
        EXPECT_EQ(
            api.call("POST", path + "/history", Json{{"before", before}}.dump()).json().size(), 2U);
    }
    EXPECT_EQ(api.call("GET", path + "/history?limit=1&before=" + checkpoint).json()[0],
              history[2]);
    const auto inputs = api.call("POST", path + "/history", R"({"metadata":{"source":"input"}})");
    EXPECT_EQ(inputs.json().size(), 1U);
}

TEST(State, NamesWhatIsWrong) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto missing = "/threads/" + base::make_uuid_v7().to_string();
    EXPECT_EQ(api.call("GET", missing + "/state").status, 404);
    EXPECT_EQ(api.call("POST", missing + "/history", "").status, 404);
    EXPECT_EQ(api.call("GET", path + "/state/" + base::make_uuid_v6().to_string()).status, 404);
    EXPECT_EQ(api.call("GET", path + "/state/x").json().at("field"), "checkpoint_id");
    EXPECT_EQ(api.call("GET", path + "/state?select=values.a").json().at("code"), "unsupported");
    EXPECT_EQ(api.call("POST", path + "/state/checkpoint", "{}").json().at("field"), "checkpoint");
    EXPECT_EQ(api.call("POST", path + "/history", R"({"before":5})").json().at("field"), "before");
    EXPECT_EQ(api.call("POST", path + "/history", R"({"checkpoint":{"checkpoint_ns":"a"}})")
                  .json()
                  .at("field"),
              "checkpoint.checkpoint_ns");
    EXPECT_EQ(api.call("GET", path + "/history?limit=0").json().at("field"), "limit");
}

}  // namespace
}  // namespace heddle::api::test
