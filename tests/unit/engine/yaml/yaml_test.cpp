#include "engine/yaml/yaml.hpp"

#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace heddle::yaml {
namespace {

using base::ErrorCode;
using base::Json;

TEST(Parse, KeepsTypesAndRefusesWhatIsTooMuch) {
    const auto read =
        parse("a: 1\nb: \"1\"\nc: [true, null, 0.5, -2, 2026-11-21, 'x']\nd: {e: ~}\n", "t");
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(
        *read,
        Json::parse(R"({"a":1,"b":"1","c":[true,null,0.5,-2,"2026-11-21","x"],"d":{"e":null}})"));
    EXPECT_EQ(parse("a: 1\na: 2\n", "t").error().message, "t:2: the key \"a\" is repeated");
    EXPECT_EQ(parse("a: [1\n", "t").error().code, ErrorCode::bad_request);
    EXPECT_FALSE(parse("{a: " + std::string(200, '['), "t"));
    std::string laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
    for (char c = 'b'; c < 'j'; ++c) {
        laughs +=
            fmt::format("{0}: &{0} [*{1}, *{1}, *{1}, *{1}, *{1}, *{1}, *{1}, *{1}, *{1}, *{1}]\n",
                        c, static_cast<char>(c - 1));
    }
    EXPECT_NE(parse(laughs, "t").error().message.find("more than"), std::string::npos);
}

}  // namespace
}  // namespace heddle::yaml
