#include "engine/base/json_scan.hpp"

#include <cstdio>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "engine/base/json.hpp"

namespace heddle::base {
namespace {

TEST(JsonScan, FindsAMemberWhateverLiesBeforeIt) {
    const std::string_view text =
        R"({"a":{"messages":[1]},"q\"}":"\\\"],}","list":[[],{}],"messages":[{"x":"]"},2]})";
    EXPECT_EQ(find_member(text, "messages"), R"([{"x":"]"},2])");
    EXPECT_EQ(find_member(text, "list"), "[[],{}]");
    EXPECT_EQ(find_member(text, "b"), std::nullopt);
    EXPECT_EQ(find_member("{}", "b"), std::nullopt);
}

TEST(JsonScan, FindsTheLastElement) {
    EXPECT_EQ(find_last_element(R"([1,"a,]",{"b":[3,4]}])"), R"({"b":[3,4]})");
    EXPECT_EQ(find_last_element("[7]"), "7");
    EXPECT_EQ(find_last_element("[]"), std::nullopt);
}

TEST(JsonScan, VisitsEachElementInOrder) {
    std::string seen;
    EXPECT_TRUE(each_element(R"([[1,2],"],[",{},"\\","\\\""])", [&](auto element) {
        seen.append(element).append(" ");
        return true;
    }));
    EXPECT_EQ(seen, R"([1,2] "],[" {} "\\" "\\\"" )");
    const auto take = [](auto) { return true; };
    EXPECT_TRUE(each_element("[]", take));
    for (const auto* broken : {"", "[", "]", "[,]", "[1,]", "[1]]", "[1}", "[\"a]", "{}"}) {
        EXPECT_FALSE(each_element(broken, take)) << broken;
    }
}

TEST(JsonScan, StepsThroughWhatIsThereAndStaysWhereItIsNot) {
    JsonScan scan{R"({"a":[1,"]"],"b\"":{}})"};
    EXPECT_FALSE(scan.take("[") || scan.take_key());
    EXPECT_TRUE(scan.take("{"));
    EXPECT_EQ(scan.take_key(), "a");
    EXPECT_EQ(scan.take_value(), R"([1,"]"])");
    EXPECT_EQ(scan.take_value(), std::nullopt) << "a comma is no value";
    EXPECT_TRUE(scan.take(","));
    EXPECT_EQ(scan.take_key(), R"(b\")");
    EXPECT_EQ(scan.take_value(), "{}");
    EXPECT_FALSE(scan.at_end());
    EXPECT_TRUE(scan.take("}") && scan.at_end());
    EXPECT_EQ(scan.take_value(), std::nullopt);
    EXPECT_EQ(scan.take_key(), std::nullopt);
}

TEST(JsonScan, ReadsNothingOutsideBrokenText) {
    const std::string good = R"({"messages":[{"type":"ai","content":"x\"y"}],"b":[1,2]})";
    for (std::size_t size = 0; size < good.size(); ++size) {
        const std::string cut = good.substr(0, size);
        const auto messages = find_member(cut, "messages");
        if (messages) {
            (void)find_last_element(*messages);
        }
        (void)find_last_element(cut);
    }
    const auto seed = std::random_device{}();
    std::printf("seed %u\n", seed);
    std::mt19937 random{seed};
    constexpr std::string_view kAlphabet = R"({}[]",:\a1)";
    for (int round = 0; round < 20'000; ++round) {
        std::string text;
        for (auto n = random() % 24; n > 0; --n) {
            text += kAlphabet[random() % kAlphabet.size()];
        }
        (void)find_member(text, "a");
        (void)find_last_element(text);
    }
}

}  // namespace
}  // namespace heddle::base
