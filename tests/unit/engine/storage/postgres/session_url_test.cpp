#include <gtest/gtest.h>

#include "engine/storage/postgres/connection.hpp"
#include "engine/storage/postgres/hosts.hpp"

namespace heddle::storage::postgres {
namespace {

std::string session_url_of(const std::string& url) {
    return session_url(Endpoint{url, std::chrono::seconds{10}, {}, nullptr});
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

TEST(OneHostEach, LeavesWhatNamesOneHostOrNoneAsItIs) {
    for (const std::string url : {"postgres://u@a:5432/db?application_name=x", "postgres:///db",
                                  "host=/a dbname=db", "no url at all"}) {
        EXPECT_EQ(one_host_each(url), std::vector<std::string>{url});
    }
}

TEST(OneHostEach, KeepsEverythingElse) {
    const auto hosts = one_host_each("postgres://u:it%27s@a:5432,b:5433/db?application_name=x");
    ASSERT_EQ(hosts.size(), 2U);
    for (const auto& host : hosts) {
        EXPECT_TRUE(contains(host, "user='u'")) << host;
        EXPECT_TRUE(contains(host, "password='it\\'s'")) << host;
        EXPECT_TRUE(contains(host, "dbname='db'")) << host;
        EXPECT_TRUE(contains(host, "application_name='x'")) << host;
    }
    EXPECT_TRUE(contains(hosts[0], "host='a'") && contains(hosts[0], "port='5432'")) << hosts[0];
    EXPECT_TRUE(contains(hosts[1], "host='b'") && contains(hosts[1], "port='5433'")) << hosts[1];
}

TEST(OneHostEach, KnowsHostsOfTheQueryAndOnePortForAll) {
    const auto hosts = one_host_each("postgres://u@/db?host=%2Fa%2C%2Fb&port=5433");
    ASSERT_EQ(hosts.size(), 2U);
    EXPECT_TRUE(contains(hosts[0], "host='/a'") && contains(hosts[0], "port='5433'")) << hosts[0];
    EXPECT_TRUE(contains(hosts[1], "host='/b'") && contains(hosts[1], "port='5433'")) << hosts[1];
}

}  // namespace
}  // namespace heddle::storage::postgres
