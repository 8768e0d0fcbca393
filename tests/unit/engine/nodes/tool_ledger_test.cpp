#include <gtest/gtest.h>

#include "engine/graph/checkpoint.hpp"
#include "engine/nodes/call_decision.hpp"
#include "engine/nodes/tools_node.hpp"
#include "tests/unit/engine/graph/support.hpp"
#include "tests/unit/engine/nodes/support.hpp"

/// What a tools node does about calls that were begun before, by what is on record of them.
namespace heddle::nodes::test {
namespace {

using base::Error;
using base::ErrorCode;
using graph::kStart;
using graph::Position;
using graph::RunResult;
using graph::StreamMode;
using graph::test::edge;
using graph::test::make_graph;
using graph::test::make_spec;
using graph::test::node;
using graph::test::RecordingHost;
using graph::test::run_to_end;
using storage::RunStatus;
using storage::ThreadStatus;
using tools::OnUnknown;

const char* const kCallsOfAandB = R"([{"name":"a","args":{"n":1},"id":"c1"},
    {"name":"b","args":{},"id":"c2"}])";

struct ToolLedger : ::testing::Test {
    ToolLedger() {
        new_host();
        spec = make_spec(Json{{"messages", Json::array({message(kCallsOfAandB)})}});
    }
    void new_host() {
        host.emplace();
        host->modes = {StreamMode::updates, StreamMode::values, StreamMode::tasks};
    }
    static Json message(const char* calls) {
        return Json{
            {"type", "ai"}, {"content", ""}, {"id", "ai1"}, {"tool_calls", Json::parse(calls)}};
    }
    RunResult run() {
        const auto graph = make_graph({node("act", make_tools_node({selection, fail_on_error}))},
                                      {edge(kStart, "act")});
        return run_to_end(graph::run_graph(graph, spec, position, *host));
    }
    // The engine dies while `tool` is called: nothing that happens afterwards is recorded.
    RunResult die_in(FakeTool& tool) {
        tool.on_call = [this] { host->cancel_source.cancel({ErrorCode::unavailable, "gone"}); };
        tool.answer_with(Error{ErrorCode::cancelled, "gone"});
        auto result = run();
        tool.on_call = {};
        tool.answer_with(tools::ToolAnswer{"late"});
        auto ledger = std::move(host->tool_calls);
        new_host();
        host->tool_calls = std::move(ledger);
        return result;
    }
    void next_run() {
        spec.run_id = base::RunId{base::make_uuid_v7()};
        spec.input.reset();
    }
    [[nodiscard]] Json answers() const {
        Json found = Json::array();
        const auto all = position.state.to_json()["messages"];
        for (const auto& each : all) {
            if (each["type"] == "tool") {
                found.push_back(each);
            }
        }
        return found;
    }
    // The only question of a run that has stopped.
    static Json question_of(const RunResult& result) {
        EXPECT_EQ(result.interrupts.size(), 1U);
        for (const auto& task : result.interrupts) {
            EXPECT_EQ(task.size(), 1U);
            return task[0];
        }
        return {};
    }

    std::shared_ptr<FakeTool> a = std::make_shared<FakeTool>("a", tools::ToolAnswer{"A"});
    std::shared_ptr<FakeTool> b = std::make_shared<FakeTool>("b", tools::ToolAnswer{"B"});
    ToolSelection selection{tools::ToolSet{a, b}};
    bool fail_on_error = false;
    Position position{graph::test::usual_channels()};
    std::optional<RecordingHost> host;
    graph::RunSpec spec;
};

TEST_F(ToolLedger, CallsAreRecordedInOneWriteBeforeTheFirstIsMade) {
    a->on_call = [this] {
        ASSERT_EQ(host->tool_calls.size(), 2U);
        EXPECT_TRUE(host->tool_calls[0].answer.empty());
    };
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(host->tool_call_writes, 1);
    ASSERT_EQ(host->tool_calls.size(), 2U);
    EXPECT_EQ(host->tool_calls[0].run_id, spec.run_id);
    EXPECT_EQ(Json::parse(host->tool_calls[1].answer),
              (Json{{"content", "B"}, {"is_error", false}}));
}

TEST_F(ToolLedger, WhatOnlyReadsIsNotRecorded) {
    a->own_spec().recorded = false;
    b->own_spec().recorded = false;
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(host->tool_call_writes, 0);
    EXPECT_TRUE(host->tool_calls.empty());
    EXPECT_EQ(answers().size(), 2U);
}

TEST_F(ToolLedger, ACallOfAToolThatIsOfferedNoMoreIsUnknownToo) {
    (void)die_in(*a);
    next_run();
    selection = ToolSelection{tools::ToolSet{b}};
    EXPECT_EQ(run().status, RunStatus::success);
    ASSERT_EQ(answers().size(), 2U);
    EXPECT_NE(answers()[0]["content"].get<std::string>().find("not known whether"),
              std::string::npos)
        << answers()[0];
}

TEST_F(ToolLedger, NothingIsCalledThatCouldNotBeRecorded) {
    host->tool_calls_answer = Error{ErrorCode::stale_epoch, "another engine has the thread"};
    EXPECT_EQ(run().error.code, ErrorCode::stale_epoch);
    EXPECT_TRUE(a->calls.empty());
    EXPECT_TRUE(b->calls.empty());
}

TEST_F(ToolLedger, AnAnswerOnRecordIsReusedAndTheOtherCallFails) {
    (void)die_in(*b);
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(a->calls.size(), 1U) << "reused";
    EXPECT_EQ(b->calls.size(), 1U) << "not made again";
    ASSERT_EQ(answers().size(), 2U);
    EXPECT_EQ(answers()[0]["content"], "A");
    EXPECT_EQ(answers()[0]["status"], "success");
    EXPECT_EQ(answers()[1]["status"], "error");
    EXPECT_NE(answers()[1]["content"].get<std::string>().find("not known"), std::string::npos);
    EXPECT_EQ(answers()[1]["tool_call_id"], "c2");
}

TEST_F(ToolLedger, ARetryHasTheSameKeyInEveryRun) {
    b->own_spec().on_unknown = OnUnknown::retry;
    (void)die_in(*b);
    (void)die_in(*b);
    next_run();
    EXPECT_EQ(run().status, RunStatus::success);
    ASSERT_EQ(b->calls.size(), 3U);
    EXPECT_EQ(b->calls[0].idempotency_key, b->calls[1].idempotency_key);
    EXPECT_EQ(b->calls[0].idempotency_key, b->calls[2].idempotency_key);
    EXPECT_NE(b->calls[0].idempotency_key, a->calls[0].idempotency_key);
    EXPECT_EQ(answers()[1]["content"], "late");
}

TEST_F(ToolLedger, AskInterruptsTheRunAndTellsWhat) {
    b->own_spec().on_unknown = OnUnknown::ask;
    (void)die_in(*b);
    const auto result = run();
    EXPECT_EQ(result.status, RunStatus::interrupted);
    EXPECT_EQ(result.thread_status, ThreadStatus::interrupted);
    EXPECT_TRUE(result.error.message.empty());
    EXPECT_EQ(a->calls.size(), 1U);
    EXPECT_EQ(b->calls.size(), 1U);
    EXPECT_TRUE(answers().empty());

    const auto task = graph::waiting_tasks(position.checkpoint_id, {"act"})[0]["id"];
    ASSERT_TRUE(result.interrupts.contains(task.get<std::string>()));
    const auto question = question_of(result);
    EXPECT_EQ(question["id"].get<std::string>().size(), 32U);
    EXPECT_EQ(question["value"]["type"], "tool_outcome_unknown");
    EXPECT_EQ(question["value"]["tool"], "b");
    EXPECT_EQ(question["value"]["tool_call_id"], "c2");
    EXPECT_EQ(question["value"]["actions"], (Json{"retry", "fail", "result"}));
    EXPECT_EQ(result.stop, Json::array({question}));
    EXPECT_TRUE(host->events_of(StreamMode::updates).empty());
    EXPECT_EQ(host->events_of(StreamMode::tasks).back()["interrupts"], Json::array({question}));

    next_run();
    EXPECT_EQ(question_of(run()), question) << "the same as long as nobody answers";
}

TEST_F(ToolLedger, TheHumansDecisionIsCarriedOut) {
    b->own_spec().on_unknown = OnUnknown::ask;
    const std::vector<std::pair<Json, std::string>> cases{
        {Json{{"action", "retry"}}, "late"},
        {Json{{"action", "result"}, {"content", "it was booked"}}, "it was booked"},
        {Json{{"action", "fail"}}, "not known"},
    };
    for (const auto& [decision, content] : cases) {
        position = Position{graph::test::usual_channels()};
        host->tool_calls.clear();
        b->calls.clear();
        spec = make_spec(Json{{"messages", Json::array({message(kCallsOfAandB)})}});
        (void)die_in(*b);
        const auto question = question_of(run());
        next_run();
        spec.resume = {{question["id"].get<std::string>(), decision}};
        EXPECT_EQ(run().status, RunStatus::success) << decision;
        ASSERT_EQ(answers().size(), 2U);
        EXPECT_NE(answers()[1]["content"].get<std::string>().find(content), std::string::npos);
        EXPECT_EQ(b->calls.size(), decision["action"] == "retry" ? 2U : 1U);
    }
    EXPECT_EQ(a->calls.size(), cases.size()) << "once each time";
}

TEST_F(ToolLedger, ADecisionIsForOneCallAndNotForTheNext) {
    b->own_spec().on_unknown = OnUnknown::ask;
    (void)die_in(*b);
    const auto question = question_of(run());
    next_run();
    spec.resume = {{question["id"].get<std::string>(), Json{{"action", "retry"}}}};
    (void)die_in(*b);
    EXPECT_EQ(b->calls.size(), 2U);

    const auto again = question_of(run());  // the same run, taken over
    EXPECT_EQ(b->calls.size(), 2U) << "never a silent second call";
    EXPECT_NE(again["id"], question["id"]);
    next_run();
    EXPECT_EQ(question_of(run()), again) << "an old answer is none to the new question";
    EXPECT_EQ(b->calls.size(), 2U);
    next_run();
    spec.resume = {{again["id"].get<std::string>(), Json{{"action", "retry"}}}};
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(b->calls.size(), 3U);
    EXPECT_EQ(b->calls[0].idempotency_key, b->calls[2].idempotency_key);
}

TEST_F(ToolLedger, WhatIsAnsweredOfSeveralQuestionsIsNotAskedAgain) {
    a->own_spec().on_unknown = OnUnknown::ask;
    b->own_spec().on_unknown = OnUnknown::ask;
    a->answer_with(Error{ErrorCode::cancelled, "gone"});
    a->on_call = [this] { host->cancel_source.cancel({ErrorCode::unavailable, "gone"}); };
    (void)die_in(*b);
    a->on_call = {};
    a->answer_with(tools::ToolAnswer{"A"});
    const auto result = run();
    ASSERT_EQ(result.interrupts.size(), 1U);
    const auto questions = result.interrupts.begin().value();
    ASSERT_EQ(questions.size(), 2U);
    const auto called = a->calls.size();

    next_run();
    spec.resume = {{questions[0]["id"].get<std::string>(), Json{{"action", "retry"}}}};
    EXPECT_EQ(question_of(run()), questions[1]);
    EXPECT_EQ(a->calls.size(), called + 1);
    next_run();
    spec.resume = {{questions[1]["id"].get<std::string>(),
                    Json{{"action", "result"}, {"content", "by hand"}}}};
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(a->calls.size(), called + 1);
    EXPECT_EQ(answers()[0]["content"], "A");
    EXPECT_EQ(answers()[1]["content"], "by hand");
}

TEST_F(ToolLedger, FailuresThatTheModelIsToldAreAnswersToo) {
    a->answer_with(Error{ErrorCode::tool_error, "HTTP status 500"});
    (void)die_in(*b);
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(a->calls.size(), 1U);
    EXPECT_EQ(answers()[0]["content"], "Error: HTTP status 500\n Please fix your mistakes.");
    EXPECT_EQ(answers()[0]["status"], "error");
}

TEST_F(ToolLedger, ACallWithoutAnAnswerGoesByItsPolicyAtOnce) {
    for (const auto code : {ErrorCode::timeout, ErrorCode::in_doubt}) {
        a->calls.clear();
        b->calls.clear();
        position = Position{graph::test::usual_channels()};
        new_host();
        a->answer_with(Error{code, "no answer"});
        b->answer_with(Error{code, "no answer"});
        b->own_spec().on_unknown = OnUnknown::retry;
        b->on_call = [this] {
            if (b->calls.size() == 2) {
                b->answer_with(tools::ToolAnswer{"B"});
            }
        };
        EXPECT_EQ(run().status, RunStatus::success);
        EXPECT_EQ(a->calls.size(), 1U) << "fail: the model finds out what is true";
        EXPECT_NE(answers()[0]["content"].get<std::string>().find("not known"), std::string::npos);
        ASSERT_EQ(b->calls.size(), 2U) << "retry: once more";
        EXPECT_EQ(b->calls[0].idempotency_key, b->calls[1].idempotency_key);
        EXPECT_EQ(answers()[1]["content"], "B");
    }
}

TEST_F(ToolLedger, ACallWithoutAnAnswerIsAskedAboutAtOnce) {
    b->own_spec().on_unknown = OnUnknown::ask;
    b->answer_with(Error{ErrorCode::timeout, "no answer"});
    const auto asked = run();
    EXPECT_EQ(asked.status, RunStatus::interrupted);
    const auto question = question_of(asked);
    EXPECT_EQ(question["value"]["tool"], "b");
    next_run();
    spec.resume = {
        {question["id"].get<std::string>(), Json{{"action", "result"}, {"content", "by hand"}}}};
    EXPECT_EQ(run().status, RunStatus::success);
    EXPECT_EQ(a->calls.size(), 1U) << "its answer is on record";
    EXPECT_EQ(b->calls.size(), 1U);
    EXPECT_EQ(answers()[1]["content"], "by hand");
}

TEST_F(ToolLedger, ANodesRetryRepeatsNothingThatWasAnswered) {
    fail_on_error = true;
    b->own_spec().on_unknown = OnUnknown::retry;
    b->answer_with(Error{ErrorCode::tool_error, "HTTP status 500"});
    b->on_call = [this] {
        if (b->calls.size() == 2) {
            b->answer_with(tools::ToolAnswer{"B"});
        }
    };
    auto act = node("act", make_tools_node({selection, true}));
    act.retry.attempts_max = 3;
    act.retry.first_wait = std::chrono::milliseconds{1};
    const auto graph = make_graph({act}, {edge(kStart, "act")});
    EXPECT_EQ(run_to_end(graph::run_graph(graph, spec, position, *host)).status,
              RunStatus::success);
    EXPECT_EQ(a->calls.size(), 1U);
    EXPECT_EQ(b->calls.size(), 2U);
}

TEST_F(ToolLedger, AnAnswerThatMakesNoSenseEndsTheRun) {
    b->own_spec().on_unknown = OnUnknown::ask;
    (void)die_in(*b);
    const auto question = question_of(run());
    next_run();
    spec.resume = {{question["id"].get<std::string>(), Json("go on")}};
    EXPECT_EQ(run().error.code, ErrorCode::invalid_argument);
    EXPECT_EQ(b->calls.size(), 1U);
}

TEST_F(ToolLedger, ABrokenRecordIsNotTakenForAnAnswer) {
    (void)die_in(*b);
    host->tool_calls[0].answer = "{}";
    EXPECT_EQ(run().error.code, ErrorCode::internal);
    EXPECT_EQ(a->calls.size(), 1U);
}

TEST(CallDecisions, NameWhatIsWrong) {
    const auto field_of = [](const Json& value) {
        const auto read = read_call_decision(value, "command.resume");
        return read ? std::string{} : read.error().field;
    };
    EXPECT_EQ(field_of(Json{{"action", "retry"}}), "");
    EXPECT_EQ(field_of(Json{{"action", "fail"}}), "");
    EXPECT_EQ(field_of(Json{{"action", "result"}, {"content", ""}}), "");
    EXPECT_EQ(field_of("retry"), "command.resume");
    EXPECT_EQ(field_of(nullptr), "command.resume");
    EXPECT_EQ(field_of(Json::object()), "command.resume.action");
    EXPECT_EQ(field_of(Json{{"action", 1}}), "command.resume.action");
    EXPECT_EQ(field_of(Json{{"action", "Retry"}}), "command.resume.action");
    EXPECT_EQ(field_of(Json{{"action", "result"}}), "command.resume.content");
    EXPECT_EQ(field_of(Json{{"action", "result"}, {"content", 1}}), "command.resume.content");
    EXPECT_EQ(field_of(Json{{"action", "retry"}, {"content", "x"}}), "command.resume.content");
}

}  // namespace
}  // namespace heddle::nodes::test
