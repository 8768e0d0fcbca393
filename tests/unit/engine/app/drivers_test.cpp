#include "engine/app/drivers.hpp"

#include <gtest/gtest.h>

namespace heddle::app {
namespace {

TEST(OpenStore, NamesTheKindsThereAreAndShowsNoPassword) {
    observe::Metrics metrics;
    for (const auto* url : {"", "mysql://me:secret@host/db", "/path/file.db", "memory"}) {
        const auto store = open_store(url, storage::StoreLimits{}, metrics);
        ASSERT_FALSE(store.has_value()) << url;
        EXPECT_EQ(store.error().code, base::ErrorCode::invalid_argument);
        EXPECT_NE(store.error().message.find("sqlite:/path/file.db"), std::string::npos);
        EXPECT_EQ(store.error().message.find("secret"), std::string::npos);
    }
}

TEST(OpenStore, OpensMemoryAndSaysWhyAFileCannotBe) {
    observe::Metrics metrics;
    const auto memory = open_store("memory:", storage::StoreLimits{}, metrics);
    ASSERT_TRUE(memory.has_value());
    EXPECT_EQ((*memory)->name(), "memory");
    const auto file =
        open_store("sqlite:/nowhere/at/all/heddle.db", storage::StoreLimits{}, metrics);
    ASSERT_FALSE(file.has_value());
    EXPECT_NE(file.error().message.find("/nowhere/at/all"), std::string::npos)
        << file.error().message;
}

TEST(OpenStore, ShowsTheServerItCannotReachWithoutThePassword) {
    observe::Metrics metrics;
    for (const auto* url : {"postgres://me:secret@127.0.0.1:1/db?connect_timeout=2",
                            "postgres://127.0.0.1:1/db?user=me&password=secret"}) {
        const auto store = open_store(url, storage::StoreLimits{}, metrics);
        ASSERT_FALSE(store.has_value());
        EXPECT_NE(store.error().message.find("postgres://127.0.0.1:1/db"), std::string::npos)
            << store.error().message;
        EXPECT_EQ(store.error().message.find("secret"), std::string::npos);
    }
}

TEST(MakeFactories, HasEveryDriver) {
    observe::Metrics metrics;
    models::RetryBudget retries;
    net::HttpClient http;
    const auto factories = make_factories(http, retries, metrics);
    EXPECT_TRUE(factories.models.contains("openai"));
    EXPECT_TRUE(factories.models.contains("scripted"));
    EXPECT_TRUE(factories.tools.contains("http"));
    EXPECT_TRUE(factories.tools.contains("mcp"));
    EXPECT_TRUE(factories.models.contains(factories.auto_provider)) << factories.auto_provider;
}

}  // namespace
}  // namespace heddle::app
