#include "engine/models/scripted/scripted.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "engine/models/scripted/text.hpp"
#include "tests/unit/engine/net/on_shard.hpp"

namespace heddle::models {
namespace {

using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;
using namespace std::chrono_literals;

class ScriptedTest : public ::testing::Test {
protected:
    Result<ChatReply> call(const Json& settings, Json messages, base::Duration patience = 20s) {
        auto made = make_scripted_model(metrics_, settings, ".").value();
        chunks_.clear();
        return test::run_on(shard_, [&]() -> Task<Result<ChatReply>> {
            ChatRequest request;
            request.messages = std::move(messages);
            request.stream = true;
            request.deadline = base::system_clock().now() + patience;
            OnChunk on_chunk = [&](Json chunk) { chunks_.push_back(std::move(chunk)); };
            co_return co_await made->call(std::move(request), std::move(on_chunk), cancel_);
        });
    }
    std::string say(const Json& rules, const std::string& text) {
        return call({{"rules", rules}}, human(text))->message["content"].get<std::string>();
    }
    static Json human(const std::string& text) {
        return Json::array({{{"type", "human"}, {"content", text}}});
    }

    observe::Metrics metrics_;
    base::CancelSource cancel_;
    base::Shard shard_{0, 64};
    std::vector<Json> chunks_;
};

TEST_F(ScriptedTest, TheFirstRuleThatMatchesAnswersInTheCallersLanguage) {
    const auto rules = Json::parse(R"([
        {"when":{"contains":["hours","horario"]},
         "reply":{"en":"nine to six","es":"de nueve a seis"}},
        {"when":{"all":["one","two"]},"reply":"both"},
        {"when":{"contains":["one"]},"reply":"{{turn}}: {{input}}"},
        {"when":{"language":"es"},"reply":"hola"}])");
    EXPECT_EQ(say(rules, "What are your HOURS?"), "nine to six");
    EXPECT_EQ(say(rules, "\u00bfCu\u00e1l es su HORARIO?"), "de nueve a seis");
    EXPECT_EQ(say(rules, "two and one"), "both");
    EXPECT_EQ(say(rules, "just one"), "1: just one");
    EXPECT_EQ(say(rules, "Necesito reagendar mi cita"), "hola");
    EXPECT_NE(say(rules, "someone").find("sorry"),
              std::string::npos);  // "one" begins no word there
    EXPECT_NE(say(Json::array(), "gracias por la cita").find("Disculpe"), std::string::npos);
}

TEST_F(ScriptedTest, CallsToolsWithWhatItCaptured) {
    const auto rules = Json::parse(R"([{"when":{"contains":["book"],
        "capture":{"day":"date","hour":"time",
                   "service":{"dental":["teeth","dental"],"eyes":["eye"]}},
        "recall":{"who":"name"}},
        "tool_calls":[{"name":"book","args":{"at":"{{captured.day}} {{captured.hour}}","n":3,
                       "service":"{{captured.service}}","who":"{{captured.who}}"}}]}])");
    Json messages = human("My name is Ana Ruiz.");
    messages.push_back({{"type", "ai"}, {"content", "hello"}});
    messages.push_back({{"type", "human"}, {"content", "Book my teeth on 2026-12-01 at 10:00."}});
    const auto reply = call({{"rules", rules}}, messages);
    ASSERT_TRUE(reply);
    const auto& calls = reply->message["tool_calls"];
    ASSERT_EQ(calls.size(), 1U) << reply->message;
    EXPECT_EQ(
        calls[0]["args"],
        (Json{{"at", "2026-12-01 10:00"}, {"n", 3}, {"service", "dental"}, {"who", "Ana Ruiz"}}));
    EXPECT_EQ(calls[0]["id"], "call_3_0");
    ASSERT_EQ(chunks_.size(), 1U);
    EXPECT_EQ(chunks_[0]["tool_call_chunks"][0]["name"], "book");
    EXPECT_TRUE(
        call({{"rules", rules}}, human("Book my teeth on Monday"))->message["tool_calls"].empty());
}

TEST_F(ScriptedTest, ReadsToolResults) {
    const auto rules = Json::parse(R"([
        {"when":{"after_tool":"find","result_contains":["not_found"]},"reply":"none"},
        {"when":{"after_tool":"find"},
         "reply":"{{tool_result.list.1.name}}/{{tool_result.n}}/{{tool_result.x.y}}"},
        {"reply":"human"}])");
    const auto after = [&](const std::string& tool, const std::string& content) {
        Json messages = human("find it");
        messages.push_back(
            {{"type", "tool"}, {"name", tool}, {"content", content}, {"tool_call_id", "1"}});
        return call({{"rules", rules}}, messages)->message["content"].get<std::string>();
    };
    EXPECT_EQ(after("find", R"({"list":[{},{"name":"b"}],"n":2})"), "b/2/");
    EXPECT_EQ(after("find", R"({"error":{"code":"not_found"}})"), "none");
    EXPECT_EQ(after("find", "no json"), "//");
    EXPECT_EQ(after("other", "what it said"), "what it said");
    EXPECT_EQ(say(rules, "x"), "human");
}

TEST_F(ScriptedTest, StreamsWordsAndCountsCharacters) {
    const auto rules = Json::parse(R"([{"reply":"uno dos a\u00f1o"}])");
    const auto reply = call({{"rules", rules}}, human("12345\u00f1"));
    ASSERT_TRUE(reply);
    ASSERT_EQ(chunks_.size(), 4U);
    EXPECT_EQ(chunks_[1]["content"], " dos");
    EXPECT_EQ(chunks_[0]["id"], reply->message["id"]);
    EXPECT_EQ(reply->usage.input_tokens, 2);   // 6 characters
    EXPECT_EQ(reply->usage.output_tokens, 3);  // 11 characters
    EXPECT_EQ(chunks_.back()["usage_metadata"]["total_tokens"], 5);
}

TEST_F(ScriptedTest, TakesItsLatencyAndKeepsTheDeadline) {
    const Json settings{{"latency_ms", 150}};
    auto begun = base::system_clock().now();
    ASSERT_TRUE(call(settings, human("x")));
    EXPECT_GE(base::system_clock().now() - begun, 150ms);
    const Json slow{{"latency_ms", 60'000}};
    begun = base::system_clock().now();
    EXPECT_EQ(call(slow, human("x"), 50ms).error().code, ErrorCode::timeout);
    shard_.post([this] { cancel_.cancel({ErrorCode::interrupted, "stop"}); });
    EXPECT_EQ(call(slow, human("x")).error().code, ErrorCode::interrupted);
    EXPECT_LT(base::system_clock().now() - begun, 10s);
}

TEST_F(ScriptedTest, SurvivesHostileMessages) {
    const auto rules =
        Json::parse(R"([{"when":{"contains":["zzz"],"recall":{"n":"name"}},"reply":"{{input}}"}])");
    const std::string huge(5'000'000, 'a');
    for (const auto& messages :
         {human(huge), human(huge + " zzz"), Json(7), Json::array({1, nullptr, {{"type", 7}}}),
          Json::array({{{"type", "human"}, {"content", {{{"text", 1}}}}}}),
          Json::array({{{"type", "tool"}, {"name", 1}, {"content", "[[["}}})}) {
        EXPECT_TRUE(call({{"rules", rules}}, messages));
    }
    EXPECT_EQ(clip("a\xC3\xB1", 2), "a");
    EXPECT_EQ(fold("\u00a1\u00c1\u00d1o!!\t\xFF\xC3"), " ano \xFF\xC3 ");
}

TEST_F(ScriptedTest, NamesTheRuleThatIsWrong) {
    const auto field_of = [&](const char* settings) {
        const auto made = make_scripted_model(metrics_, Json::parse(settings), ".");
        return made ? std::string{"none"} : made.error().field;
    };
    EXPECT_EQ(field_of(R"({"rules":[{}]})"), "rules[0]");
    EXPECT_EQ(field_of(R"({"rules":[{"reply":"a"},{"reply":7}]})"), "rules[1].reply");
    EXPECT_EQ(field_of(R"({"rules":[{"reply":"a","when":{"regex":"a"}}]})"), "rules[0].when.regex");
    EXPECT_EQ(field_of(R"({"rules":[{"reply":"a","when":{"contains":"a"}}]})"),
              "rules[0].when.contains");
    EXPECT_EQ(field_of(R"({"rules":[{"reply":"a","when":{"capture":{"x":"thing"}}}]})"),
              "rules[0].when.capture.x");
    EXPECT_EQ(field_of(R"({"rules":[{"tool_calls":[{"args":{}}]}]})"),
              "rules[0].tool_calls[0].name");
    EXPECT_EQ(field_of(R"({"latency_ms":-1})"), "latency_ms");
    EXPECT_EQ(field_of(R"({"colour":1})"), "colour");
    EXPECT_EQ(make_scripted_model(metrics_, {{"script", "none.yaml"}}, "/nowhere").error().code,
              ErrorCode::not_found);
}

TEST_F(ScriptedTest, TakesTheAppointmentAgentsScript) {
    const auto made = make_scripted_model(metrics_, {{"script", "scripted.yaml"}},
                                          std::string{HEDDLE_SOURCE_DIR} + "/agents/appointment");
    EXPECT_TRUE(made) << made.error().message;
}

}  // namespace
}  // namespace heddle::models
