#include "engine/base/json.hpp"

#include <gtest/gtest.h>

namespace heddle::base {
namespace {

ErrorCode code_of(std::string_view text) {
    const auto parsed = parse_json(text, "request body");
    return parsed ? ErrorCode::internal : parsed.error().code;
}

TEST(ParseJson, ReadsWhatRfc8259Allows) {
    const auto parsed =
        parse_json(R"( {"a": [1, -2.5e3, "x\u00e9", null, true]} )", "request body");
    ASSERT_TRUE(parsed);
    EXPECT_EQ(dump_json(*parsed), R"({"a":[1,-2500.0,"xé",null,true]})");
}

TEST(ParseJson, RefusesARepeatedKeyByName) {
    const auto parsed = parse_json(R"({"input": {"a": 1, "a": 2}})", "request body");
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code, ErrorCode::bad_request);
    EXPECT_NE(parsed.error().message.find("\"a\" is repeated"), std::string::npos);
}

TEST(ParseJson, RefusesTenThousandLevels) {
    const std::string text = std::string(10'000, '[') + std::string(10'000, ']');
    const auto parsed = parse_json(text, "request body");
    ASSERT_FALSE(parsed);
    EXPECT_NE(parsed.error().message.find("64 levels"), std::string::npos);
}

TEST(ParseJson, AllowsExactlyTheDepthLimit) {
    const std::string text = std::string(64, '[') + std::string(64, ']');
    EXPECT_TRUE(parse_json(text, "request body"));
}

TEST(ParseJson, RefusesBrokenTextWithTheOffset) {
    const auto parsed = parse_json(R"({"a": )", "request body");
    ASSERT_FALSE(parsed);
    EXPECT_NE(parsed.error().message.find("at byte"), std::string::npos);
    EXPECT_EQ(code_of(R"({"a": 1} x)"), ErrorCode::bad_request);
    EXPECT_EQ(code_of(""), ErrorCode::bad_request);
    EXPECT_EQ(code_of("NaN"), ErrorCode::bad_request);
}

TEST(ParseJson, RefusesBytesThatAreNotUtf8AndSaysSoInUtf8) {
    const auto parsed = parse_json("{\"a\": \"\xff\xfe\"}", "request body");
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code, ErrorCode::bad_request);
    EXPECT_NO_THROW((void)Json(parsed.error().message).dump());
}

TEST(ParseJson, RefusesMoreBytesThanItsLimit) {
    const auto parsed = parse_json("[1,2,3]", "request body", {.depth_max = 4, .bytes_max = 6});
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code, ErrorCode::payload_too_large);
}

TEST(AppendJsonString, EscapesWhatNeedsIt) {
    std::string out;
    append_json_string(out, "plain");
    append_json_string(out, "a\"b\\c\n\xff");
    EXPECT_EQ(out, "\"plain\"\"a\\\"b\\\\c\\n\xef\xbf\xbd\"");
}

TEST(JsonContains, FollowsPostgres) {
    const auto whole = Json::parse(R"({"a": {"b": [1, 2, {"c": 3}]}, "d": 4})");
    EXPECT_TRUE(json_contains(whole, Json::parse(R"({"a": {"b": [{"c": 3}]}})")));
    EXPECT_TRUE(json_contains(whole, Json::object()));
    EXPECT_FALSE(json_contains(whole, Json::parse(R"({"a": {"b": [5]}})")));
    EXPECT_FALSE(json_contains(whole, Json::parse(R"({"e": null})")));
}

}  // namespace
}  // namespace heddle::base
