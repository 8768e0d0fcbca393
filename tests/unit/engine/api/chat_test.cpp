#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

using base::Json;

TEST(Chat, AnswersAndGoesOnInTheSameThread) {
    TestApi api;
    const auto first = api.call("POST", "/chat", R"({"agent":"echo","message":"hello"})");
    ASSERT_EQ(first.status, 200) << first.body;
    EXPECT_EQ(first.json().at("reply"), "echo hello");
    EXPECT_EQ(first.json().at("usage").at("total_tokens"), 5);
    EXPECT_EQ(first.json().at("status"), "done");
    const auto thread = first.json().at("thread_id").get<std::string>();
    const auto second =
        api.call("POST", "/chat",
                 Json{{"agent", "echo"}, {"thread_id", thread}, {"message", "more"}}.dump());
    EXPECT_EQ(second.json().at("reply"), "echo more");
    EXPECT_EQ(second.json().at("thread_id"), thread);
    EXPECT_EQ(
        api.call("GET", "/threads/" + thread + "/state").json().at("values").at("messages").size(),
        4U);
}

TEST(Chat, ARepeatWithItsKeyGetsTheSameBytesAlsoFromTheStore) {
    TestApi api;
    const Headers key{{"idempotency-key", "once"}};
    const std::string body = R"({"agent":"echo","message":"hello"})";
    const auto first = api.call("POST", "/chat", body, key);
    ASSERT_EQ(first.status, 200) << first.body;
    EXPECT_EQ(first.json().at("usage").at("total_tokens"), 5);
    EXPECT_EQ(api.call("POST", "/chat", body, key).body, first.body);
    api.abandon_all();
    EXPECT_EQ(api.call("POST", "/chat", body, key).body, first.body);
}

TEST(Chat, ReportsAFailedRunWithItsStatus) {
    TestApi api;
    const auto reply = api.call("POST", "/chat", R"({"agent":"broken","message":"hello"})");
    EXPECT_EQ(reply.status, 502);
    EXPECT_EQ(reply.json().at("code"), "model_error");
    EXPECT_EQ(reply.json().at("detail"), "node \"answer\": the model said no");
    EXPECT_TRUE(reply.json().contains("thread_id"));
}

TEST(Chat, NamesWhatIsMissing) {
    TestApi api;
    const auto field_of = [&](const char* body) {
        return api.call("POST", "/chat", body).json().at("field").get<std::string>();
    };
    EXPECT_EQ(field_of(R"({"message":"x"})"), "agent");
    EXPECT_EQ(field_of(R"({"agent":"echo"})"), "message");
    EXPECT_EQ(field_of(R"({"agent":"echo","message":1})"), "message");
    EXPECT_EQ(field_of(R"({"agent":"echo","message":"x","thread_id":"me"})"), "thread_id");
    EXPECT_EQ(field_of(R"({"agent":"echo","message":"x","typo":1})"), "typo");
    EXPECT_EQ(field_of(R"({"agent":"nobody","message":"x"})"), "agent");
    EXPECT_EQ(api.call("POST", "/chat", R"({"agent":"nobody","message":"x"})").status, 404);
}

TEST(Chat, HasNoReplyWhereTheAgentSaysNothing) {
    TestApi api;
    const auto reply = api.call("POST", "/chat", R"({"agent":"counter","message":"x"})");
    EXPECT_TRUE(reply.status >= 400 || reply.json().at("reply").is_null()) << reply.body;
    EXPECT_LT(reply.status, 600);
}

}  // namespace
}  // namespace heddle::api::test
