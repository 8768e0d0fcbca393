#include "engine/tools/schema.hpp"

#include <gtest/gtest.h>

namespace heddle::tools {
namespace {

using base::ErrorCode;
using base::Json;

const Json kSchema = Json::parse(R"({"type":"object","required":["name"],"properties":{
    "name":{"type":"string","minLength":2,"maxLength":4},
    "age":{"type":"integer","minimum":0,"maximum":120},
    "share":{"type":"number","exclusiveMinimum":0,"maximum":1,"exclusiveMaximum":true},
    "kind":{"enum":["a","b"]},
    "day":{"type":"string","format":"date"},
    "id":{"type":"string","format":"uuid"},
    "maybe":{"type":"string","nullable":true},
    "either":{"type":["string","null"]},
    "list":{"type":"array","maxItems":2,"items":{"type":"boolean"}},
    "free":{"type":"object"},
    "map":{"type":"object","additionalProperties":{"type":"integer"}},
    "slot":{"type":"object","required":["at"],"properties":{"at":{"type":"string"}}}},
    "additionalProperties":false})");

std::string field_of(const char* args) {
    const auto checked = validate_args(kSchema, Json::parse(args));
    if (checked) {
        return "fits";
    }
    EXPECT_EQ(checked.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(checked.error().message.rfind(checked.error().field, 0), 0U);
    return checked.error().field;
}

TEST(ValidateArgs, TakesWhatFits) {
    EXPECT_EQ(
        field_of(R"({"name":"Ana","age":30,"share":0.5,"kind":"a","day":"2026-12-01","maybe":null,
        "either":null,"list":[true],"free":{"x":[1]},"map":{"k":1},"slot":{"at":"9"},
        "id":"6ba7b821-9dad-11d1-80b4-00c04fd430c8"})"),
        "fits");
    EXPECT_EQ(field_of(R"({"name":"\u00e1\u00e9\u00ed\u00f3"})"), "fits");  // characters, not bytes
    EXPECT_EQ(field_of(R"({"name":"ab","age":3.0})"), "fits");
}

TEST(ValidateArgs, NamesThePropertyThatDoesNotFit) {
    EXPECT_EQ(field_of(R"({})"), "name");
    EXPECT_EQ(field_of(R"({"name":7})"), "name");
    EXPECT_EQ(field_of(R"({"name":null})"), "name");
    EXPECT_EQ(field_of(R"({"name":"a"})"), "name");
    EXPECT_EQ(field_of(R"({"name":"abcde"})"), "name");
    EXPECT_EQ(field_of(R"({"name":"ab","age":-1})"), "age");
    EXPECT_EQ(field_of(R"({"name":"ab","age":121})"), "age");
    EXPECT_EQ(field_of(R"({"name":"ab","age":1.5})"), "age");
    EXPECT_EQ(field_of(R"({"name":"ab","age":1e300})"), "age");
    EXPECT_EQ(field_of(R"({"name":"ab","age":"30"})"), "age");
    EXPECT_EQ(field_of(R"({"name":"ab","share":0})"), "share");
    EXPECT_EQ(field_of(R"({"name":"ab","share":1})"), "share");
    EXPECT_EQ(field_of(R"({"name":"ab","kind":"c"})"), "kind");
    EXPECT_EQ(field_of(R"({"name":"ab","day":"2026-13-01"})"), "day");
    EXPECT_EQ(field_of(R"({"name":"ab","day":"tomorrow"})"), "day");
    EXPECT_EQ(field_of(R"({"name":"ab","id":"x"})"), "id");
    EXPECT_EQ(field_of(R"({"name":"ab","list":[true,1]})"), "list[1]");
    EXPECT_EQ(field_of(R"({"name":"ab","list":[true,true,true]})"), "list");
    EXPECT_EQ(field_of(R"({"name":"ab","map":{"k":"v"}})"), "map.k");
    EXPECT_EQ(field_of(R"({"name":"ab","slot":{}})"), "slot.at");
    EXPECT_EQ(field_of(R"({"name":"ab","slot":{"at":"9","to":"10"}})"), "slot.to");
    EXPECT_EQ(field_of(R"({"name":"ab","other":1})"), "other");
    EXPECT_FALSE(validate_args(kSchema, Json::array()));
    EXPECT_FALSE(validate_args(kSchema, nullptr));
}

TEST(ValidateArgs, BoundsDepthAndWhatItQuotes) {
    Json schema = Json::parse(R"({"type":"object","properties":{"a":{"type":"array"}}})");
    Json inner = schema["properties"]["a"];
    Json value = Json::array();
    for (int i = 0; i < 200; ++i) {
        inner = {{"type", "array"}, {"items", inner}};
        value = Json::array({value});
    }
    schema["properties"]["a"] = inner;
    EXPECT_FALSE(validate_args(schema, {{"a", value}}));
    const auto checked = validate_args(kSchema, {{"name", "ab"}, {std::string(100'000, 'x'), 1}});
    EXPECT_LT(checked.error().message.size(), 200U);
}

TEST(ValidateArgs, AllowsWhatASchemaDoesNotRuleOutIfItMaySayMore) {
    const auto allowed = [](const char* schema, const char* args) {
        return validate_args(Json::parse(schema), Json::parse(args), Unlisted::allowed).has_value();
    };
    EXPECT_TRUE(allowed(R"({"properties":{"a":{"type":"string"}}})", R"({"a":"x","b":1})"));
    EXPECT_FALSE(allowed(R"({"properties":{"a":{"type":"string"}}})", R"({"a":1,"b":1})"));
    EXPECT_TRUE(allowed(R"({"allOf":[{"properties":{"b":{}}}]})", R"({"b":1})"));
    EXPECT_TRUE(allowed(R"({"$ref":"#/$defs/x"})", R"({"b":1})"));
    EXPECT_FALSE(allowed(R"({"properties":{},"additionalProperties":false})", R"({"b":1})"));
    EXPECT_TRUE(
        allowed(R"({"patternProperties":{"^b":{}},"additionalProperties":false})", R"({"b":1})"));
    EXPECT_FALSE(allowed(R"({"additionalProperties":{"type":"string"}})", R"({"b":1})"));
    EXPECT_TRUE(
        allowed(R"({"properties":{"a":{"items":{"properties":{"c":{}}}}}})", R"({"a":[{"d":1}]})"));
}

}  // namespace
}  // namespace heddle::tools
