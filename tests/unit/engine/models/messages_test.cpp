#include "engine/models/messages.hpp"

#include <gtest/gtest.h>

namespace heddle::models {
namespace {

using base::ErrorCode;
using base::Json;

TEST(ToOpenAiMessages, TurnsAConversationWithToolsIntoTheChatFormat) {
    const Json messages = Json::parse(R"([
        {"type":"system","content":"be brief"},
        {"type":"human","content":[{"type":"text","text":"look"},
                                   {"type":"image_url","image_url":"data:image/png;base64,AA"}]},
        {"type":"ai","content":"",
         "tool_calls":[{"id":"c1","name":"f","args":{"a":1},"type":"tool_call"}],
         "invalid_tool_calls":[{"id":"c2","name":"g","args":"{","error":"x"}]},
        {"type":"tool","content":"done","tool_call_id":"c1","name":"f","status":"success"},
        {"type":"AIMessageChunk",
         "content":[{"type":"reasoning","text2":"no"},{"type":"text","text":"ok"}]},
        {"role":"user","content":"bye"}])");
    const auto sent = to_openai_messages(messages);
    ASSERT_TRUE(sent) << sent.error().message;
    EXPECT_EQ(*sent, Json::parse(R"([
        {"role":"system","content":"be brief"},
        {"role":"user","content":[{"type":"text","text":"look"},
                         {"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]},
        {"role":"assistant","content":null,"tool_calls":[
            {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
            {"id":"c2","type":"function","function":{"name":"g","arguments":"{"}}]},
        {"role":"tool","content":"done","tool_call_id":"c1"},
        {"role":"assistant","content":"ok"},
        {"role":"user","content":"bye"}])"));
}

TEST(ToOpenAiMessages, NamesTheFieldItCannotSend) {
    const auto field_of = [](const char* text) {
        const auto sent = to_openai_messages(Json::parse(text));
        return sent ? std::string{"none"} : sent.error().field;
    };
    EXPECT_EQ(field_of("{}"), "messages");
    EXPECT_EQ(field_of("[1]"), "messages[0].type");
    EXPECT_EQ(field_of(R"([{"type":"robot","content":""}])"), "messages[0].type");
    EXPECT_EQ(field_of(R"([{"type":"human"}])"), "messages[0].content");
    EXPECT_EQ(field_of(R"([{"type":"human","content":7}])"), "messages[0].content");
    EXPECT_EQ(field_of(R"([{"type":"human","content":[{"type":"video"}]}])"),
              "messages[0].content[0].type");
    EXPECT_EQ(field_of(R"([{"type":"human","content":"a"},{"type":"tool","content":""}])"),
              "messages[1].tool_call_id");
}

TEST(MakeAiMessage, WritesWhatLangChainWrites) {
    AiMessage answer;
    answer.id = "lc_run--1";
    answer.content = "hi";
    answer.tool_calls = {
        {"c1", "f", R"({"a":1})"}, {"", "g", ""}, {"c3", "h", "[1]"}, {"c4", "h", "{"}};
    answer.usage = Usage{3, 4};
    answer.model_name = "m";
    answer.finish_reason = "tool_calls";
    const auto message = make_ai_message(answer);
    EXPECT_EQ(message["type"], "ai");
    EXPECT_EQ(message["id"], "lc_run--1");
    EXPECT_EQ(message["name"], nullptr);
    EXPECT_EQ(message["example"], false);
    EXPECT_EQ(message["tool_calls"].size(), 2U);
    EXPECT_EQ(message["tool_calls"][0],
              (Json{{"name", "f"}, {"args", {{"a", 1}}}, {"id", "c1"}, {"type", "tool_call"}}));
    EXPECT_EQ(message["tool_calls"][1]["args"], Json::object());
    EXPECT_FALSE(message["tool_calls"][1]["id"].get<std::string>().empty());
    ASSERT_EQ(message["invalid_tool_calls"].size(), 2U);
    EXPECT_EQ(message["invalid_tool_calls"][0]["args"], "[1]");
    EXPECT_EQ(message["invalid_tool_calls"][1]["type"], "invalid_tool_call");
    EXPECT_EQ(message["usage_metadata"],
              (Json{{"input_tokens", 3}, {"output_tokens", 4}, {"total_tokens", 7}}));
    EXPECT_EQ(message["response_metadata"],
              (Json{{"model_name", "m"}, {"finish_reason", "tool_calls"}}));
    EXPECT_EQ(message["additional_kwargs"], Json::object());
}

}  // namespace
}  // namespace heddle::models
