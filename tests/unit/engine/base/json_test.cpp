#include "engine/base/json.hpp"

#include <array>
#include <iostream>
#include <random>
#include <string>

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

// Text, mostly well-formed, in which every kind of byte occurs.
std::string random_text(std::mt19937& random) {
    constexpr std::array<std::string_view, 12> kPieces{"plain ",
                                                       "\"",
                                                       "\\",
                                                       "\n\t\r\b\f",
                                                       std::string_view{"\0\x1f\x7f", 3},
                                                       "é",
                                                       "漢字",
                                                       "😀",
                                                       "\xff",
                                                       "\xe2\x82",
                                                       "\xed\xa0\x80",
                                                       "\xc0\xaf"};
    std::uniform_int_distribution<std::size_t> piece{0, random() % 2 == 0 ? 7U : 11U};
    std::string text;
    for (auto left = random() % 6; left > 0; --left) {
        text += kPieces[piece(random)];
    }
    return text;
}

Json random_json(std::mt19937& random, unsigned depth) {
    switch (random() % (depth == 0 ? 6 : 8)) {
        case 0:
            return nullptr;
        case 1:
            return random() % 2 == 0;
        case 2:
            return static_cast<std::int64_t>(random()) * -static_cast<std::int64_t>(random());
        case 3:
            return std::uint64_t{random()} << (random() % 33);
        case 4:
            return static_cast<double>(random()) / 7.0;
        case 5:
            return random_text(random);
        case 6: {
            Json array = Json::array();
            for (auto left = random() % 4; left > 0; --left) {
                array.push_back(random_json(random, depth - 1));
            }
            return array;
        }
        default: {
            Json object = Json::object();
            for (auto left = random() % 4; left > 0; --left) {
                object[random_text(random)] = random_json(random, depth - 1);
            }
            return object;
        }
    }
}

TEST(DumpJson, WritesWhatTheLibraryWrites) {
    const auto seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 random{seed};
    for (int i = 0; i < 20'000; ++i) {
        const auto value = random_json(random, 4);
        ASSERT_EQ(dump_json(value), value.dump(-1, ' ', false, Json::error_handler_t::replace));
    }
    for (const auto* text : {"-9223372036854775808", "18446744073709551615", "[]", "{}"}) {
        const auto value = Json::parse(text, nullptr, false);
        EXPECT_EQ(dump_json(value), value.dump()) << text;
    }
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
