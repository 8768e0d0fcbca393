#include "engine/api/fields.hpp"

#include <gtest/gtest.h>

namespace heddle::api {
namespace {

using base::Json;

TEST(Fields, KeepsTheFirstErrorWithItsPath) {
    const auto json = Json::parse(R"({"limit": 0, "name": 5})");
    Fields fields{json, "config"};
    EXPECT_FALSE(fields.integer("limit", 1, 10).has_value());
    EXPECT_FALSE(fields.text("name").has_value());
    const auto error = fields.finish().error();
    EXPECT_EQ(error.field, "config.limit");
    EXPECT_EQ(error.message, "config.limit must be an integer from 1 to 10");
    EXPECT_EQ(error.code, base::ErrorCode::invalid_argument);
}

TEST(Fields, RefusesWhatNobodyAskedForUnlessItIsNull) {
    const auto json = Json::parse(R"({"known": 1, "typo": 2, "absent": null})");
    Fields fields{json};
    EXPECT_EQ(fields.integer("known", 0, 9), 1);
    EXPECT_EQ(fields.finish().error().field, "typo");

    const auto nulls = Json::parse(R"({"a": null, "b": null})");
    Fields none{nulls};
    EXPECT_EQ(none.find("a"), nullptr) << "null counts as absent";
    EXPECT_TRUE(none.finish().has_value());
}

TEST(Fields, ChecksEachType) {
    const auto json = Json::parse(
        R"({"text": 1, "flag": "true", "integer": 1.5, "huge": 18446744073709551615, "list": {},
            "object": [], "texts": ["a", 1], "choice": "c", "id": "not one", "number": "1"})");
    const auto field_of = [&](auto read) {
        Fields fields{json};
        read(fields);
        return fields.finish().error().field;
    };
    EXPECT_EQ(field_of([](Fields& f) { (void)f.text("text"); }), "text");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.flag("flag"); }), "flag");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.integer("integer", 0, 9); }), "integer");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.integer("huge", INT64_MIN, INT64_MAX); }), "huge");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.array("list"); }), "list");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.object("object"); }), "object");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.texts("texts"); }), "texts[1]");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.choice("choice", {"a", "b"}); }), "choice");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.id<base::ThreadId>("id"); }), "id");
    EXPECT_EQ(field_of([](Fields& f) { (void)f.number("number"); }), "number");
}

TEST(ParseBody, TakesAnEmptyBodyForAnEmptyObject) {
    EXPECT_EQ(*parse_body(" \r\n"), Json::object());
    EXPECT_EQ(parse_body("[]").error().code, base::ErrorCode::invalid_argument);
    EXPECT_EQ(parse_body("{\"a\":1,\"a\":2}").error().code, base::ErrorCode::bad_request);
    EXPECT_EQ(parse_body("{\"a\":\"\xff\"}").error().code, base::ErrorCode::bad_request);
    EXPECT_EQ(parse_body(std::string(10'000, '[')).error().code, base::ErrorCode::bad_request);
}

}  // namespace
}  // namespace heddle::api
