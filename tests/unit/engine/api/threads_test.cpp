#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

using base::Json;

TEST(Threads, AreMadeReadPatchedAndDeleted) {
    TestApi api;
    const auto made = api.call("POST", "/threads", R"({"metadata":{"a":1}})");
    ASSERT_EQ(made.status, 200) << made.body;
    const auto thread = made.json();
    EXPECT_EQ(thread.at("status"), "idle");
    EXPECT_EQ(thread.at("metadata"), (Json{{"a", 1}}));
    EXPECT_TRUE(thread.at("values").is_null());
    EXPECT_EQ(thread.at("interrupts"), Json::object());
    const auto path = "/threads/" + thread.at("thread_id").get<std::string>();

    EXPECT_EQ(api.call("PATCH", path, R"({"metadata":{"b":2}})").json().at("metadata"),
              (Json{{"a", 1}, {"b", 2}}));
    const auto minimal =
        api.call("PATCH", path, R"({"metadata":{"b":3}})", {{"prefer", "return=minimal"}});
    EXPECT_EQ(minimal.status, 204);
    EXPECT_EQ(minimal.body, "");
    EXPECT_EQ(api.call("GET", path + "?include=ttl").json().at("metadata").at("b"), 3);
    EXPECT_EQ(api.call("DELETE", path).status, 204);
    EXPECT_EQ(api.call("GET", path).status, 404);
    EXPECT_EQ(api.call("DELETE", path).status, 404);
    EXPECT_EQ(api.call("PATCH", path, "{}").status, 404);
}

TEST(Threads, HaveATimeToLiveThatIsShownWhenAskedFor) {
    TestApi api;
    const auto made = api.call("POST", "/threads", R"({"ttl":{"ttl":90.5,"strategy":"delete"}})");
    ASSERT_EQ(made.status, 200) << made.body;
    EXPECT_FALSE(made.json().contains("ttl"));
    const auto path = "/threads/" + made.json().at("thread_id").get<std::string>();
    auto ttl = api.call("GET", path + "?include=ttl").json().at("ttl");
    EXPECT_EQ(ttl.at("strategy"), "delete");
    EXPECT_EQ(ttl.at("ttl_minutes"), 90.5);
    EXPECT_TRUE(ttl.at("expires_at").is_string());
    const auto patched = api.call("PATCH", path, R"({"ttl":{"ttl":10,"strategy":"keep_latest"}})");
    ASSERT_EQ(patched.status, 200) << patched.body;
    ttl = api.call("GET", path + "?include=ttl").json().at("ttl");
    EXPECT_EQ(ttl.at("strategy"), "keep_latest");
    EXPECT_EQ(ttl.at("ttl_minutes"), 10);
    const auto without = "/threads/" + api.make_thread();
    EXPECT_TRUE(api.call("GET", without + "?include=ttl").json().at("ttl").is_null());
    EXPECT_FALSE(api.call("GET", without).json().contains("ttl"));
    scheduler::SchedulerLimits limits;
    limits.thread_ttl =
        storage::ThreadTtl{storage::TtlStrategy::delete_thread, std::chrono::minutes{7}};
    TestApi other{{}, limits};
    const auto defaulted = "/threads/" + other.make_thread();
    EXPECT_EQ(other.call("GET", defaulted + "?include=ttl").json().at("ttl").at("ttl_minutes"), 7);
}

TEST(Threads, TakeTheIdOfTheBodyWhateverTheEdgeGuessed) {
    TestApi api;
    for (int i = 0; i < 8; ++i) {
        const auto id = base::make_uuid_v7().to_string();
        Request request;
        request.method = "POST";
        request.path = "/threads";
        request.thread_id = base::make_uuid_v7().to_string();
        request.body = Json{{"thread_id", id}}.dump();
        EXPECT_EQ(api.begin(std::move(request))->finish().json().at("thread_id"), id);
        const auto again = api.call("POST", "/threads", Json{{"thread_id", id}}.dump());
        EXPECT_EQ(again.status, 409);
        EXPECT_EQ(again.json().at("detail"), "Thread already exists");
        const auto kept = api.call("POST", "/threads",
                                   Json{{"thread_id", id}, {"if_exists", "do_nothing"}}.dump());
        EXPECT_EQ(kept.status, 200);
    }
}

TEST(Threads, AreNotRefusedBecauseTheEdgesKeyIsThatOfAnOlderOne) {
    TestApi api;
    const auto older = api.make_thread();
    Request request;
    request.method = "POST";
    request.path = "/threads";
    request.thread_id = older;
    const auto made = api.begin(request)->finish();
    ASSERT_EQ(made.status, 200);
    EXPECT_NE(made.json().at("thread_id"), older);
}

TEST(Threads, FindWhatAnEarlierAttemptOfTheirRequestMade) {
    TestApi api;
    const auto repeat = [&api](const std::string& key, const Json& body) {
        Request request;
        request.method = "POST";
        request.path = "/threads";
        request.thread_id = key;
        request.body = body.dump();
        request.hop = 1;
        return api.begin(std::move(request))->finish();
    };
    const Json metadata{{"user", "ann"}, {"n", 1}};
    const auto made = api.call("POST", "/threads", Json{{"metadata", metadata}}.dump());
    const auto id = made.json().at("thread_id").get<std::string>();
    const Json named{{"thread_id", id}, {"metadata", metadata}};
    EXPECT_EQ(repeat(id, Json{{"metadata", metadata}}).json().at("thread_id"), id);
    EXPECT_EQ(repeat(id, named).json().at("thread_id"), id);
    EXPECT_EQ(repeat(id, Json{{"thread_id", id}}).status, 409) << "another request's";

    ASSERT_EQ(api.call("POST", "/threads/" + id + "/runs/wait", run_body("echo", "hi")).status,
              200);
    EXPECT_EQ(repeat(id, named).status, 409) << "it has been used";
    const auto fresh = repeat(id, Json{{"metadata", metadata}});
    EXPECT_EQ(fresh.status, 200);
    EXPECT_NE(fresh.json().at("thread_id"), id) << "its key is that of an older one";
}

TEST(Threads, RefuseWhatTheyDoNotObey) {
    TestApi api;
    const auto field_of = [&](const char* path, const char* body) {
        const auto reply = api.call("POST", path, body);
        EXPECT_EQ(reply.status, 422) << body;
        return reply.json().at("field").get<std::string>();
    };
    for (const auto* ttl : {R"({"ttl":{}})", R"({"ttl":{"ttl":0}})", R"({"ttl":{"ttl":-1}})",
                            R"({"ttl":{"ttl":1e300}})", R"({"ttl":{"ttl":"5"}})"}) {
        EXPECT_EQ(field_of("/threads", ttl), "ttl.ttl") << ttl;
    }
    EXPECT_EQ(field_of("/threads", R"({"ttl":{"ttl":5,"strategy":"archive"}})"), "ttl.strategy");
    EXPECT_EQ(field_of("/threads", R"({"ttl":{"ttl":5,"sweep":1}})"), "ttl.sweep");
    EXPECT_EQ(field_of("/threads", R"({"ttl":5})"), "ttl");
    EXPECT_EQ(field_of("/threads", R"({"supersteps":[{"updates":[]}]})"), "supersteps");
    EXPECT_EQ(field_of("/threads", R"({"thread_id":"user-42"})"), "thread_id");
    EXPECT_EQ(field_of("/threads", R"({"metadata":[]})"), "metadata");
    EXPECT_EQ(field_of("/threads/search", R"({"values":{"a":1}})"), "values");
    EXPECT_EQ(field_of("/threads/search", R"({"extract":{"a":"b"}})"), "extract");
    EXPECT_EQ(field_of("/threads/search", R"({"ids":["x"]})"), "ids[0]");
    EXPECT_EQ(field_of("/threads/search", R"({"select":["typo"]})"), "select");
    EXPECT_EQ(field_of("/threads/search", R"({"sort_by":"colour"})"), "sort_by");
    EXPECT_EQ(api.call("POST", "/threads", R"({"ttl":null,"supersteps":[]})").status, 200);
    EXPECT_EQ(api.call("GET", "/threads/not-a-uuid").status, 422);
    EXPECT_EQ(api.call("POST", "/threads", "{").status, 400);
}

TEST(Threads, ASearchCountsToTenThousandOrToItsPage) {
    TestApi api;
    for (int i = 0; i < 10'003; ++i) {
        ASSERT_EQ(api.call("POST", "/threads", "{}").status, 200);
    }
    const auto search = [&api](const char* body) {
        const auto found = api.call("POST", "/threads/search", body);
        return std::pair{found.header("x-pagination-total"), found.header("x-pagination-next")};
    };
    using Pages = std::pair<std::string, std::string>;
    EXPECT_EQ(search(R"({"limit":1,"select":["thread_id"]})"), (Pages{"10000", "1"}));
    EXPECT_EQ(search(R"({"limit":1,"offset":10000,"select":["thread_id"]})"),
              (Pages{"10002", "10001"}));
    EXPECT_EQ(search(R"({"limit":3,"offset":10000,"select":["thread_id"]})"), (Pages{"10003", ""}));
    EXPECT_EQ(api.call("POST", "/threads/count", "{}").body, "10003");
}

TEST(Threads, AreSearchedWithTheirValuesAndCounted) {
    TestApi api;
    for (int i = 0; i < 12; ++i) {
        Json extra{{"metadata", {{"n", i}}}};
        const auto id =
            api.call("POST", "/threads", Json{{"metadata", {{"even", i % 2 == 0}}}}.dump())
                .json()
                .at("thread_id")
                .get<std::string>();
        if (i < 3) {
            const auto text = "hello " + std::to_string(i);
            EXPECT_EQ(
                api.call("POST", "/threads/" + id + "/runs/wait", run_body("echo", text)).status,
                200);
        }
    }
    const auto page = api.call("POST", "/threads/search",
                               R"({"limit":5,"sort_by":"created_at","sort_order":"asc"})");
    ASSERT_EQ(page.status, 200) << page.body;
    ASSERT_EQ(page.json().size(), 5U);
    EXPECT_EQ(page.json()[1].at("values").at("messages")[1].at("content"), "echo hello 1");
    EXPECT_TRUE(page.json()[4].at("values").is_null());
    EXPECT_EQ(page.header("x-pagination-total"), "12");
    EXPECT_EQ(page.header("x-pagination-next"), "5");

    const auto even = api.call("POST", "/threads/search",
                               R"({"metadata":{"even":true},"select":["thread_id","metadata"]})");
    EXPECT_EQ(even.json().size(), 6U);
    EXPECT_FALSE(even.json()[0].contains("values"));
    EXPECT_EQ(even.header("x-pagination-total"), "6");
    EXPECT_EQ(api.call("POST", "/threads/count", R"({"metadata":{"even":true}})").body, "6");
    EXPECT_EQ(api.call("POST", "/threads/search", R"({"status":"busy"})").body, "[]");
    const auto past = api.call("POST", "/threads/search", R"({"offset":50})");
    EXPECT_EQ(past.body, "[]");
    EXPECT_EQ(past.header("x-pagination-total"), "12");
}

}  // namespace
}  // namespace heddle::api::test
