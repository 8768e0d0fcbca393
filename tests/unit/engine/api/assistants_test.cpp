#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

TEST(System, AnswersWithoutAThread) {
    TestApi api;
    EXPECT_EQ(api.call("GET", "/ok").body, R"({"ok":true})");
    EXPECT_EQ(api.call("GET", "/info").json().at("flags").at("assistants"), true);
    EXPECT_NE(api.call("GET", "/metrics").body.find("heddle_scheduler_runs_running"),
              std::string::npos);
    EXPECT_EQ(api.call("GET", "/metrics?format=json").json().at("heddle_scheduler_runs_running"),
              0);
    EXPECT_EQ(api.call("GET", "/metrics?format=xml").status, 422);
}

TEST(System, RefusesUnknownPathsAndMethodsAsJson) {
    TestApi api;
    const auto missing = api.call("GET", "/nowhere");
    EXPECT_EQ(missing.status, 404);
    EXPECT_EQ(missing.json().at("code"), "not_found");
    const auto method = api.call("PUT", "/threads");
    EXPECT_EQ(method.status, 405);
    EXPECT_EQ(method.header("allow"), "POST");
    EXPECT_EQ(method.json().at("code"), "method_not_allowed");
}

TEST(Assistants, AreFoundByNameAndById) {
    TestApi api;
    const auto by_name = api.call("GET", "/assistants/echo");
    EXPECT_EQ(by_name.status, 200);
    EXPECT_EQ(by_name.json().at("graph_id"), "echo");
    EXPECT_EQ(by_name.json().at("metadata").at("created_by"), "system");
    const auto id = by_name.json().at("assistant_id").get<std::string>();
    EXPECT_EQ(api.call("GET", "/assistants/" + id).body, by_name.body);
    EXPECT_EQ(api.call("GET", "/assistants/nobody").status, 404);
}

TEST(Assistants, SearchFiltersSortsAndPages) {
    TestApi api;
    const auto all =
        api.call("POST", "/assistants/search", R"({"sort_by":"name","sort_order":"asc"})");
    ASSERT_EQ(all.status, 200) << all.body;
    EXPECT_EQ(all.json().size(), 7U);
    EXPECT_EQ(all.json()[0].at("name"), "broken");
    EXPECT_EQ(all.header("x-pagination-total"), "7");
    EXPECT_EQ(all.header("x-pagination-next"), "");

    const auto page = api.call("POST", "/assistants/search",
                               R"({"limit":2,"offset":2,"sort_by":"name","sort_order":"asc",
                                   "select":["graph_id"]})");
    EXPECT_EQ(page.body, R"([{"graph_id":"echo"},{"graph_id":"gated"}])");
    EXPECT_EQ(page.header("x-pagination-next"), "4");

    EXPECT_EQ(api.call("POST", "/assistants/search", R"({"graph_id":"echo"})").json().size(), 1U);
    EXPECT_EQ(api.call("POST", "/assistants/search", R"({"name":"ECH"})").json().size(), 1U);
    EXPECT_EQ(api.call("POST", "/assistants/search", R"({"metadata":{"x":1}})").body, "[]");
    EXPECT_EQ(api.call("POST", "/assistants/count", "").body, "7");
    const auto wrong = api.call("POST", "/assistants/search", R"({"limit":1001})");
    EXPECT_EQ(wrong.status, 422);
    EXPECT_EQ(wrong.json().at("field"), "limit");
}

TEST(Assistants, ShowTheirGraphAndSchemas) {
    TestApi api;
    const auto graph = api.call("GET", "/assistants/pair/graph?xray=true").json();
    EXPECT_EQ(graph.at("nodes").size(), 4U);
    EXPECT_EQ(graph.at("edges")[0].at("source"), "__start__");
    const auto schemas = api.call("GET", "/assistants/echo/schemas").json();
    EXPECT_EQ(schemas.at("state_schema").at("properties").at("messages").at("type"), "array");
}

}  // namespace
}  // namespace heddle::api::test
