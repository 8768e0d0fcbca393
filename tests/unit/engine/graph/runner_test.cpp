#include <gtest/gtest.h>

#include "engine/base/signal.hpp"
#include "tests/unit/engine/graph/support.hpp"

namespace heddle::graph::test {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using base::Task;
using storage::RunStatus;
using storage::ThreadStatus;

struct RunnerTest : ::testing::Test {
    RunResult run(const Graph& graph, RunSpec spec) {
        return run_to_end(run_graph(graph, std::move(spec), position, host));
    }
    RunResult run(const Graph& graph, std::optional<Json> input) {
        return run(graph, make_spec(std::move(input)));
    }

    RecordingHost host;
    Position position{usual_channels()};
};

Graph line() {
    return make_graph({node("a", writing("log", "a")), node("b", writing("log", "b"))},
                      {edge(kStart, "a"), edge("a", "b"), edge("b", kEnd)});
}

TEST_F(RunnerTest, NumbersCheckpointsAsLangGraph) {
    const auto result = run(line(), Json{{"topic", "x"}});

    EXPECT_EQ(result.status, RunStatus::success);
    EXPECT_EQ(result.thread_status, ThreadStatus::idle);
    ASSERT_EQ(host.rows.size(), 4U);
    const auto heads = host.heads();
    const std::vector<std::string> sources{"input", "loop", "loop", "loop"};
    const std::vector<std::vector<std::string>> next{{"__start__"}, {"a"}, {"b"}, {}};
    for (std::size_t i = 0; i < heads.size(); ++i) {
        EXPECT_EQ(heads[i].source, sources[i]);
        EXPECT_EQ(heads[i].step, static_cast<int>(i) - 1);
        EXPECT_EQ(heads[i].next, next[i]);
        EXPECT_EQ(host.rows[i].seq, static_cast<storage::Seq>(i));
        EXPECT_EQ(host.rows[i].parent, static_cast<storage::Seq>(i) - 1);
        EXPECT_EQ(host.rows[i].base, 0);
    }
    EXPECT_LT(host.rows[0].checkpoint_id, host.rows[1].checkpoint_id);
    EXPECT_EQ(position.state.to_text(), R"({"messages":[],"log":["a","b"],"topic":"x"})");
}

TEST_F(RunnerTest, SecondTurnGoesOnCounting) {
    (void)run(line(), Json::object());
    (void)run(line(), Json::object());

    ASSERT_EQ(host.rows.size(), 8U);
    EXPECT_EQ(host.rows[4].step, 3);
    EXPECT_EQ(host.heads()[4].source, "input");
    EXPECT_EQ(host.rows[7].step, 6);
}

TEST_F(RunnerTest, HeadsHoldWhatHistoryNeeds) {
    auto spec = make_spec(Json::object());
    spec.metadata = Json{{"who", "me"}};
    (void)run(line(), spec);

    const auto head = host.heads()[1];
    const Json expected{{"source", "loop"},
                        {"step", 0},
                        {"parents", Json::object()},
                        {"run_id", spec.run_id.to_string()},
                        {"thread_id", spec.thread_id.to_string()},
                        {"graph_id", "test"},
                        {"assistant_id", spec.assistant_id.to_string()},
                        {"who", "me"}};
    EXPECT_EQ(head.metadata, expected);
    ASSERT_EQ(head.tasks.size(), 1U);
    EXPECT_EQ(head.tasks[0]["name"], "a");
    EXPECT_EQ(head.tasks[0]["path"], (Json{"__pregel_pull", "a"}));
    EXPECT_EQ(head.tasks[0]["interrupts"], Json::array());
    EXPECT_TRUE(base::Uuid::parse(head.tasks[0]["id"].get<std::string>()));
}

TEST_F(RunnerTest, ParallelNodesOverlapAndDoNotSeeEachOther) {
    base::Signal arrived;
    int waiting = 0;
    // Each waits for the other: were they run one after another, this would never end.
    const auto meet = [&](NodeContext& context) -> Task<Result<NodeOutput>> {
        EXPECT_TRUE(context.state().find_list("log")->empty());
        ++waiting;
        arrived.notify_all();
        while (waiting < 2 && !context.cancel().is_cancelled()) {
            co_await arrived.wait(context.deadline());
        }
        co_return writes({{"log", context.task_id()}});
    };
    const auto graph = make_graph({node("left", calling(meet)), node("right", calling(meet))},
                                  {edge(kStart, "left"), edge(kStart, "right")});

    EXPECT_EQ(run(graph, Json::object()).status, RunStatus::success);
    EXPECT_EQ(position.state.find_list("log")->size(), 2U);
    EXPECT_EQ(host.rows.size(), 3U);
}

TEST_F(RunnerTest, FirstFailureOfAStepCancelsTheRest) {
    bool cancelled = false;
    const auto waits = [&](NodeContext& context) -> Task<Result<NodeOutput>> {
        base::Signal signal;
        const auto wake = context.cancel().on_cancel([&] { signal.notify_all(); });
        while (!context.cancel().is_cancelled()) {
            co_await signal.wait(context.deadline());
        }
        cancelled = true;
        co_return Error{ErrorCode::cancelled, "stopped"};
    };
    const auto fails = [](NodeContext&) -> Task<Result<NodeOutput>> {
        co_return Error{ErrorCode::graph_error, "broken"};
    };
    const auto graph = make_graph({node("slow", calling(waits)), node("zfail", calling(fails))},
                                  {edge(kStart, "slow"), edge(kStart, "zfail")});

    const auto result = run(graph, Json::object());
    EXPECT_EQ(result.status, RunStatus::error);
    EXPECT_EQ(result.error, (Error{ErrorCode::graph_error, "node \"zfail\": broken"}));
    EXPECT_TRUE(cancelled);
    EXPECT_EQ(host.rows.size(), 2U);
    EXPECT_EQ(position.next, (std::vector<std::string>{"slow", "zfail"}));
}

TEST_F(RunnerTest, StopsAtTheRecursionLimit) {
    const auto graph =
        make_graph({node("a", writing("log", 1))}, {edge(kStart, "a"), edge("a", "a")});
    auto spec = make_spec(Json::object());
    spec.recursion_limit = 7;

    const auto result = run(graph, spec);
    EXPECT_EQ(result.error.code, ErrorCode::recursion_limit);
    EXPECT_EQ(result.error.message,
              "Recursion limit of 7 reached without hitting a stop condition. You can increase the "
              "limit by setting the `recursion_limit` config key.");
    EXPECT_EQ(position.state.find_list("log")->size(), 7U);
}

TEST_F(RunnerTest, CancelBetweenStepsInterrupts) {
    host.on_checkpoint = [this] {
        if (host.rows.size() == 3) {
            host.cancel_source.cancel(Error{ErrorCode::cancelled, "enough"});
        }
    };
    const auto result = run(line(), Json::object());

    EXPECT_EQ(result.status, RunStatus::interrupted);
    EXPECT_EQ(result.thread_status, ThreadStatus::interrupted);
    EXPECT_EQ(result.error.message, "enough");
    EXPECT_EQ(position.next, (std::vector<std::string>{"b"}));

    RecordingHost again;
    const auto resumed = run_to_end(run_graph(line(), make_spec(std::nullopt), position, again));
    EXPECT_EQ(resumed.status, RunStatus::success);
    EXPECT_EQ(position.state.find_list("log")->size(), 2U);
    EXPECT_EQ(again.rows.size(), 1U);
}

Task<Result<NodeOutput>> wait_until_cancelled(NodeContext& context) {
    base::Signal signal;
    const auto wake = context.cancel().on_cancel([&] { signal.notify_all(); });
    while (!context.cancel().is_cancelled()) {
        co_await signal.wait(base::system_clock().now() + std::chrono::seconds{30});
    }
    co_return Error{ErrorCode::cancelled, "stopped"};
}

TEST_F(RunnerTest, CancelReachesARunningNode) {
    const auto cancels = [this](NodeContext& context) -> Task<Result<NodeOutput>> {
        asio::post(co_await asio::this_coro::executor, [this] {
            host.cancel_source.cancel(Error{ErrorCode::interrupted, "another run came"});
        });
        auto result = co_await wait_until_cancelled(context);
        co_return result;
    };
    const auto graph = make_graph({node("a", calling(cancels))}, {edge(kStart, "a")});

    const auto result = run(graph, Json::object());
    EXPECT_EQ(result.status, RunStatus::interrupted);
    EXPECT_EQ(result.error, (Error{ErrorCode::interrupted, "another run came"}));
}

TEST_F(RunnerTest, NodeTimeoutCancelsTheNodeAndFailsTheRun) {
    auto slow = node("slow", calling(wait_until_cancelled));
    slow.timeout = std::chrono::milliseconds{5};
    const auto result = run(make_graph({slow}, {edge(kStart, "slow")}), Json::object());

    EXPECT_EQ(result.status, RunStatus::error);
    EXPECT_EQ(result.error.code, ErrorCode::timeout);
    EXPECT_EQ(result.error.message, "node \"slow\" took longer than 0.005 s");
}

TEST_F(RunnerTest, PastTheDeadlineTheRunTimesOut) {
    ManualClock clock;
    host.manual_clock = &clock;
    const auto takes_long = [&](NodeContext&) -> Task<Result<NodeOutput>> {
        clock.advance(std::chrono::seconds{20});
        co_return writes({{"log", "done"}});
    };
    const auto graph = make_graph({node("a", calling(takes_long)), node("b", calling(takes_long))},
                                  {edge(kStart, "a"), edge("a", "b"), edge("b", "a")});
    auto spec = make_spec(Json::object());
    spec.deadline = clock.now() + std::chrono::seconds{50};

    const auto result = run(graph, spec);
    EXPECT_EQ(result.status, RunStatus::timeout);
    EXPECT_EQ(result.error.code, ErrorCode::timeout);
    EXPECT_EQ(position.state.find_list("log")->size(), 3U);
}

TEST_F(RunnerTest, DeadlineStopsARunningNode) {
    auto spec = make_spec(Json::object());
    spec.deadline = base::system_clock().now() + std::chrono::milliseconds{5};
    const auto result = run(
        make_graph({node("slow", calling(wait_until_cancelled))}, {edge(kStart, "slow")}), spec);

    EXPECT_EQ(result.status, RunStatus::timeout);
    EXPECT_EQ(result.thread_status, ThreadStatus::error);
}

TEST_F(RunnerTest, RetriesWhatMayWorkTheNextTime) {
    int calls = 0;
    auto flaky = node("flaky", calling([&](NodeContext&) -> Task<Result<NodeOutput>> {
                          if (++calls < 3) {
                              co_return Error{ErrorCode::unavailable, "down"};
                          }
                          co_return writes({{"log", calls}});
                      }));
    flaky.retry = {3, std::chrono::milliseconds{1}, 2.0, std::chrono::milliseconds{2}};
    EXPECT_EQ(run(make_graph({flaky}, {edge(kStart, "flaky")}), Json::object()).status,
              RunStatus::success);
    EXPECT_EQ(calls, 3);
}

TEST_F(RunnerTest, RetriesAreCountedAndLogicErrorsAreNotRepeated) {
    int calls = 0;
    ErrorCode code = ErrorCode::model_error;
    auto fails = node("fails", calling([&](NodeContext&) -> Task<Result<NodeOutput>> {
                          ++calls;
                          co_return Error{code, "no"};
                      }));
    fails.retry = {2, std::chrono::milliseconds{1}, 2.0, std::chrono::milliseconds{2}};
    const auto graph = make_graph({fails}, {edge(kStart, "fails")});
    EXPECT_EQ(run(graph, Json::object()).error.code, ErrorCode::model_error);
    EXPECT_EQ(calls, 2);

    code = ErrorCode::graph_error;
    EXPECT_EQ(run(graph, Json::object()).error.code, ErrorCode::graph_error);
    EXPECT_EQ(calls, 3);
}

TEST_F(RunnerTest, BreakpointBeforeHoldsAndResumeGoesOn) {
    host.modes = {StreamMode::values, StreamMode::updates};
    auto spec = make_spec(Json::object());
    spec.interrupt_before = {"b"};
    const auto result = run(line(), spec);

    EXPECT_EQ(result.status, RunStatus::success);
    EXPECT_EQ(result.thread_status, ThreadStatus::interrupted);
    EXPECT_EQ(position.next, (std::vector<std::string>{"b"}));
    ASSERT_EQ(result.interrupts.size(), 1U);
    EXPECT_EQ(result.interrupts.begin().value(), Json::array());
    EXPECT_EQ(result.stop, Json::array());

    auto next = make_spec(std::nullopt);
    next.interrupt_before = {"b"};
    const auto resumed = run(line(), next);
    EXPECT_EQ(resumed.thread_status, ThreadStatus::idle);
    EXPECT_EQ(position.state.find_list("log")->size(), 2U);
}

TEST_F(RunnerTest, BreakpointAfterHoldsWithItsStepDone) {
    auto spec = make_spec(Json::object());
    spec.interrupt_after = {"a"};
    EXPECT_EQ(run(line(), spec).thread_status, ThreadStatus::interrupted);
    EXPECT_EQ(position.state.find_list("log")->size(), 1U);
    EXPECT_EQ(run(line(), std::nullopt).thread_status, ThreadStatus::idle);
    EXPECT_EQ(position.state.find_list("log")->size(), 2U);
}

TEST_F(RunnerTest, BreakpointWithAConditionHoldsOnlyThen) {
    auto graph = line();
    bool held = false;
    graph.interrupt_when = {{"b", when([&](const State&) -> Result<bool> { return held; })}};
    EXPECT_EQ(run(graph, Json::object()).thread_status, ThreadStatus::idle);
    held = true;
    EXPECT_EQ(run(graph, Json::object()).thread_status, ThreadStatus::interrupted);
    EXPECT_EQ(position.next, (std::vector<std::string>{"b"}));
}

TEST_F(RunnerTest, RepeatingARunDoesNothingTwice) {
    const auto spec = make_spec(Json{{"messages", "hello"}});
    host.on_checkpoint = [this] {
        if (host.rows.size() == 3) {
            host.cancel_source.cancel({ErrorCode::cancelled, "crash"});
        }
    };
    (void)run(line(), spec);
    auto restored = restore(usual_channels(), host.rows);
    ASSERT_TRUE(restored);

    RecordingHost second;
    const auto result = run_to_end(run_graph(line(), spec, *restored, second));
    EXPECT_EQ(result.status, RunStatus::success);
    EXPECT_EQ(second.rows.size(), 1U);
    EXPECT_EQ(restored->state.find_list("messages")->size(), 1U);
    EXPECT_EQ(restored->state.find_list("log")->size(), 2U);
}

TEST_F(RunnerTest, RepeatingARunThatGotOnlyItsInputRowAppliesTheInput) {
    const auto spec = make_spec(Json{{"messages", "hello"}});
    (void)run(line(), spec);
    const auto id = position.state.find_list("messages")->front().json()["id"];
    auto restored = restore(usual_channels(), {host.rows.front()});
    ASSERT_TRUE(restored);

    RecordingHost second;
    (void)run_to_end(run_graph(line(), spec, *restored, second));
    EXPECT_EQ(second.rows.size(), 3U);
    EXPECT_EQ(second.rows.front().step, 0);
    EXPECT_EQ(restored->state.find_list("messages")->front().json()["id"], id);
}

TEST_F(RunnerTest, BreakpointsHoldAlsoWhenTheRunIsRepeatedAfterACrash) {
    auto spec = make_spec(Json::object());
    spec.interrupt_before = {"a"};
    (void)run(line(), spec);
    auto restored = restore(usual_channels(), host.rows);
    RecordingHost second;
    EXPECT_EQ(run_to_end(run_graph(line(), spec, *restored, second)).thread_status,
              ThreadStatus::interrupted);
    EXPECT_TRUE(second.rows.empty());

    spec = make_spec(Json::object());
    spec.interrupt_after = {"a"};
    RecordingHost third;
    Position fresh{usual_channels()};
    (void)run_to_end(run_graph(line(), spec, fresh, third));
    auto paused = restore(usual_channels(), third.rows);
    RecordingHost fourth;
    EXPECT_EQ(run_to_end(run_graph(line(), spec, *paused, fourth)).thread_status,
              ThreadStatus::interrupted);
    EXPECT_TRUE(fourth.rows.empty());
}

TEST_F(RunnerTest, BadInputWritesNothing) {
    const auto result = run(line(), Json{{"messages", {{{"content", "x"}}}}});
    EXPECT_EQ(result.status, RunStatus::error);
    EXPECT_EQ(result.error.code, ErrorCode::invalid_argument);
    EXPECT_EQ(result.error.field, "input.messages[0].role");
    EXPECT_TRUE(host.rows.empty());
    EXPECT_EQ(run(line(), std::nullopt).error.field, "input");
}

TEST_F(RunnerTest, FailingCheckpointStopsTheRun) {
    host.checkpoint_answer = Error{ErrorCode::stale_epoch, "lost"};
    const auto result = run(line(), Json::object());
    EXPECT_EQ(result.error.code, ErrorCode::stale_epoch);
    EXPECT_EQ(host.rows.size(), 1U);
}

TEST_F(RunnerTest, AFailingConditionLeavesThePositionWhereItWas) {
    const auto broken = when([](const State&) -> Result<bool> {
        return Error{ErrorCode::graph_error, "nil"};
    });
    const auto graph =
        make_graph({node("a", writing("log", "a"))}, {edge(kStart, "a"), edge("a", kEnd, broken)});
    const auto result = run(graph, Json::object());
    EXPECT_EQ(result.error.message, "edge from \"a\" to \"__end__\": nil");
    EXPECT_TRUE(position.state.find_list("log")->empty());
    const auto restored = restore(usual_channels(), host.rows);
    EXPECT_EQ(restored->state.to_text(), position.state.to_text());
    EXPECT_EQ(restored->next, position.next);
}

TEST_F(RunnerTest, StreamsWhatEachModeAsksFor) {
    host.modes = {StreamMode::values, StreamMode::updates, StreamMode::messages_tuple,
                  StreamMode::custom, StreamMode::tasks,   StreamMode::checkpoints,
                  StreamMode::debug};
    const auto talks = [](NodeContext& context) -> Task<Result<NodeOutput>> {
        context.emit_custom(Json{{"progress", 1}});
        context.emit_message(Json{{"type", "AIMessageChunk"}, {"content", "he"}, {"id", "m1"}});
        context.emit_message(Json{{"type", "AIMessageChunk"}, {"content", "y"}, {"id", "m1"}});
        context.count_tokens(3, 2);
        Json streamed{{"type", "ai"}, {"content", "hey"}, {"id", "m1"}};
        Json whole{{"type", "ai"}, {"content", "bye"}, {"id", "m2"}};
        Json both = Json::array({std::move(streamed), std::move(whole)});
        co_return writes({{"messages", std::move(both)}});
    };
    auto spec = make_spec(Json{{"messages", {{{"role", "user"}, {"content", "hi"}}}}});
    (void)run(make_graph({node("talk", calling(talks))}, {edge(kStart, "talk")}), spec);

    // Whoever reads the rows has the steps' events again, and only this run's.
    const auto stored = read_row_events(usual_channels(), host.rows, spec.run_id);
    ASSERT_TRUE(stored) << stored.error().message;
    std::vector<std::string> again;
    for (const auto& each : *stored) {
        again.push_back(each.event.data);
    }
    EXPECT_EQ(again, host.step_event_data);
    EXPECT_GE(again.size(), 8U);
    EXPECT_TRUE(read_row_events(usual_channels(), host.rows, base::RunId{})->empty());

    const auto values = host.events_of(StreamMode::values);
    ASSERT_EQ(values.size(), 2U);
    EXPECT_EQ(values[0]["messages"].size(), 1U);
    EXPECT_EQ(values[1]["messages"].size(), 3U);
    const auto updates = host.events_of(StreamMode::updates);
    ASSERT_EQ(updates.size(), 1U);
    EXPECT_EQ(updates[0]["talk"]["messages"].size(), 2U);
    const auto messages = host.events_of(StreamMode::messages_tuple);
    ASSERT_EQ(messages.size(), 3U);
    EXPECT_EQ(messages[0][0]["content"], "he");
    EXPECT_EQ(messages[2][0]["content"], "bye");
    EXPECT_EQ(messages[2][0]["type"], "ai");
    const Json& metadata = messages[0][1];
    EXPECT_EQ(metadata["langgraph_node"], "talk");
    EXPECT_EQ(metadata["langgraph_step"], 1);
    EXPECT_EQ(metadata["langgraph_triggers"], Json::array({"branch:to:talk"}));
    EXPECT_EQ(metadata["langgraph_path"], (Json{"__pregel_pull", "talk"}));
    EXPECT_EQ(metadata["run_id"], spec.run_id.to_string());
    EXPECT_EQ(metadata["checkpoint_ns"], metadata["langgraph_checkpoint_ns"]);
    EXPECT_EQ(host.events_of(StreamMode::custom).size(), 1U);
    EXPECT_EQ(host.events_of(StreamMode::checkpoints).size(), 3U);
    const auto tasks = host.events_of(StreamMode::tasks);
    ASSERT_EQ(tasks.size(), 2U);
    EXPECT_EQ(tasks[0]["triggers"], Json::array({"branch:to:talk"}));
    EXPECT_EQ(tasks[1]["result"]["messages"].size(), 2U);
    EXPECT_EQ(host.events_of(StreamMode::debug).size(), 5U);
    EXPECT_EQ(host.input_tokens, 3);
    EXPECT_EQ(host.output_tokens, 2);
}

// Writes the answer to its only question, which it asks until there is one.
std::shared_ptr<const Node> asking(std::string id) {
    return calling([id = std::move(id)](NodeContext& context) -> Task<Result<NodeOutput>> {
        NodeOutput output;
        const auto* answer = context.find_resume(id);
        if (answer == nullptr) {
            output.interrupts.push_back({id, Json("what is " + id + "?")});
        } else {
            output.writes.push_back({"log", *answer});
        }
        co_return output;
    });
}

TEST_F(RunnerTest, ATaskThatAsksHoldsItsSuperstepUntilAllIsAnswered) {
    host.modes = {StreamMode::updates};
    const auto graph =
        make_graph({node("a", asking("1")), node("b", asking("2")), node("c", writing("log", "c")),
                    node("d", asking("1"))},
                   {edge(kStart, "a"), edge(kStart, "b"), edge(kStart, "c"), edge("a", "d")});
    auto result = run(graph, Json{{"topic", "x"}});
    EXPECT_EQ(result.status, RunStatus::interrupted);
    EXPECT_EQ(result.thread_status, ThreadStatus::interrupted);
    EXPECT_EQ(result.error.message, "");
    EXPECT_EQ(result.interrupts.size(), 2U) << "not the sibling that asks nothing";
    const auto rows = host.rows.size();
    const Json first{{"value", "what is 1?"}, {"id", "1"}};
    const Json second{{"value", "what is 2?"}, {"id", "2"}};
    ASSERT_TRUE(result.stop);
    EXPECT_EQ(*result.stop, flatten_interrupts(result.interrupts));
    EXPECT_EQ(result.stop->size(), 2U);
    EXPECT_TRUE(std::find(result.stop->begin(), result.stop->end(), first) != result.stop->end());
    EXPECT_TRUE(std::find(result.stop->begin(), result.stop->end(), second) != result.stop->end());

    auto spec = make_spec(std::nullopt);
    spec.resume = {{"1", "one"}};
    result = run(graph, spec);
    EXPECT_EQ(result.interrupts.size(), 1U);
    EXPECT_EQ(*result.interrupts.begin(), Json::array({second}));
    EXPECT_EQ(host.rows.size(), rows) << "nothing of the superstep is kept";

    spec = make_spec(std::nullopt);
    spec.resume = {{"1", "one"}, {"2", "two"}};
    result = run(graph, spec);
    EXPECT_EQ(position.state.to_json()["log"], (Json{"one", "two", "c"}));
    EXPECT_EQ(*result.interrupts.begin(), Json::array({first}))
        << "an answer is for the step that the run went on with";
}

TEST_F(RunnerTest, ANodeThatThrowsFailsOnlyItsRun) {
    const auto throws = [](NodeContext&) -> Task<Result<NodeOutput>> {
        throw std::runtime_error{"secret detail"};
        co_return NodeOutput{};
    };
    const auto result =
        run(make_graph({node("a", calling(throws))}, {edge(kStart, "a")}), Json::object());
    EXPECT_EQ(result.error.code, ErrorCode::internal);
    EXPECT_EQ(result.error.message.find("secret"), std::string::npos);
}

TEST_F(RunnerTest, CostOfATurnDoesNotGrowWithTheThread) {
    const Json answer{{"type", "ai"}, {"content", std::string(200, 'x')}};
    const auto graph = make_graph({node("a", writing("messages", answer))}, {edge(kStart, "a")});
    std::vector<std::size_t> bytes;
    for (int turn = 0; turn < 200; ++turn) {
        const auto before = host.rows.size();
        (void)run(graph, Json{{"messages", {{{"role", "user"}, {"content", "hi"}}}}});
        std::size_t written = 0;
        for (auto at = before; at < host.rows.size(); ++at) {
            written += host.rows[at].data.size() + host.rows[at].head.size();
        }
        bytes.push_back(written);
    }
    auto sorted = bytes;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_LE(sorted[sorted.size() / 2], bytes[1] * 11 / 10);
    std::size_t late = 0;
    std::size_t early = 0;
    for (std::size_t i = 0; i < 100; ++i) {
        early += bytes[i];
        late += bytes[100 + i];
    }
    EXPECT_LE(late, early * 105 / 100);
    RecordProperty("bytes_early", static_cast<int>(early));
    RecordProperty("bytes_late", static_cast<int>(late));
}

}  // namespace
}  // namespace heddle::graph::test
