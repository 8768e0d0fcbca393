#include "engine/tools/mcp/protocol.hpp"

#include <random>

#include <gtest/gtest.h>

namespace heddle::tools::mcp {
namespace {

using base::ErrorCode;
using base::Json;
using base::Status;

// The body in one piece, or cut anywhere.
Status read(AnswerReader& reader, const std::string& body, std::mt19937* random = nullptr) {
    for (std::size_t at = 0; at < body.size();) {
        const auto most = random == nullptr
                              ? body.size()
                              : std::uniform_int_distribution<std::size_t>{1, 7}(*random);
        if (auto fed = reader.feed(std::string_view{body}.substr(at, most)); !fed) {
            return fed;
        }
        at += most;
    }
    return reader.finish();
}

Json result_in(const std::string& body) {
    AnswerReader reader{7, 10'000};
    const auto status = read(reader, body);
    if (!status) {
        return status.error().message;
    }
    return std::get<Json>(reader.take_answer());
}

TEST(McpAnswer, IsFoundInJsonAndInAStream) {
    EXPECT_EQ(result_in(R"( {"jsonrpc":"2.0","id":7,"result":{"a":1}})"), (Json{{"a", 1}}));
    EXPECT_EQ(result_in(R"([{"method":"x"},{"id":7,"result":{"a":2}}])"), (Json{{"a", 2}}));
    EXPECT_EQ(result_in("event: message\ndata: {\"id\":7,\"result\":{\"a\":3}}\n\n"),
              (Json{{"a", 3}}));
    AnswerReader reader{7, 1000};
    ASSERT_TRUE(read(reader, R"({"id":7,"error":{"code":-32602,"message":"no such tool"}})"));
    const auto refusal = std::get<Refusal>(reader.take_answer());
    EXPECT_EQ(refusal.message, "no such tool");
    EXPECT_TRUE(refusal.is_final());
    EXPECT_FALSE((Refusal{-32603, ""}).is_final());
}

TEST(McpAnswer, MayComeAfterWhateverElseTheServerSays) {
    const std::string stream =
        "id: 1\ndata:\n\n"
        "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n\n"
        "data: {\"method\":\"notifications/message\",\"params\":{\"data\":\"\xC3\xA9\"}}\n\n"
        "data: {\"method\":\"notifications/tools/list_changed\"}\r\n\r\n"
        "data: {\"id\":6,\"result\":{\"a\":0}}\n\n: comment\n\n"
        "data: {\"id\":7,\ndata: \"result\":{\"a\":1}}\n\n"
        "data: {\"id\":7,\"result\":{\"a\":2}}\n\ndata: no JSON\n\n";
    const auto seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random{seed};
    for (int round = 0; round < 300; ++round) {
        AnswerReader reader{7, 1000};
        ASSERT_TRUE(read(reader, stream, &random));
        EXPECT_TRUE(reader.saw_list_changed());
        ASSERT_EQ(std::get<Json>(reader.take_answer()), (Json{{"a", 1}}));
    }
}

TEST(McpAnswer, BytesThatAreNoUtf8AreReplaced) {
    EXPECT_EQ(result_in("{\"id\":7,\"result\":{\"a\":\"x\xFF\"}}"), (Json{{"a", "x\uFFFD"}}));
    EXPECT_EQ(result_in("data: {\"id\":7,\"result\":{\"a\":\"\xC3\"}}\n\n"),
              (Json{{"a", "\uFFFD"}}));
}

TEST(McpAnswer, RefusesWhatIsNone) {
    const std::string deep =
        "{\"id\":7,\"result\":" + std::string(100, '[') + std::string(100, ']') + "}";
    for (const std::string& body :
         {std::string{}, std::string{"<html>"}, std::string{"{"}, std::string{"{\"id\":8}"},
          std::string{"{\"id\":\"7\",\"result\":{}}"}, std::string{"data: {\n\n"},
          std::string{"data: {\"id\":8,\"result\":{}}\n\n"}, std::string{"{\"id\":7}"}, deep,
          std::string{"[[]]"}, "{\"id\":7,\"result\":\"" + std::string(20'000, 'x') + "\"}",
          "data: " + std::string(20'000, 'x')}) {
        AnswerReader reader{7, 10'000};
        const auto status = read(reader, body);
        ASSERT_FALSE(status) << body.substr(0, 100);
        EXPECT_EQ(status.error().code, ErrorCode::tool_error);
        EXPECT_LT(status.error().message.size(), 200U);
    }
}

TEST(McpAnswer, RandomBytesBreakNothing) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random{seed};
    const std::string parts[] = {"data: ", "{",           "}",    "\n\n",        "\"id\":7", ",",
                                 "[",      "\"error\":",  "null", "\"result\":", "]",        "\xFF",
                                 "\r",     "\"method\":", "7",    "\"\"",        "event: ",  ":"};
    for (int round = 0; round < 3000; ++round) {
        std::string body;
        for (int i = 0; i < 12; ++i) {
            body +=
                parts[std::uniform_int_distribution<std::size_t>{0, std::size(parts) - 1}(random)];
        }
        AnswerReader reader{7, 1000};
        if (read(reader, body, &random)) {
            const auto answer = reader.take_answer();
            if (const auto* result = std::get_if<Json>(&answer)) {
                (void)read_version(*result);
                (void)read_tool_page(*result);
                (void)read_call_result(*result);
            }
        }
    }
}

TEST(McpRequest, CarriesTheKeyInItsMeta) {
    const auto params = call_params("book", {{"what", "x"}}, "k1");
    const auto request = Json::parse(write_request(3, "tools/call", params));
    EXPECT_EQ(request, Json::parse(R"({"jsonrpc":"2.0","id":3,"method":"tools/call","params":{
        "name":"book","arguments":{"what":"x"},"_meta":{"heddle/idempotency-key":"k1"}}})"));
    EXPECT_FALSE(call_params("look", Json::object(), "").contains("_meta"));
    EXPECT_EQ(Json::parse(write_notification("notifications/initialized")),
              (Json{{"jsonrpc", "2.0"}, {"method", "notifications/initialized"}}));
}

TEST(McpVersion, IsOneThatIsSpoken) {
    EXPECT_EQ(*read_version({{"protocolVersion", "2025-06-18"}}), "2025-06-18");
    EXPECT_EQ(*read_version({{"protocolVersion", "2025-03-26"}}), "2025-03-26");
    for (const auto& result : {Json{{"protocolVersion", "2024-11-05"}}, Json::object(), Json{},
                               Json{{"protocolVersion", std::string(5000, '9')}}}) {
        const auto read = read_version(result);
        ASSERT_FALSE(read);
        EXPECT_NE(read.error().message.find("expected 2025-06-18"), std::string::npos);
        EXPECT_LT(read.error().message.size(), 200U);
    }
}

TEST(McpTools, AreReadAsTheyAreOffered) {
    const auto page = read_tool_page(Json::parse(R"({"nextCursor": "c2", "tools": [
        {"name": "book", "description": "Books.", "inputSchema": {"type": "object"}},
        {"name": "look", "title": "Looks", "inputSchema": {"properties": {}},
         "annotations": {"readOnlyHint": true}},
        {"name": "safe", "inputSchema": {}, "annotations": {"idempotentHint": true}},
        {"name": "odd", "inputSchema": {}, "annotations": {"readOnlyHint": "yes"}}]})"));
    ASSERT_TRUE(page) << page.error().message;
    EXPECT_EQ(page->next_cursor, "c2");
    ASSERT_EQ(page->tools.size(), 4U);
    EXPECT_EQ(page->tools[0].description, "Books.");
    EXPECT_EQ(page->tools[0].parameters, (Json{{"type", "object"}}));
    EXPECT_TRUE(page->tools[0].recorded);
    EXPECT_EQ(page->tools[0].on_unknown, OnUnknown::fail);
    EXPECT_EQ(page->tools[1].description, "Looks");
    EXPECT_FALSE(page->tools[1].recorded) << "it only reads";
    EXPECT_TRUE(page->tools[2].recorded) << "idempotent is not: honours a key";
    EXPECT_EQ(page->tools[2].on_unknown, OnUnknown::fail);
    EXPECT_TRUE(page->tools[3].recorded);
}

TEST(McpTools, LeavesOutWhatNoModelCouldCall) {
    Json listed = Json::array();
    for (const auto& name : {Json{"a b"}, Json{""}, Json{std::string(65, 'a')}, Json{7}, Json{},
                             Json{"\u00e9"}, Json{"a.b"}}) {
        listed.push_back({{"name", name}, {"inputSchema", Json::object()}});
    }
    listed.push_back({{"name", "no_schema"}});
    listed.push_back({{"name", "list"}, {"inputSchema", Json::array()}});
    listed.push_back("text");
    listed.push_back({{"name", std::string(64, 'a')}, {"inputSchema", Json::object()}});
    const auto page = read_tool_page({{"tools", listed}});
    ASSERT_TRUE(page);
    EXPECT_EQ(page->left_out, 10U);
    EXPECT_EQ(page->tools.size(), 1U);
    EXPECT_TRUE(page->next_cursor.empty());
    const Json wordy{
        {"name", "w"}, {"description", std::string(100'000, 'd')}, {"inputSchema", Json::object()}};
    EXPECT_LT(read_tool_page({{"tools", {wordy}}})->tools[0].description.size(), 20'000U);
    for (const auto& broken :
         {Json{}, Json::object(), Json{{"tools", 1}}, Json{"tools"},
          Json{{"tools", Json::array()}, {"nextCursor", std::string(9000, 'c')}}}) {
        EXPECT_EQ(read_tool_page(broken).error().code, ErrorCode::tool_error) << broken.dump(0);
    }
}

TEST(McpResult, BecomesWhatTheModelReads) {
    const auto content = [](const char* text) { return read_call_result(Json::parse(text)); };
    EXPECT_EQ(content(R"({"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],
                          "structuredContent":{"x":1}})")
                  ->content,
              "a\nb");
    EXPECT_EQ(content(R"({"content":[],"structuredContent":{"x":1}})")->content, "{\"x\":1}");
    EXPECT_EQ(content(R"({"structuredContent":{"x":1}})")->content, "{\"x\":1}");
    EXPECT_EQ(content(R"({"content":[{"type":"image","data":"AAAA","mimeType":"image/png"},
                          {"type":"text","text":"see"}]})")
                  ->content,
              "[image: image/png, 4 bytes of base64]\nsee");
    EXPECT_EQ(content(R"({"content":[{"type":"resource","resource":{"uri":"f:x","blob":"AA"}}]})")
                  ->content,
              "[resource: , 2 bytes of base64]");
    const char* link = R"({"content":[{"type":"resource_link","uri":"f:x","name":"x"}]})";
    EXPECT_EQ(Json::parse(content(link)->content)["uri"], "f:x");
    EXPECT_FALSE(content(link)->is_error);
    const auto failed = content(R"({"content":[],"isError":true})");
    EXPECT_TRUE(failed->is_error);
    EXPECT_FALSE(failed->content.empty());
    EXPECT_TRUE(content(R"({"content":["x",1,null,{"type":{}}]})")) << "odd, and harmless";
    for (const char* broken : {"{}", "[]", "null", "\"x\"", "{\"content\":{}}"}) {
        EXPECT_EQ(content(broken).error().code, ErrorCode::tool_error) << broken;
    }
}

TEST(McpSession, IdIsVisibleAscii) {
    EXPECT_TRUE(is_session_id("1868a90c-!~"));
    for (const auto& bad : {std::string{}, std::string{"a b"}, std::string{"a\r\nX: 1"},
                            std::string{"\xC3\xA9"}, std::string(1025, 'a')}) {
        EXPECT_FALSE(is_session_id(bad));
    }
}

}  // namespace
}  // namespace heddle::tools::mcp
