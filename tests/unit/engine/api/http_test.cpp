#include "engine/api/http.hpp"

#include <gtest/gtest.h>

#include "engine/api/sse.hpp"

namespace heddle::api {
namespace {

TEST(Query, DecodesEscapesAndSpaces) {
    const Query query{"a=1%202+3&b=%zz%4&c&d=x=y&&e=%C3%A9&a=last"};
    EXPECT_EQ(*query.find("a"), "last");
    EXPECT_EQ(query.list("a"), (std::vector<std::string>{"1 2 3", "last"}));
    EXPECT_EQ(*query.find("b"), "%zz%4") << "a broken escape stands for itself";
    EXPECT_EQ(*query.find("c"), "");
    EXPECT_EQ(*query.find("d"), "x=y");
    EXPECT_EQ(*query.find("e"), "\xC3\xA9");
    EXPECT_EQ(query.find("f"), nullptr);
}

TEST(Query, ReadsListsInTheEncodingsOfBothSdks) {
    const std::vector<std::string> wanted{"values", "updates"};
    EXPECT_EQ(Query{"stream_mode=values&stream_mode=updates"}.list("stream_mode"), wanted);
    EXPECT_EQ(Query{"stream_mode=%5B%22values%22%2C%22updates%22%5D"}.list("stream_mode"), wanted);
    EXPECT_EQ(Query{"stream_mode=values"}.list("stream_mode"),
              (std::vector<std::string>{"values"}));
    EXPECT_EQ(Query{"stream_mode="}.list("stream_mode"), std::vector<std::string>{});
    EXPECT_EQ(Query{"stream_mode=%5Bbroken"}.list("stream_mode"),
              (std::vector<std::string>{"[broken"}));
}

TEST(Query, NamesTheParameterThatIsWrong) {
    const Query query{"limit=0&wait=maybe&offset=1x&big=99999999999999999999"};
    EXPECT_EQ(query.integer("limit", 10, 1, 1000).error().field, "limit");
    EXPECT_EQ(query.integer("offset", 0, 0, 10).error().field, "offset");
    EXPECT_FALSE(query.integer("big", 0, 0, INT64_MAX).has_value());
    EXPECT_EQ(query.flag("wait", false).error().field, "wait");
    EXPECT_EQ(*query.integer("absent", 7, 1, 9), 7);
    EXPECT_TRUE(*Query{"wait=1"}.flag("wait", false));
    EXPECT_FALSE(*Query{"wait=false"}.flag("wait", true));
}

TEST(Query, IsBoundedHoweverLong) {
    std::string raw;
    for (int i = 0; i < 10'000; ++i) {
        raw += "a=1&";
    }
    EXPECT_LE(Query{raw}.list("a").size(), 256U);
}

TEST(ErrorResponse, HasDetailCodeFieldAndTheStatusOfTheCode) {
    const auto response =
        error_response({base::ErrorCode::invalid_argument, "limit must be \"small\"\n", "limit"});
    EXPECT_EQ(response.status, 422);
    EXPECT_EQ(
        response.body,
        R"({"detail":"limit must be \"small\"\n","code":"invalid_argument","field":"limit"})");
    EXPECT_EQ(error_response({base::ErrorCode::not_found, "x"}).body,
              R"({"detail":"x","code":"not_found"})");
}

TEST(Sse, WritesEventDataAndIdInThatOrder) {
    std::string out;
    append_event(out, "values", R"({"a":1})", "12");
    EXPECT_EQ(out, "event: values\ndata: {\"a\":1}\nid: 12\n\n");
    EXPECT_EQ(kHeartbeat, ": heartbeat\n") << "a blank line after it becomes an event in SDK 2.0.0";
}

}  // namespace
}  // namespace heddle::api
