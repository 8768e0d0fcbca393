#include "engine/models/openai/openai.hpp"

#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/unit/engine/net/on_shard.hpp"
#include "tests/unit/engine/net/server_process.hpp"

namespace heddle::models {
namespace {

using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;
using namespace std::chrono_literals;

class OpenAiTest : public ::testing::Test {
protected:
    OpenAiTest() { setenv("HEDDLE_TEST_KEY", "sk-secret", 1); }

    Result<std::shared_ptr<ChatModel>> make(const std::string& model,
                                            Json settings = Json::object()) {
        settings["model"] = model;
        if (!settings.contains("base_url")) {
            settings["base_url"] = server_.url() + "/v1";
        }
        settings["api_key_env"] = "HEDDLE_TEST_KEY";
        return make_openai_model(client_, retries_, metrics_, settings);
    }
    Result<ChatReply> call(const std::string& model,
                           const std::string& text,
                           Json settings = Json::object()) {
        auto made = make(model, std::move(settings)).value();
        chunks_.clear();
        base::CancelSource cancel;
        return test::run_on(shard_, [&]() -> Task<Result<ChatReply>> {
            ChatRequest request;
            request.messages = Json::array({{{"type", "human"}, {"content", text}}});
            request.tools = tools_;
            request.stream = stream_;
            request.deadline = base::system_clock().now() + 20s;
            OnChunk on_chunk = [&](Json chunk) { chunks_.push_back(std::move(chunk)); };
            co_return co_await made->call(std::move(request), std::move(on_chunk), cancel);
        });
    }
    Json server_says(const std::string& path) {
        base::CancelSource cancel;
        auto response = test::run_on(shard_, [&]() -> Task<Result<net::HttpResponse>> {
            net::HttpRequest request;
            request.url = server_.url() + path;
            request.deadline = base::system_clock().now() + 20s;
            co_return co_await client_.send(std::move(request), {}, cancel);
        });
        return base::parse_json(response->body, path).value();
    }

    test::ServerProcess server_{"tests/support/model_server.py"};
    base::Shard shard_{0, 1024};
    net::HttpClient client_;
    RetryBudget retries_;
    observe::Metrics metrics_;
    bool stream_ = true;
    Json tools_ = Json::array();
    std::vector<Json> chunks_;
};

TEST_F(OpenAiTest, StreamsAnAnswerWithExactUsage) {
    const auto reply = call("test", "Hola, quiero agendar una cita", {{"temperature", 0}});
    ASSERT_TRUE(reply) << reply.error().message;
    const std::string text =
        "Con gusto. \u00bfQu\u00e9 servicio desea y cu\u00e1ndo? [turn 1: \"Hola, quiero agendar "
        "una cita\"]";
    EXPECT_EQ(reply->message["content"], text);
    EXPECT_EQ(reply->usage.input_tokens, 8);
    EXPECT_EQ(reply->usage.output_tokens, 21);
    EXPECT_EQ(reply->message["usage_metadata"]["total_tokens"], 29);
    EXPECT_EQ(reply->message["response_metadata"]["finish_reason"], "stop");
    EXPECT_EQ(reply->message["response_metadata"]["model_name"], "test");
    std::string joined;
    for (const auto& chunk : chunks_) {
        EXPECT_EQ(chunk["type"], "AIMessageChunk");
        EXPECT_EQ(chunk["id"], reply->message["id"]);
        joined += chunk["content"].get<std::string>();
    }
    EXPECT_EQ(joined, text);
    EXPECT_GT(chunks_.size(), 5U);
    EXPECT_EQ(chunks_.back()["usage_metadata"]["input_tokens"], 8);

    stream_ = false;
    const auto whole = call("test", "Hola, quiero agendar una cita");
    ASSERT_TRUE(whole);
    EXPECT_EQ(whole->message["content"], text);
    EXPECT_EQ(whole->usage.output_tokens, 21);
    EXPECT_TRUE(chunks_.empty());
    const auto seen = server_says("/requests");
    EXPECT_EQ(seen[0]["authorization"], "Bearer sk-secret");
    EXPECT_EQ(seen[0]["body"]["temperature"], 0);
    EXPECT_EQ(seen[0]["body"]["stream_options"]["include_usage"], true);
    EXPECT_FALSE(seen[1]["body"].contains("stream"));
    EXPECT_EQ(metrics_.model_calls_total, 2);
}

TEST_F(OpenAiTest, AssemblesToolCallsFromPieces) {
    tools_ = Json::array(
        {{{"name", "get_hours"}, {"description", "d"}, {"parameters", Json::object()}}});
    const std::string wanted =
        R"(calls [{"name":"get_hours","args":{"day":"Monday and \"more\""}},{"name":"list_services","args":{}}])";
    for (const bool stream : {true, false}) {
        stream_ = stream;
        const auto reply = call("test", wanted);
        ASSERT_TRUE(reply) << reply.error().message;
        const auto& calls = reply->message["tool_calls"];
        ASSERT_EQ(calls.size(), 2U);
        EXPECT_EQ(calls[0]["name"], "get_hours");
        EXPECT_EQ(calls[0]["args"], (Json{{"day", "Monday and \"more\""}}));
        EXPECT_EQ(calls[0]["type"], "tool_call");
        EXPECT_EQ(calls[1]["name"], "list_services");
        EXPECT_NE(calls[0]["id"], calls[1]["id"]);
        EXPECT_EQ(reply->message["response_metadata"]["finish_reason"], "tool_calls");
    }
    EXPECT_EQ(server_says("/requests")[0]["body"]["tools"][0]["function"]["name"], "get_hours");
}

TEST_F(OpenAiTest, BrokenArgumentsAreAnInvalidToolCall) {
    for (const bool stream : {true, false}) {
        stream_ = stream;
        const auto reply = call("fault-args", "x");
        ASSERT_TRUE(reply) << reply.error().message;
        EXPECT_TRUE(reply->message["tool_calls"].empty());
        ASSERT_EQ(reply->message["invalid_tool_calls"].size(), 1U);
        EXPECT_EQ(reply->message["invalid_tool_calls"][0]["args"], "{\"day\": ");
    }
}

TEST_F(OpenAiTest, RepeatsWhatMayPass) {
    for (const char* model : {"fault-500-1", "fault-503-2", "fault-408-1"}) {
        for (const bool stream : {true, false}) {
            stream_ = stream;
            const auto reply = call(std::string{model} + (stream ? "-s" : "-w"), "hello");
            ASSERT_TRUE(reply) << model << ": " << reply.error().message;
        }
    }
    EXPECT_EQ(metrics_.model_retries_total, 8);
    ASSERT_TRUE(
        call("fault-reset-1", "hello"));  // by libcurl itself if the connection was a kept one
    stream_ = true;
    const auto begun = base::system_clock().now();
    ASSERT_TRUE(call("fault-429-1", "hello"));
    EXPECT_GE(base::system_clock().now() - begun, 1s);  // Retry-After
}

TEST_F(OpenAiTest, AStreamThatBreaksBeginsAgainUnderANewId) {
    const auto reply = call("fault-cut-1", "hello");
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->message["content"], "Understood. [turn 1: \"hello\"]");
    EXPECT_NE(chunks_.front()["id"], reply->message["id"]);
    EXPECT_EQ(chunks_.back()["id"], reply->message["id"]);
}

TEST_F(OpenAiTest, GivesUpWithinItsBounds) {
    auto reply = call("fault-500-99", "hello", {{"retries_max", 1}});
    EXPECT_EQ(reply.error().code, ErrorCode::unavailable);
    EXPECT_NE(reply.error().message.find("500"), std::string::npos);
    EXPECT_EQ(server_says("/stats")["faults"], 2);
    // A Retry-After past the deadline is not waited for.
    const auto begun = base::system_clock().now();
    reply = call("fault-429-99-after-60", "hello", {{"timeout", 30}});
    EXPECT_EQ(reply.error().code, ErrorCode::unavailable);
    EXPECT_LT(base::system_clock().now() - begun, 20s);
    while (retries_.try_retry()) {
    }
    const auto before = metrics_.model_retries_total.load();
    EXPECT_FALSE(call("fault-500-98", "hello"));
    EXPECT_EQ(metrics_.model_retries_total - before, 0);
    reply = call("m", "hello", {{"base_url", "http://127.0.0.1:1"}, {"retries_max", 0}});
    EXPECT_EQ(reply.error().code, ErrorCode::unavailable);
}

TEST_F(OpenAiTest, RefusesNonsenseAsModelError) {
    for (const char* model : {"fault-400", "fault-html", "fault-garbage", "fault-types",
                              "fault-nochoice", "fault-endless", "fault-huge"}) {
        for (const bool stream : {true, false}) {
            if (!stream && (model == std::string{"fault-endless"})) {
                continue;
            }
            stream_ = stream;
            const auto reply = call(model, "hello", {{"answer_bytes_max", 4 << 20}});
            ASSERT_FALSE(reply) << model;
            EXPECT_EQ(reply.error().code, ErrorCode::model_error)
                << model << ' ' << stream << ": " << reply.error().message;
            EXPECT_LT(reply.error().message.size(), 1000U);
        }
    }
    EXPECT_EQ(metrics_.model_retries_total, 0);
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    RecordProperty("peak_kb", static_cast<int>(used.ru_maxrss));
}

TEST_F(OpenAiTest, AFailureInMidStreamIsRepeatedAndThenReported) {
    const auto reply = call("fault-midstream", "hello", {{"retries_max", 1}});
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, ErrorCode::unavailable);
    EXPECT_NE(reply.error().message.find("overloaded"), std::string::npos);
    EXPECT_EQ(metrics_.model_retries_total, 1);
}

TEST_F(OpenAiTest, AStreamWithoutDoneIsCompleteByItsReason) {
    EXPECT_TRUE(call("fault-nodone", "hello"));
}

TEST_F(OpenAiTest, KeepsItsDeadline) {
    for (const char* model : {"fault-never", "fault-stall"}) {
        const auto begun = base::system_clock().now();
        const auto reply = call(model, "hello", {{"timeout", 0.2}});
        ASSERT_FALSE(reply);
        EXPECT_EQ(reply.error().code, ErrorCode::timeout) << reply.error().message;
        EXPECT_LT(base::system_clock().now() - begun, 15s);
    }
    const auto idle = call("fault-stall", "hello", {{"idle_timeout", 0.1}, {"retries_max", 1}});
    EXPECT_EQ(idle.error().code, ErrorCode::timeout);
    EXPECT_EQ(metrics_.model_retries_total, 1);
}

TEST_F(OpenAiTest, CancelEndsACallAtOnce) {
    auto model = make("fault-never").value();
    base::CancelSource cancel;
    shard_.spawn([](base::CancelSource& source) -> Task<> {
        co_await base::wait_for(50ms);
        source.cancel({ErrorCode::interrupted, "stop"});
    }(cancel));
    const auto begun = base::system_clock().now();
    const auto reply = test::run_on(shard_, [&]() -> Task<Result<ChatReply>> {
        ChatRequest request;
        request.messages = Json::array({{{"type", "human"}, {"content", "x"}}});
        request.deadline = begun + 20s;
        request.stream = true;
        co_return co_await model->call(std::move(request), {}, cancel);
    });
    EXPECT_EQ(reply.error().code, ErrorCode::interrupted);
    EXPECT_LT(base::system_clock().now() - begun, 15s);
}

TEST_F(OpenAiTest, NeverShowsTheKey) {
    setenv("HEDDLE_TEST_KEY", "fault", 1);  // the server's message quotes this word
    stream_ = false;
    const auto reply = call("fault-400", "hello");
    EXPECT_EQ(reply.error().message.find("fault"), std::string::npos) << reply.error().message;
}

TEST_F(OpenAiTest, NamesABadSetting) {
    const std::vector<std::pair<Json, std::string>> cases{
        {{{"temperature", 3}}, "temperature"},
        {{{"temperature", "hot"}}, "temperature"},
        {{{"max_tokens", 1.5}}, "max_tokens"},
        {{{"max_tokens", 0}}, "max_tokens"},
        {{{"timeout", -1}}, "timeout"},
        {{{"colour", 1}}, "colour"},
        {{{"base_url", "file:///x"}}, "base_url"},
        {{{"extra", {{"stream", true}}}}, "extra.stream"},
        {{{"extra", 1}}, "extra"},
        {{{"retries_max", 11}}, "retries_max"},
    };
    for (const auto& [settings, field] : cases) {
        const auto made = make("m", settings);
        ASSERT_FALSE(made) << settings;
        EXPECT_EQ(made.error().code, ErrorCode::invalid_argument);
        EXPECT_EQ(made.error().field, field);
    }
    EXPECT_EQ(make("").error().field, "model");
    EXPECT_TRUE(make("m", {{"extra", {{"reasoning_effort", "low"}}}}));
}

}  // namespace
}  // namespace heddle::models
