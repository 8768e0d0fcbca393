#include "engine/api/router.hpp"

#include <gtest/gtest.h>

#include "engine/api/api.hpp"

namespace heddle::api {
namespace {

Route route(std::string_view verb, std::string_view pattern) {
    Route made;
    made.verb = verb;
    made.pattern = pattern;
    return made;
}

const Router& router() {
    static const Router made{{route("GET", "/things/{}"), route("POST", "/things/search"),
                              route("DELETE", "/things/{}"), route("GET", "/things/{}/parts/{}"),
                              route("POST", "/things")}};
    return made;
}

TEST(Router, FindsByMethodAndPath) {
    const auto match = router().find("GET", "/things/7/parts/9");
    ASSERT_NE(match.route, nullptr);
    EXPECT_EQ(match.route->pattern, "/things/{}/parts/{}");
    EXPECT_EQ(match.params, (std::vector<std::string>{"7", "9"}));
    EXPECT_EQ(router().find("HEAD", "/things/7").route->verb, "GET");
    EXPECT_EQ(router().find("POST", "/things/").route->pattern, "/things");
}

TEST(Router, PrefersALiteralSegment) {
    EXPECT_EQ(router().find("POST", "/things/search").route->pattern, "/things/search");
    const auto match = router().find("GET", "/things/search");
    EXPECT_EQ(match.route, nullptr);
    EXPECT_EQ(match.allow, "POST");
}

TEST(Router, ListsTheMethodsThatAPathHas) {
    const auto match = router().find("PATCH", "/things/7");
    EXPECT_EQ(match.route, nullptr);
    EXPECT_EQ(match.allow, "GET, DELETE");
}

TEST(Router, KnowsNothingOfOtherPaths) {
    for (const auto* path : {"", "/", "things", "/thing", "/things//parts/9", "/things/7/parts",
                             "/things/7/parts/9/10", "//things", "/a/b/c/d/e/f/g/h/i/j/k/l"}) {
        const auto match = router().find("GET", path);
        EXPECT_EQ(match.route, nullptr) << path;
        EXPECT_EQ(match.allow, "") << path;
    }
}

}  // namespace
}  // namespace heddle::api
