#include "engine/tools/mcp/settings.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

namespace heddle::tools::mcp {
namespace {

using base::Json;

TEST(McpSettings, ReadsEverySetting) {
    setenv("HEDDLE_TEST_TOKEN", "t0ken", 1);
    const auto read = read_mcp_settings({{"mcp", "http://127.0.0.1:3001/mcp?tenant=a"},
                                         {"headers", {{"Authorization", "env:HEDDLE_TEST_TOKEN"}}},
                                         {"timeout", 2.5},
                                         {"answer_bytes_max", 4096},
                                         {"only", {"a", "b"}},
                                         {"on_unknown", {{"a", "ask"}}}});
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->url, "http://127.0.0.1:3001/mcp?tenant=a");
    EXPECT_EQ(read->host, "127.0.0.1:3001");
    EXPECT_EQ(read->source.headers[0].second, "t0ken");
    EXPECT_EQ(read->source.timeout, std::chrono::milliseconds{2500});
    EXPECT_EQ(read->source.answer_bytes_max, 4096U);
    EXPECT_EQ(read->source.only.size(), 2U);
    EXPECT_EQ(read->source.on_unknown_of.at("a"), OnUnknown::ask);
    const auto plain = read_mcp_settings({{"mcp", "https://host"}}).value();
    EXPECT_EQ(plain.source.timeout, std::chrono::seconds{30});
    EXPECT_EQ(plain.source.answer_bytes_max, 262'144U);
}

TEST(McpSettings, NamesWhatIsWrong) {
    const auto said = [](const Json& settings) {
        const auto read = read_mcp_settings(settings);
        return read ? std::string{"nothing"} : read.error().field + ": " + read.error().message;
    };
    const auto names = [&](const Json& settings, const char* what) {
        EXPECT_NE(said(settings).find(what), std::string::npos) << settings << said(settings);
    };
    names({{"mcp", "http://x"}, {"command", "npx"}}, "command: command: stdio is not supported");
    names({{"mcp", {{"command", "npx"}}}}, "stdio is not supported");
    names({{"mcp", 7}}, "mcp: mcp: expected the URL");
    for (const char* url : {"ftp://x", "x", "http://", "http:///mcp", "https://?x"}) {
        names({{"mcp", url}}, "expected http://HOST/PATH");
    }
    names({{"mcp", "http://me:secret@host/"}}, "no user and password");
    EXPECT_EQ(said({{"mcp", "http://me:secret@host/"}}).find("secret"), std::string::npos);
    names({{"mcp", "http://x/ y"}}, "no blank");
    names({{"mcp", "http://x/#f"}}, "fragment");
    names({{"mcp", "http://x"}, {"colour", 1}}, "colour: colour: unknown setting");
    names({{"mcp", "http://x"}, {"base_url", "y"}}, "base_url");
    names({{"mcp", "http://x"}, {"timeout", 0}}, "timeout");
    names({{"mcp", "http://x"}, {"only", "a"}}, "only");
    names({{"mcp", "http://x"}, {"on_unknown", "shrug"}}, "on_unknown");
    names({{"mcp", "http://x"}, {"headers", {{"X", "env:HEDDLE_NOT_SET"}}}}, "headers.X");
    names({{"mcp", "http://x"}, {"headers", {{"MCP-Session-Id", "1"}}}}, "headers.MCP-Session-Id");
}

}  // namespace
}  // namespace heddle::tools::mcp
