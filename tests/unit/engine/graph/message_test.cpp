#include "engine/graph/message.hpp"

#include <gtest/gtest.h>

#include "engine/base/uuid.hpp"

namespace heddle::graph {
namespace {

using base::ErrorCode;
using base::Json;

Json normalize(const Json& form) {
    IdMint mint;
    auto message = normalize_message(form, "m", mint);
    EXPECT_TRUE(message) << (message ? "" : message.error().message);
    return message ? *message : Json{};
}

std::string field_of(const std::string& form) {
    IdMint mint;
    const auto message = normalize_message(Json::parse(form), "input.messages[2]", mint);
    EXPECT_FALSE(message) << form;
    if (message) {
        return "no error";
    }
    EXPECT_EQ(message.error().code, ErrorCode::invalid_argument);
    EXPECT_TRUE(message.error().message.starts_with(message.error().field));
    return message.error().field;
}

TEST(Message, EveryFormOfAHumanMessageComesOutTheSame) {
    const Json expected{{"type", "human"},
                        {"content", "hi"},
                        {"id", "x"},
                        {"name", nullptr},
                        {"additional_kwargs", Json::object()},
                        {"response_metadata", Json::object()}};
    EXPECT_EQ(normalize({{"role", "user"}, {"content", "hi"}, {"id", "x"}}), expected);
    EXPECT_EQ(normalize({{"role", "human"}, {"content", "hi"}, {"id", "x"}}), expected);
    EXPECT_EQ(normalize({{"type", "human"}, {"content", "hi"}, {"id", "x"}}), expected);
    EXPECT_EQ(normalize(Json::parse(R"({"lc":1,"type":"constructor",
        "id":["langchain_core","messages","HumanMessage"],"kwargs":{"content":"hi","id":"x"}})")),
              expected);
    for (const Json& form :
         {Json("hi"), Json::array({"human", "hi"}), Json::array({"user", "hi"})}) {
        auto message = normalize(form);
        EXPECT_TRUE(base::Uuid::parse(message["id"].get<std::string>()));
        message["id"] = "x";
        EXPECT_EQ(message, expected);
    }
}

TEST(Message, AiMessagesCarryToolCalls) {
    const auto message = normalize(Json::parse(R"({"role":"assistant","content":null,"id":"a",
        "tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
                      {"id":"d","name":"g"}]})"));
    EXPECT_EQ(message["type"], "ai");
    EXPECT_EQ(message["content"], "");
    EXPECT_EQ(message["tool_calls"],
              Json::parse(R"([{"id":"c","name":"f","args":{"a":1},"type":"tool_call"},
                              {"id":"d","name":"g","args":{},"type":"tool_call"}])"));
    EXPECT_EQ(message["invalid_tool_calls"], Json::array());
    EXPECT_TRUE(message["usage_metadata"].is_null());
}

TEST(Message, ToolSystemAndRemoveMessages) {
    const auto tool = normalize({{"type", "tool"}, {"content", "7"}, {"tool_call_id", "c"}});
    EXPECT_EQ(tool["status"], "success");
    EXPECT_TRUE(tool.contains("artifact"));
    EXPECT_EQ(normalize({{"role", "developer"}, {"content", "x"}})["type"], "system");
    EXPECT_EQ(normalize({{"type", "remove"}, {"id", "7"}, {"content", ""}}),
              (Json{{"type", "remove"}, {"id", "7"}}));
    EXPECT_EQ(normalize(Json::parse(R"({"role":"user","content":[{"type":"text","text":"a"},
        {"type":"image_url","image_url":{"url":"data:"}}]})"))["content"]
                  .size(),
              2U);
}

TEST(Message, WhatIsUnknownIsKept) {
    EXPECT_EQ(normalize({{"role", "user"}, {"content", "x"}, {"example", false}})["example"],
              false);
}

TEST(Message, ErrorsNameTheField) {
    const std::string at = "input.messages[2]";
    EXPECT_EQ(field_of("7"), at);
    EXPECT_EQ(field_of("null"), at);
    EXPECT_EQ(field_of(R"(["human"])"), at);
    EXPECT_EQ(field_of(R"([1,"x"])"), at);
    EXPECT_EQ(field_of(R"({"content":"x"})"), at + ".role");
    EXPECT_EQ(field_of(R"({"role":"boss","content":"x"})"), at + ".role");
    EXPECT_EQ(field_of(R"({"type":"boss","content":"x"})"), at + ".type");
    EXPECT_EQ(field_of(R"({"role":7,"content":"x"})"), at + ".role");
    EXPECT_EQ(field_of(R"({"role":"user"})"), at + ".content");
    EXPECT_EQ(field_of(R"({"role":"user","content":7})"), at + ".content");
    EXPECT_EQ(field_of(R"({"role":"user","content":[7]})"), at + ".content[0]");
    EXPECT_EQ(field_of(R"({"role":"user","content":["a",{"text":"x"}]})"), at + ".content[1]");
    EXPECT_EQ(field_of(R"({"role":"user","content":"x","id":7})"), at + ".id");
    EXPECT_EQ(field_of(R"({"role":"user","content":"x","name":7})"), at + ".name");
    EXPECT_EQ(field_of(R"({"role":"user","content":"x","additional_kwargs":7})"),
              at + ".additional_kwargs");
    EXPECT_EQ(field_of(R"({"role":"ai","tool_calls":7})"), at + ".tool_calls");
    EXPECT_EQ(field_of(R"({"role":"ai","tool_calls":[7]})"), at + ".tool_calls[0]");
    EXPECT_EQ(field_of(R"({"role":"ai","tool_calls":[{"args":{}}]})"), at + ".tool_calls[0].name");
    EXPECT_EQ(field_of(R"({"role":"ai","tool_calls":[{"name":"f","args":"x"}]})"),
              at + ".tool_calls[0].args");
    EXPECT_EQ(field_of(R"({"role":"ai","tool_calls":[{"function":{"arguments":"{"}}]})"),
              at + ".tool_calls[0].function.arguments");
    EXPECT_EQ(field_of(R"({"role":"tool","content":"x"})"), at + ".tool_call_id");
    EXPECT_EQ(field_of(R"({"role":"tool","content":"x","tool_call_id":"c","status":"odd"})"),
              at + ".status");
    EXPECT_EQ(field_of(R"({"type":"remove"})"), at + ".id");
    EXPECT_EQ(field_of(R"({"lc":1,"type":"constructor","id":"x"})"), at + ".id");
}

TEST(Message, SeededIdsAreRepeatable) {
    IdMint one{base::assistant_namespace()};
    IdMint two{base::assistant_namespace()};
    const auto first = one.next();
    EXPECT_EQ(first, two.next());
    EXPECT_NE(first, one.next());
}

}  // namespace
}  // namespace heddle::graph
