#include <gtest/gtest.h>

#include "engine/storage/postgres/connection.hpp"

namespace heddle::storage::postgres {
namespace {

std::string session_url_of(const std::string& url) {
    return session_url(Endpoint{url, std::chrono::seconds{10}, {}, nullptr, nullptr});
}
bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST(SessionUrl, KeepsEveryHostAsItIsWritten) {
    const std::string url = "postgres://u@a:5432,b:5433/db?target_session_attrs=primary";
    const auto session = session_url_of(url);
    EXPECT_EQ(session.substr(0, url.size()), url);
    EXPECT_FALSE(contains(session, "read-write")) << "what the URL says stays";
}

TEST(SessionUrl, MeansTheServerThatTakesWrites) {
    EXPECT_TRUE(contains(session_url_of("postgres://u@a/db"), "?connect_timeout="));
    EXPECT_TRUE(contains(session_url_of("postgres://u@a/db"), "&target_session_attrs=read-write"));
}

TEST(SessionUrl, WaitsShortlyForEachOfSeveralHosts) {
    EXPECT_TRUE(contains(session_url_of("postgres://u@a/db"), "connect_timeout=5&"));
    EXPECT_TRUE(contains(session_url_of("postgres://u@a,b/db"), "connect_timeout=2&"));
    EXPECT_TRUE(
        contains(session_url_of("postgres://u@/db?host=%2Fa%2C%2Fb"), "connect_timeout=2&"));
}

}  // namespace
}  // namespace heddle::storage::postgres
