#include "engine/tools/mcp/server.hpp"

#include <array>
#include <set>

#include <gtest/gtest.h>

#include "engine/tools/mcp/mcp_tools.hpp"
#include "tests/unit/engine/net/on_shard.hpp"
#include "tests/unit/engine/net/server_process.hpp"

/// Against tests/support/mcp_stub.py, whose modes are what a server may do wrong.
namespace heddle::tools::mcp {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;
using namespace std::chrono_literals;
using Tools = std::shared_ptr<const ToolSet>;
using Source = std::shared_ptr<ToolSource>;

class McpTest : public ::testing::Test {
protected:
    Source make(const std::string& mode, Json settings = Json::object()) {
        settings["mcp"] = server_.url() + "/mcp/" + mode;
        return make_mcp_source(client_, metrics_, settings).value();
    }
    auto start_load(const Source& source, std::size_t shard = 0, base::Duration patience = 20s) {
        return test::start_on(shards_.at(shard), [=]() -> Task<Result<Tools>> {
            base::CancelSource cancel;
            co_return co_await source->load(base::system_clock().now() + patience, cancel);
        });
    }
    Result<Tools> load(const Source& source, base::Duration patience = 20s) {
        return start_load(source, 0, patience).get();
    }
    Result<ToolAnswer> call(const Source& source,
                            const std::string& name,
                            const Json& args = Json::object(),
                            base::Duration patience = 20s) {
        const auto tools = load(source).value();
        for (const auto& tool : *tools) {
            if (tool->spec().name == name) {
                return test::run_on(shards_.at(1), [&]() -> Task<Result<ToolAnswer>> {
                    base::CancelSource cancel;
                    ToolCall asked;
                    asked.args = args;
                    asked.deadline = base::system_clock().now() + patience;
                    asked.idempotency_key = "key";
                    co_return co_await tool->call(std::move(asked), cancel);
                });
            }
        }
        throw std::runtime_error{"no tool " + name};
    }
    Json http(const std::string& method, const std::string& path) {
        net::HttpRequest request;
        request.method = method;
        request.url = server_.url() + path;
        request.deadline = base::system_clock().now() + 20s;
        const auto response = test::run_on(shards_.at(0), [&]() -> Task<Result<net::HttpResponse>> {
            base::CancelSource cancel;
            co_return co_await client_.send(request, {}, cancel);
        });
        return Json::parse(response.value().body);
    }
    int seen(const std::string& method) { return http("GET", "/seen").value(method, 0); }
    static std::vector<std::string> names(const Result<Tools>& tools) {
        std::vector<std::string> found;
        for (const auto& tool : **tools) {
            found.push_back(tool->spec().name);
        }
        return found;
    }

    test::ServerProcess server_{"tests/support/mcp_stub.py"};
    net::HttpClient client_;
    observe::Metrics metrics_;
    base::ShardPool shards_{4, 64};
};

TEST_F(McpTest, NothingIsSentBeforeTheFirstUseAndOneSessionServesAllShards) {
    const auto source = make("slow");
    EXPECT_EQ(source->known(), nullptr);
    EXPECT_EQ(seen("initialize"), 0);
    std::vector<std::future<Result<Tools>>> loading;
    for (std::size_t i = 0; i < 64; ++i) {
        loading.push_back(start_load(source, i % shards_.size()));
    }
    std::set<const ToolSet*> sets;
    for (auto& each : loading) {
        const auto tools = each.get();
        ASSERT_TRUE(tools) << tools.error().message;
        sets.insert(tools->get());
        EXPECT_EQ(names(tools), (std::vector<std::string>{"act", "look"}));
    }
    EXPECT_EQ(sets.size(), 1U);
    EXPECT_EQ(seen("initialize"), 1);
    EXPECT_EQ(seen("notifications/initialized"), 1);
    EXPECT_EQ(seen("tools/list"), 1);
}

TEST_F(McpTest, ACallCarriesTheKeyTheSessionAndTheVersion) {
    setenv("HEDDLE_TEST_TOKEN", "t0ken", 1);
    for (const std::string mode : {"plain", "json"}) {
        const auto source = make(mode, {{"headers", {{"X-Token", "env:HEDDLE_TEST_TOKEN"}}}});
        const auto answer = call(source, "act", {{"n", 1}, {"more", {{"x", {1}}}}});
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_FALSE(answer->is_error);
        const auto told = Json::parse(answer->content);
        EXPECT_EQ(told["params"]["_meta"], (Json{{"heddle/idempotency-key", "key"}})) << mode;
        EXPECT_EQ(told["params"]["arguments"], (Json{{"n", 1}, {"more", {{"x", {1}}}}}));
        EXPECT_EQ(told["headers"]["mcp-protocol-version"], "2025-06-18");
        EXPECT_TRUE(told["headers"]["mcp-session-id"].get<std::string>().starts_with("session-"));
        EXPECT_EQ(told["headers"]["accept"], "application/json, text/event-stream");
        EXPECT_EQ(told["headers"]["x-token"], "t0ken");
        const auto looked = Json::parse(call(source, "look")->content);
        EXPECT_FALSE(looked["params"].contains("_meta")) << "what only reads has no key";
    }
    EXPECT_EQ(metrics_.tool_calls_total, 4);
    EXPECT_EQ(call(make("nosession"), "act")->is_error, false);
}

TEST_F(McpTest, ArgumentsAreCheckedAsFarAsTheSchemaIsUnderstood) {
    const auto source = make("plain");
    EXPECT_EQ(call(source, "act", {{"n", "one"}}).error().field, "n");
    EXPECT_EQ(call(source, "look", {{"n", 1}}).error().field, "n") << "additionalProperties: false";
    EXPECT_EQ(call(source, "act", Json::array()).error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(seen("tools/call"), 0);
    EXPECT_TRUE(call(source, "act", {{"m", 1}})) << "anyOf may allow it";
}

TEST_F(McpTest, AStreamThatStaysOpenHoldsNobodyUp) {
    const auto answer = call(make("open"), "act", Json::object(), 10s);
    ASSERT_TRUE(answer) << answer.error().message;
    // A request later the connection that was given up is closed for sure.
    EXPECT_EQ(seen("tools/call"), 1);
    EXPECT_EQ(client_.open_transfers(), 0U);
}

TEST_F(McpTest, ASessionThatIsUnknownIsMadeAnewOnce) {
    const auto source = make("plain");
    ASSERT_TRUE(call(source, "act"));
    http("POST", "/forget");
    const auto answer = call(source, "act");
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(seen("initialize"), 2);
    EXPECT_EQ(http("GET", "/seen")["sessions"], (Json{"session-1", "session-1", "session-2"}));

    const auto gone = call(make("gone"), "act");
    EXPECT_EQ(gone.error().code, ErrorCode::tool_error);
    EXPECT_NE(gone.error().message.find("HTTP status 404"), std::string::npos);
    EXPECT_EQ(seen("tools/call"), 5) << "once more, and no more";
}

TEST_F(McpTest, ACallWhoseOutcomeIsNotKnownIsNotMadeAgain) {
    for (const std::string mode : {"hangup", "status", "garbage", "error"}) {
        const auto before = seen("tools/call");
        const auto answer = call(make(mode), "act");
        ASSERT_FALSE(answer) << mode;
        EXPECT_EQ(answer.error().code,
                  mode == "hangup" ? ErrorCode::in_doubt : ErrorCode::tool_error)
            << mode;
        EXPECT_TRUE(answer.error().message.starts_with("act")) << answer.error().message;
        EXPECT_EQ(seen("tools/call"), before + 1) << mode;
    }
    EXPECT_EQ(call(make("huge"), "act").error().code, ErrorCode::tool_error);
    const auto refused = call(make("invalid"), "act");
    ASSERT_TRUE(refused) << refused.error().message;
    EXPECT_TRUE(refused->is_error);
    EXPECT_EQ(refused->content, "not today");
}

TEST_F(McpTest, TheListIsAskedForAgainWhenItChanged) {
    const auto source = make("changing");
    EXPECT_EQ(names(load(source)).size(), 2U);
    ASSERT_TRUE(call(source, "act"));
    EXPECT_EQ(names(load(source)), (std::vector<std::string>{"act", "look", "extra_0"}));
    EXPECT_EQ(names(load(source)).size(), 3U);
    EXPECT_EQ(seen("tools/list"), 2);
    EXPECT_EQ(seen("initialize"), 1);
}

TEST_F(McpTest, TakesTheToolsThatAreChosenWithTheirPolicies) {
    EXPECT_EQ(names(load(make("paged"))), (std::vector<std::string>{"act", "look"}));
    EXPECT_EQ(names(load(make("bad"))), (std::vector<std::string>{"act", "look"}));
    EXPECT_EQ(names(load(make("many", {{"only", {"look"}}}))), std::vector<std::string>{"look"});
    const auto policies = [&](const Json& settings) {
        const auto tools = load(make("plain", settings)).value();
        const auto& act = tools->at(0)->spec();
        const auto& look = tools->at(1)->spec();
        return std::array{std::pair{act.recorded, act.on_unknown},
                          std::pair{look.recorded, look.on_unknown}};
    };
    const auto plain = policies(Json::object());
    EXPECT_EQ(plain[0], std::pair(true, OnUnknown::fail));
    EXPECT_FALSE(plain[1].first);
    const auto all = policies({{"on_unknown", "retry"}});
    EXPECT_EQ(all[0], std::pair(true, OnUnknown::retry));
    EXPECT_FALSE(all[1].first);
    const auto each = policies({{"on_unknown", {{"look", "ask"}}}});
    EXPECT_EQ(each[0], std::pair(true, OnUnknown::fail));
    EXPECT_EQ(each[1], std::pair(true, OnUnknown::ask));
}

TEST_F(McpTest, SaysWhatIsWrongWithAServer) {
    const auto said = [&](const std::string& mode, Json settings = Json::object()) {
        const auto tools = load(make(mode, std::move(settings)));
        return tools ? std::string{"nothing"} : tools.error().message;
    };
    const auto names_it = [&](const std::string& text, const char* what) {
        EXPECT_NE(text.find(what), std::string::npos) << text;
        EXPECT_TRUE(text.starts_with("MCP server 127.0.0.1:")) << text;
    };
    names_it(said("old"), "expected 2025-06-18");
    names_it(said("many"), "more than 512 tools");
    names_it(said("endless"), "more than 32 pages");
    names_it(said("refuse"), "HTTP status 503");
    names_it(said("plain", {{"only", {"zz"}}}), "no tool \"zz\", which \"only\" names");
    names_it(said("plain", {{"on_unknown", {{"zz", "ask"}}}}), "which \"on_unknown\" names");
    const auto nobody =
        make_mcp_source(client_, metrics_, {{"mcp", "http://127.0.0.1:1/mcp"}}).value();
    EXPECT_EQ(load(nobody).error().code, ErrorCode::unavailable);
    EXPECT_EQ(load(make("slow"), 50ms).error().code, ErrorCode::timeout);
}

TEST_F(McpTest, AFailedOpeningIsTheFailureOfAllWhoWaitedForIt) {
    const auto source = make("slow-refuse");
    std::vector<std::future<Result<Tools>>> loading;
    for (std::size_t i = 0; i < 16; ++i) {
        loading.push_back(start_load(source, i % shards_.size()));
    }
    for (auto& each : loading) {
        EXPECT_EQ(each.get().error().code, ErrorCode::tool_error);
    }
    EXPECT_LE(seen("initialize"), 4) << "not each of them asks";
}

TEST_F(McpTest, WhoGivesUpLeavesTheOpeningToTheNext) {
    const auto source = make("slower");
    const auto cancel = std::make_shared<base::CancelSource>();
    const auto begun = std::make_shared<std::promise<void>>();
    auto first = test::start_on(shards_.at(0), [=]() -> Task<Result<Tools>> {
        begun->set_value();
        co_return co_await source->load(base::system_clock().now() + 20s, *cancel);
    });
    begun->get_future().wait();
    auto second = start_load(source, 1);
    auto impatient = start_load(source, 2, 20ms);
    EXPECT_EQ(impatient.get().error().code, ErrorCode::timeout) << "its own deadline";
    shards_.at(0).post([cancel] { cancel->cancel({ErrorCode::interrupted, "stop"}); });
    EXPECT_EQ(first.get().error().code, ErrorCode::interrupted);
    EXPECT_TRUE(second.get());
}

}  // namespace
}  // namespace heddle::tools::mcp
