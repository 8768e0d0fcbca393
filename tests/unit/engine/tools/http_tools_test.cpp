#include "engine/tools/http/http_tools.hpp"

#include <cstdlib>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/unit/engine/net/on_shard.hpp"
#include "tests/unit/engine/net/server_process.hpp"

namespace heddle::tools {
namespace {

using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;
using namespace std::chrono_literals;

class ToolsTest : public ::testing::Test {
protected:
    Result<ToolAnswer> call(const ToolSet& tools,
                            const std::string& name,
                            const Json& args,
                            const std::string& key = "key",
                            base::Duration patience = 20s) {
        for (const auto& tool : tools) {
            if (tool->spec().name != name) {
                continue;
            }
            return test::run_on(shard_, [&]() -> Task<Result<ToolAnswer>> {
                ToolCall asked;
                asked.args = args;
                asked.deadline = base::system_clock().now() + patience;
                asked.idempotency_key = key;
                co_return co_await tool->call(std::move(asked), cancel_);
            });
        }
        throw std::runtime_error{"no tool " + name};
    }
    static Json json_of(const Result<ToolAnswer>& answer) {
        return base::parse_json(answer.value().content, "answer").value();
    }

    base::Shard shard_{0, 64};
    net::HttpClient client_;
    observe::Metrics metrics_;
    base::CancelSource cancel_;
};

class ClinicTest : public ToolsTest {
protected:
    ClinicTest() {
        const Json settings{{"http", "clinic.openapi.yaml"}, {"base_url", server_.url()}};
        tools_ = make_http_tools(client_, metrics_, settings,
                                 std::string{HEDDLE_SOURCE_DIR} + "/agents/appointment")
                     .value();
    }
    static Json booking(const std::string& time = "10:00") {
        return {{"service", "dental"},
                {"date", "2026-11-23"},
                {"time", time},
                {"patient_name", "Ana N\u00fa\u00f1ez"}};
    }
    test::ServerProcess server_{"agents/appointment/clinic/server.py", {"--today", "2026-11-21"}};
    ToolSet tools_;
};

TEST_F(ClinicTest, DescribesEveryOperation) {
    std::vector<std::string> names;
    for (const auto& tool : tools_) {
        names.push_back(tool->spec().name);
    }
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names, (std::vector<std::string>{"book_appointment", "cancel_appointment",
                                               "find_appointment", "get_hours", "list_free_slots",
                                               "list_services", "reschedule_appointment"}));
    const auto& move = *std::find_if(tools_.begin(), tools_.end(), [](const auto& tool) {
        return tool->spec().name == "reschedule_appointment";
    });
    EXPECT_EQ(move->spec().parameters["required"], (Json{"confirmation_number", "date", "time"}));
    EXPECT_EQ(move->spec().parameters["properties"]["date"]["format"], "date");  // a resolved $ref
    EXPECT_FALSE(move->spec().description.empty());
}

TEST_F(ClinicTest, BooksFindsMovesAndCancels) {
    const auto services = json_of(call(tools_, "list_services", {{"language", "es"}}));
    EXPECT_EQ(services["services"][0]["name"], "Consulta general");
    const auto slots = json_of(call(tools_, "list_free_slots", Json::object()));
    EXPECT_EQ(slots["slots"][0]["date"], "2026-11-23");
    EXPECT_EQ(json_of(call(tools_, "get_hours", Json::object()))["opens"]["Sunday"], "closed");

    const auto booked = json_of(call(tools_, "book_appointment", booking(), "b1"));
    EXPECT_EQ(booked["patient_name"], "Ana N\u00fa\u00f1ez");
    const Json number{{"confirmation_number", booked["confirmation_number"]}};
    EXPECT_EQ(json_of(call(tools_, "find_appointment", number))["status"], "booked");
    auto moved = number;
    moved.update({{"date", "2026-11-23"}, {"time", "15:00"}});
    EXPECT_EQ(json_of(call(tools_, "reschedule_appointment", moved, "m1"))["time"], "15:00");
    EXPECT_EQ(json_of(call(tools_, "cancel_appointment", number, "c1"))["status"], "cancelled");

    const auto taken =
        call(tools_, "cancel_appointment", {{"confirmation_number", "NONE99"}}, "c2");
    ASSERT_TRUE(taken);
    EXPECT_TRUE(taken->is_error);
    EXPECT_EQ(json_of(taken)["error"]["code"], "not_found");
    EXPECT_EQ(metrics_.tool_calls_total, 8);
}

TEST_F(ClinicTest, ARepeatedCallBooksOnce) {
    const auto first = json_of(call(tools_, "book_appointment", booking(), "same"));
    EXPECT_EQ(json_of(call(tools_, "book_appointment", booking(), "same")), first);
    const auto other = call(tools_, "book_appointment", booking(), "other");
    EXPECT_TRUE(other->is_error);
    EXPECT_EQ(json_of(other)["error"]["code"], "slot_taken");
}

TEST_F(ClinicTest, RefusesArgumentsBeforeAnythingIsSent) {
    auto args = booking();
    args["date"] = "someday";
    EXPECT_EQ(call(tools_, "book_appointment", args).error().field, "date");
    args = booking();
    args["service"] = "surgery";
    EXPECT_EQ(call(tools_, "book_appointment", args).error().field, "service");
    args = booking();
    args["admin"] = true;
    EXPECT_EQ(call(tools_, "book_appointment", args).error().field, "admin");
    EXPECT_EQ(call(tools_, "find_appointment", Json::object()).error().field,
              "confirmation_number");
    EXPECT_EQ(call(tools_, "find_appointment", "text").error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(metrics_.tool_calls_total, 0);
}

class EchoTest : public ToolsTest {
protected:
    EchoTest() {
        directory_ = std::filesystem::path{::testing::TempDir()} /
                     ("heddle-tools-" + std::to_string(getpid()));
        std::filesystem::create_directories(directory_);
    }
    ~EchoTest() override { std::filesystem::remove_all(directory_); }

    Result<ToolSet> make(const std::string& paths, Json settings = Json::object()) {
        std::ofstream{directory_ / "api.yaml"} << "openapi: 3.1.0\npaths:\n" + paths;
        settings["http"] = "api.yaml";
        if (!settings.contains("base_url")) {
            settings["base_url"] = server_.url() + "/http";
        }
        return make_http_tools(client_, metrics_, settings, directory_);
    }

    test::ServerProcess server_{"tests/support/model_server.py"};
    std::filesystem::path directory_;
};

constexpr const char* kEcho = R"(
  /echo/{part}/end:
    parameters: [{name: part, in: path, required: true, schema: {type: string}}]
    put:
      operationId: echo
      parameters:
        - {name: q, in: query, schema: {type: array, items: {type: string}}}
        - {name: X-Note, in: header, schema: {type: string}}
      requestBody:
        content: {application/json: {schema: {type: object, properties: {b: {type: integer}}}}}
  /status/503: {get: {operationId: broken}, post: {operationId: broken_post}}
  /silent: {get: {operationId: silent}}
  /bytes/5000: {get: {operationId: large}}
  /redirect: {get: {operationId: elsewhere}}
)";

TEST_F(EchoTest, PutsEveryArgumentWhereItBelongs) {
    setenv("HEDDLE_TEST_TOKEN", "t0ken", 1);
    const auto tools = make(kEcho, {{"headers", {{"X-Token", "env:HEDDLE_TEST_TOKEN"}}}}).value();
    const Json args{{"part", "a b/c"}, {"q", {"1&2", "\u00e9"}}, {"X-Note", "n"}, {"b", 7}};
    const auto echo = json_of(call(tools, "echo", args, "k1"));
    EXPECT_EQ(echo["method"], "PUT");
    EXPECT_EQ(echo["path"], "/http/echo/a%20b%2Fc/end?q=1%262&q=%C3%A9");
    EXPECT_EQ(echo["body"], "{\"b\":7}");
    EXPECT_EQ(echo["headers"]["X-Note"], "n");
    EXPECT_EQ(echo["headers"]["X-Token"], "t0ken");
    EXPECT_EQ(echo["headers"]["idempotency-key"], "k1");
}

TEST_F(EchoTest, NoArgumentLeavesItsPlace) {
    const auto tools = make(kEcho).value();
    for (const char* part : {"..", ".", "", "a\r\nX: 1"}) {
        EXPECT_EQ(call(tools, "echo", {{"part", part}}).error().field, "part") << part;
    }
    for (const char* part : {"../../stats", "//other.host/x", "@other.host", "?x=1", "#f", "%2e%2e",
                             "\\..", "{part}", "..%2f"}) {
        const auto echo = json_of(call(tools, "echo", {{"part", part}}));
        const auto path = echo["path"].get<std::string>();
        EXPECT_EQ(path.rfind("/http/echo/", 0), 0U) << path;
        EXPECT_EQ(path.find('/', 11), path.size() - 4) << path;  // one segment, then "/end"
    }
    EXPECT_EQ(call(tools, "echo", {{"part", "x"}, {"X-Note", "a\r\nX-Evil: 1"}}).error().field,
              "X-Note");
}

TEST_F(EchoTest, ReportsFailuresAndRepeatsOnlyWhatIsSafe) {
    const auto tools = make(kEcho, {{"timeout", 5}, {"answer_bytes_max", 4096}}).value();
    const auto begun = base::system_clock().now();
    EXPECT_EQ(call(tools, "broken", Json::object()).error().code, ErrorCode::tool_error);
    EXPECT_GE(base::system_clock().now() - begun, 300ms);  // 100 ms and 200 ms between three
    // /status answers GET only: 405 is the tool's own answer.
    const auto posted = call(tools, "broken_post", Json::object());
    ASSERT_TRUE(posted) << posted.error().message;
    EXPECT_TRUE(posted->is_error);
    EXPECT_EQ(call(tools, "silent", Json::object(), "", 200ms).error().code, ErrorCode::timeout);
    EXPECT_EQ(call(tools, "large", Json::object()).error().code, ErrorCode::tool_error);
    const auto elsewhere = call(tools, "elsewhere", Json::object());
    ASSERT_TRUE(elsewhere) << elsewhere.error().message;
    EXPECT_TRUE(elsewhere->is_error);
    EXPECT_EQ(elsewhere->content, "elsewhere");
    const auto nobody = make(kEcho, {{"base_url", "http://127.0.0.1:1"}}).value();
    EXPECT_EQ(call(nobody, "broken_post", Json::object()).error().code, ErrorCode::unavailable);
    shard_.post([this] { cancel_.cancel({ErrorCode::interrupted, "stop"}); });
    EXPECT_EQ(call(tools, "silent", Json::object()).error().code, ErrorCode::interrupted);
}

constexpr const char* kKeyed = R"(
  /echo/keyed:
    parameters: [{name: IDEMPOTENCY-Key, in: header, required: true, schema: {type: string}}]
    post: {operationId: keyed}
    get: {operationId: keyed_read}
  /echo/plain:
    post: {operationId: plain}
    get: {operationId: read}
    head: {operationId: peek}
)";

TEST_F(EchoTest, AToolIsRecordedUnlessItOnlyReads) {
    const auto policy_of = [&](const ToolSet& tools, const std::string& name) {
        for (const auto& tool : tools) {
            if (tool->spec().name == name) {
                return std::pair{tool->spec().recorded, tool->spec().on_unknown};
            }
        }
        throw std::runtime_error{"no tool " + name};
    };
    const auto tools = make(kKeyed).value();
    EXPECT_EQ(policy_of(tools, "keyed"), std::pair(true, OnUnknown::retry));
    EXPECT_EQ(policy_of(tools, "plain"), std::pair(true, OnUnknown::fail));
    EXPECT_FALSE(policy_of(tools, "keyed_read").first);
    EXPECT_FALSE(policy_of(tools, "read").first);
    EXPECT_FALSE(policy_of(tools, "peek").first);

    const auto asking = make(kKeyed, {{"on_unknown", "ask"}}).value();
    EXPECT_EQ(policy_of(asking, "keyed"), std::pair(true, OnUnknown::ask));
    EXPECT_EQ(policy_of(asking, "plain"), std::pair(true, OnUnknown::ask));
    EXPECT_FALSE(policy_of(asking, "read").first) << "it is not named";

    const Json each{{"plain", "retry"}, {"read", "fail"}};
    const auto named = make(kKeyed, {{"on_unknown", each}}).value();
    EXPECT_EQ(policy_of(named, "keyed"), std::pair(true, OnUnknown::retry));
    EXPECT_EQ(policy_of(named, "plain"), std::pair(true, OnUnknown::retry));
    EXPECT_EQ(policy_of(named, "read"), std::pair(true, OnUnknown::fail));
}

TEST_F(EchoTest, TheKeyIsFilledInAndNoArgument) {
    const auto tools = make(kKeyed, {{"on_unknown", {{"read", "fail"}}}}).value();
    const auto keyed = json_of(call(tools, "keyed", Json::object(), "k1"));
    EXPECT_EQ(keyed["headers"]["idempotency-key"], "k1");
    EXPECT_EQ(call(tools, "keyed", {{"IDEMPOTENCY-Key", "mine"}}).error().field, "IDEMPOTENCY-Key");
    EXPECT_EQ(json_of(call(tools, "read", Json::object(), "k2"))["headers"]["idempotency-key"],
              "k2")
        << "recorded, so it has one";
    EXPECT_FALSE(
        json_of(call(tools, "keyed_read", Json::object()))["headers"].contains("idempotency-key"));
}

TEST_F(EchoTest, NamesWhatIsWrongInTheDocumentOrTheSettings) {
    const auto field_of = [&](const std::string& paths, Json settings = Json::object()) {
        const auto made = make(paths, std::move(settings));
        return made ? std::string{"none"} : made.error().field + " " + made.error().message;
    };
    const auto names = [&](const std::string& text, const char* what) {
        EXPECT_NE(text.find(what), std::string::npos) << text;
    };
    names(field_of("  /x: {get: {operationId: 'bad name'}}\n"), "paths./x.get.operationId");
    names(field_of("  /x: {get: {operationId: a}, post: {operationId: a}}\n"), "used twice");
    names(field_of("  /x/{y}: {get: {operationId: a}}\n"), "path parameters");
    names(field_of("  /x: {get: {operationId: a, parameters: [{$ref: '#/no'}]}}\n"),
          "leads nowhere");
    names(field_of("  /x: {get: {operationId: a, parameters: [{$ref: 'http://h/x'}]}}\n"),
          "within this document");
    names(field_of("  /x: {get: {operationId: a, parameters: [{name: q, in: cookie}]}}\n"),
          "cookies");
    names(field_of("  /x: {post: {operationId: a, requestBody: {content: {text/plain: {}}}}}\n"),
          "application/json");
    names(
        field_of("  /x: {get: {operationId: a, parameters: [&p {name: q, in: query, schema: {$ref: "
                 "'#/paths/~1x/get/parameters/0/schema'}}]}}\n"),
        "refers to itself");
    names(field_of("  /x: [\n"), "api.yaml:");
    names(field_of("  /x: {}\n"), "holds no operationId");
    names(field_of(kEcho, {{"base_url", "ftp://x"}}), "base_url");
    names(field_of(kEcho, {{"base_url", "http://h/?x="}}), "base_url");
    names(field_of(kEcho, {{"only", {"none"}}}), "only");
    names(field_of(kEcho, {{"timeout", 0}}), "timeout");
    names(field_of(kEcho, {{"colour", 0}}), "colour");
    names(field_of(kEcho, {{"headers", {{"X", "env:HEDDLE_NOT_SET"}}}}), "headers.X");
    names(field_of(kEcho, {{"on_unknown", "shrug"}}), "expected retry, fail, ask");
    names(field_of(kEcho, {{"on_unknown", 1}}), "on_unknown");
    names(field_of(kEcho, {{"on_unknown", {{"echo", true}}}}), "on_unknown.echo");
    names(field_of(kEcho, {{"on_unknown", {{"nobody", "ask"}}}}), "on_unknown.nobody");
    names(field_of(kEcho, {{"on_unknown", {{"echo", "ask"}}}, {"only", {"silent"}}}),
          "on_unknown.echo");
    EXPECT_EQ(make(kEcho, {{"only", {"echo", "silent"}}})->size(), 2U);
    EXPECT_EQ(make_http_tools(client_, metrics_, {{"http", "none.yaml"}}, directory_).error().code,
              ErrorCode::not_found);
}

}  // namespace
}  // namespace heddle::tools
