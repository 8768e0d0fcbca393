#include <gtest/gtest.h>

#include "engine/scheduler/resume.hpp"
#include "engine/scheduler/run_kwargs.hpp"
#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

/// What a session does for a task that records calls and asks questions: on disk before the call,
/// found by whoever goes on, gone with the superstep.
namespace heddle::scheduler::test {
namespace {

using base::Json;
using storage::RunStatus;
using storage::ThreadStatus;

const std::string kQuestion(32, '7');

template <class T, class Start>
T call(Start start) {
    std::promise<T> promise;
    auto future = promise.get_future();
    start(base::Completion<T>{[&promise](T value) { promise.set_value(std::move(value)); }});
    return future.get();
}

/// Makes two calls, of which the first is answered, and waits at a gate. Comes it to what it made
/// before, it asks what became of the other, and writes the answer down.
class CallingNode final : public graph::Node {
public:
    CallingNode(Gate& gate, Gate& answered) : gate_{gate}, answered_{answered} {}

    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const auto found = co_await context.load_calls();
        if (!found) {
            co_return found.error();
        }
        std::string text = "made";
        if (found->empty()) {
            std::vector<std::int32_t> numbers{0, 1};
            const auto recorded = co_await context.record_calls(std::move(numbers));
            if (!recorded) {
                co_return recorded.error();
            }
            made_.fetch_add(1);
            context.record_answer(0, "zero");
            co_await gate_.pass();
            if (context.cancel().is_cancelled()) {
                co_return context.cancel().reason();
            }
        } else {
            const auto* answer = context.find_resume(kQuestion);
            if (answer == nullptr) {
                graph::NodeOutput asking;
                std::string shown;
                for (const auto& each : *found) {
                    shown += std::to_string(each.number) + ":" + each.answer + ";";
                }
                asking.interrupts.push_back({kQuestion, Json(shown)});
                co_return asking;
            }
            text = answer->get<std::string>();
            co_await answered_.pass();
            if (context.cancel().is_cancelled()) {
                co_return context.cancel().reason();
            }
        }
        graph::NodeOutput output;
        output.writes.push_back({"messages", {{"type", "ai"}, {"content", text}}});
        co_return output;
    }
    [[nodiscard]] int made() const { return made_.load(); }

private:
    Gate& gate_;
    Gate& answered_;
    mutable std::atomic<int> made_{0};
};

std::shared_ptr<const graph::Graph> make_calling_graph(std::shared_ptr<const graph::Node> body) {
    auto graph = std::make_shared<graph::Graph>();
    graph->name = "calling";
    graph->channels = std::make_shared<const graph::Channels>(
        graph::Channels{{"messages", graph::Reducer::add_messages, nullptr, {}}});
    graph::NodeSpec node;
    node.name = "call";
    node.kind = "native";
    node.body = std::move(body);
    graph->nodes.push_back(std::move(node));
    graph->edges.push_back({std::string{graph::kStart}, "call", nullptr});
    graph->edges.push_back({"call", std::string{graph::kEnd}, nullptr});
    return graph;
}

class ToolLedger : public SchedulerTest, public testing::WithParamInterface<Durability> {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine() {
        return std::make_unique<TestEngine>(
            storage::make_memory_store(database_, long_lease(), store_metrics_), calling_,
            quick_ownership());
    }
    [[nodiscard]] RunRequest request(std::optional<Json> resume = std::nullopt) const {
        RunRequest request;
        request.thread_id = thread_;
        request.run_id = base::RunId{base::make_uuid_v7()};
        request.assistant = *calling_.find("calling");
        request.create_thread = true;
        request.durability = GetParam();
        request.stream_modes = {graph::StreamMode::updates};
        if (resume) {
            request.resume = std::move(resume);
        } else {
            request.input = Json{{"messages", {{{"role", "user"}, {"content", "go"}}}}};
        }
        request.kwargs = encode_kwargs(request);
        return request;
    }
    void wait_at_gate(std::size_t count) const {
        ASSERT_TRUE(wait_arrived(count));
        ASSERT_EQ(gate_.arrived(), count);
    }
    [[nodiscard]] storage::RunRow wait_until_final(const base::RunId& run) {
        const auto until = soon();
        while (base::system_clock().now() < until) {
            auto row = call<base::Result<storage::RunRow>>(
                [&](auto done) { store_->load_run(thread_, run, std::move(done)); });
            if (row && storage::is_final(row->status)) {
                return *row;
            }
            std::this_thread::yield();
        }
        ADD_FAILURE() << "the run does not end";
        return {};
    }
    [[nodiscard]] storage::ThreadRow thread_row() {
        return *call<base::Result<storage::ThreadRow>>(
            [&](auto done) { store_->load_thread(thread_, std::move(done)); });
    }
    // "number:answer;" of all calls on record for the thread's newest checkpoint.
    [[nodiscard]] std::string on_record() {
        const auto rows = call<base::Result<std::vector<storage::ToolCallRow>>>([&](auto done) {
            store_->load_tool_calls(thread_, thread_row().head, std::move(done));
        });
        std::string shown;
        for (const auto& row : *rows) {
            shown += std::to_string(row.number) + ":" + row.answer + ";";
        }
        return shown;
    }
    [[nodiscard]] std::string last_message(TestEngine& engine) const {
        const auto values = Json::parse(history(engine).front().values);
        return values.at("messages").back().at("content");
    }
    // An answer goes to disk soon, not before the call that brought it returns.
    void wait_for_record(const std::string& wanted) {
        EXPECT_TRUE(comes_true([&] { return on_record() == wanted; })) << on_record();
    }
    // A run whose engine died at its call, taken over by another, which asks.
    std::unique_ptr<TestEngine> die_and_ask() {
        auto first = make_engine();
        auto handle = submit(*first, request());
        EXPECT_TRUE(handle);
        const auto run = (*handle)->row().id;
        wait_at_gate(1);
        wait_for_record("0:zero;1:;");
        first->kill();
        auto heir = make_engine();
        const auto row = wait_until_final(run);
        EXPECT_EQ(row.status, RunStatus::interrupted);
        EXPECT_FALSE(has_failed(row));
        gate_.open();
        return heir;
    }

    Gate answered_;  ///< behind which a run waits that was given an answer
    std::shared_ptr<const CallingNode> node_ =
        std::make_shared<const CallingNode>(gate_, answered_);
    Catalog calling_{{make_calling_graph(node_)}};
    std::unique_ptr<storage::Store> store_ =
        storage::make_memory_store(database_, long_lease(), store_metrics_);  ///< looks at it
};

TEST_P(ToolLedger, CallsAreOnDiskWithTheirCheckpointUntilTheirStepIs) {
    const auto engine = make_engine();
    const auto handle = submit(*engine, request());
    ASSERT_TRUE(handle);
    wait_at_gate(1);
    EXPECT_EQ(thread_row().head, 1) << "the input and what it led to";
    wait_for_record("0:zero;1:;");
    const auto head = thread_row().head;

    gate_.open();
    const auto outcome = wait_for_end(*engine, *handle);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, RunStatus::success);
    const auto rows = call<base::Result<std::vector<storage::ToolCallRow>>>(
        [&](auto done) { store_->load_tool_calls(thread_, head, std::move(done)); });
    EXPECT_TRUE(rows->empty());
    EXPECT_EQ(history(*engine).size(), 3U);
}

TEST_P(ToolLedger, WhoeverTakesTheRunOverFindsWhatWasMadeAndAsks) {
    const auto heir = die_and_ask();
    EXPECT_EQ(node_->made(), 1);
    const auto thread = thread_row();
    EXPECT_EQ(thread.status, ThreadStatus::interrupted);
    const auto interrupts = Json::parse(thread.interrupts);
    ASSERT_EQ(interrupts.size(), 1U);
    const Json asked{{{"id", kQuestion}, {"value", "0:zero;1:;"}}};
    EXPECT_EQ(*interrupts.begin(), asked);
    const auto states = history(*heir);
    ASSERT_EQ(states.size(), 2U);
    EXPECT_EQ(states[0].head.tasks[0]["interrupts"], asked);
    EXPECT_EQ(states[0].head.tasks[0]["id"], interrupts.begin().key());
    EXPECT_EQ(states[1].head.tasks[0]["interrupts"], Json::array()) << "of another checkpoint";
    EXPECT_EQ(heir->metrics().tool_calls_unknown_total.load(), 1);
    EXPECT_EQ(heir->metrics().tool_calls_reused_total.load(), 1);
    EXPECT_EQ(heir->metrics().runs_failed_total.load(), 0);
}

TEST_P(ToolLedger, TheAnswerGoesToTheQuestionAndTheRunGoesOn) {
    answered_.open();
    const auto heir = die_and_ask();
    const auto outcome = run(*heir, request(Json("by hand")));
    ASSERT_TRUE(outcome) << outcome.error().message;
    EXPECT_EQ(outcome->status, RunStatus::success);
    EXPECT_EQ(last_message(*heir), "by hand");
    EXPECT_EQ(thread_row().status, ThreadStatus::idle);
    EXPECT_EQ(thread_row().interrupts, "{}");
    EXPECT_EQ(on_record(), "");
    EXPECT_EQ(node_->made(), 1);
    const auto late = run(*heir, request(Json("again")));
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().field, "command.resume");
}

TEST_P(ToolLedger, AnAnswerByTheQuestionsIdDoesTheSameAfterARestart) {
    answered_.open();
    auto heir = die_and_ask();
    heir->kill();
    const auto last = make_engine();
    const auto outcome = run(*last, request(Json{{kQuestion, "by id"}}));
    ASSERT_TRUE(outcome);
    EXPECT_EQ(last_message(*last), "by id");
}

TEST_P(ToolLedger, AnAnswerToWhatIsNotAskedIsRefusedAndTheQuestionStays) {
    answered_.open();
    const auto heir = die_and_ask();
    const auto refused = run(*heir, request(Json{{std::string(32, '8'), "x"}}));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, base::ErrorCode::invalid_argument);
    EXPECT_EQ(refused.error().field, "command.resume");
    EXPECT_EQ(thread_row().status, ThreadStatus::interrupted);
    EXPECT_TRUE(run(*heir, request(Json("then"))));
}

TEST_P(ToolLedger, ARunThatGoesOnWithoutAnAnswerAsksAgain) {
    const auto heir = die_and_ask();
    auto on = request(Json("unused"));
    on.resume.reset();
    on.kwargs = encode_kwargs(on);
    const auto outcome = run(*heir, on);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, RunStatus::interrupted);
    EXPECT_EQ(outcome->interrupts.begin().value()[0]["id"], kQuestion);
    EXPECT_EQ(node_->made(), 1);
}

TEST_P(ToolLedger, NewInputLeavesTheQuestionBehind) {
    const auto heir = die_and_ask();
    const auto outcome = run(*heir, request());
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, RunStatus::success);
    EXPECT_EQ(node_->made(), 2) << "another checkpoint's call, not that one again";
    EXPECT_EQ(thread_row().interrupts, "{}");
    EXPECT_EQ(on_record(), "");
    for (storage::Seq seq = 0; seq <= thread_row().head; ++seq) {
        const auto rows = call<base::Result<std::vector<storage::ToolCallRow>>>(
            [&](auto done) { store_->load_tool_calls(thread_, seq, std::move(done)); });
        EXPECT_TRUE(rows->empty()) << seq;
    }
}

TEST_P(ToolLedger, ACancelledCallIsFoundByTheNextRun) {
    const auto engine = make_engine();
    const auto handle = submit(*engine, request());
    ASSERT_TRUE(handle);
    wait_at_gate(1);
    ASSERT_TRUE(cancel(*engine, (*handle)->row().id, false));
    gate_.open();
    EXPECT_EQ(wait_for_end(*engine, *handle)->status, RunStatus::interrupted);
    auto on = request(Json("unused"));
    on.resume.reset();
    const auto outcome = run(*engine, on);
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->status, RunStatus::interrupted) << "asks instead of calling again";
    EXPECT_EQ(node_->made(), 1);
}

TEST_P(ToolLedger, ARolledBackAnswerLeavesTheQuestionOpen) {
    const auto heir = die_and_ask();
    const auto head = thread_row().head;
    const auto handle = submit(*heir, request(Json("by hand")));
    ASSERT_TRUE(handle);
    ASSERT_TRUE(comes_true([&] { return answered_.arrived() > 0; }));
    ASSERT_TRUE(cancel(*heir, (*handle)->row().id, true));
    answered_.open();
    EXPECT_EQ(wait_for_end(*heir, *handle)->status, RunStatus::interrupted);
    EXPECT_EQ(thread_row().head, head);
    EXPECT_EQ(on_record(), "0:zero;1:;");
    const auto outcome = run(*heir, request(Json("after all")));
    ASSERT_TRUE(outcome) << outcome.error().message;
    EXPECT_EQ(last_message(*heir), "after all");
    EXPECT_EQ(node_->made(), 1);
}

INSTANTIATE_TEST_SUITE_P(All,
                         ToolLedger,
                         testing::Values(Durability::sync, Durability::async, Durability::exit));

TEST(Resume, IsOneAnswerOrAMapById) {
    const std::string a(32, 'a');
    const std::string b(32, 'b');
    const auto one = Json{{"t", {{{"id", a}, {"value", 1}}}}}.dump();
    const auto two = Json{{"t", {{{"id", a}, {"value", 1}}, {{"id", b}, {"value", 2}}}}}.dump();
    const auto only = address_resume(Json{{"action", "retry"}}, one);
    ASSERT_TRUE(only);
    EXPECT_EQ(only->at(a), (Json{{"action", "retry"}}));
    const auto part = address_resume(Json{{b, "yes"}}, two);
    ASSERT_TRUE(part);
    EXPECT_EQ(part->size(), 1U);
    EXPECT_EQ(part->at(b), "yes");
    for (const auto& [resume, interrupts] : std::vector<std::pair<Json, std::string>>{
             {Json("x"), "{}"},
             {Json("x"), R"({"t":[]})"},
             {Json("x"), "broken"},
             {Json("x"), two},
             {Json{{std::string(32, 'c'), "x"}}, two},
             {Json{{a, "x"}, {std::string(32, 'c'), "x"}}, two}}) {
        const auto refused = address_resume(resume, interrupts);
        ASSERT_FALSE(refused) << resume;
        EXPECT_EQ(refused.error().code, base::ErrorCode::invalid_argument);
        EXPECT_EQ(refused.error().field, "command.resume");
    }
    EXPECT_TRUE(is_resume_map(Json{{a, 1}}));
    EXPECT_FALSE(is_resume_map(Json::object()));
    EXPECT_FALSE(is_resume_map(Json{{a, 1}, {"action", 1}}));
    EXPECT_FALSE(is_resume_map(Json{{std::string(31, 'a'), 1}}));
}

TEST(Outcome, OfARunThatAsksIsNoFailure) {
    storage::RunRow row;
    row.status = RunStatus::interrupted;
    EXPECT_TRUE(has_failed(row));
    row.error = R"({"error":"cancelled","message":"the run was cancelled"})";
    EXPECT_TRUE(has_failed(row));
    const Asked asked{Json{{"t", {{{"id", kQuestion}, {"value", 1}}}}},
                      base::CheckpointId{base::make_uuid_v6()}};
    RunNote note;
    note.asked = asked;
    note.input_tokens = 3;
    note.output_tokens = 4;
    row.error = encode_note(note);
    EXPECT_EQ(read_note(row.error).input_tokens, 3);
    EXPECT_EQ(read_note(row.error).output_tokens, 4);
    EXPECT_FALSE(has_failed(row));
    const auto found = find_asked(row);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->interrupts, asked.interrupts);
    EXPECT_EQ(found->checkpoint, asked.checkpoint);
    row.status = RunStatus::error;
    EXPECT_TRUE(has_failed(row));
}

TEST(Resume, IsKeptWithItsRun) {
    const Catalog catalog{{make_echo_graph()}};
    RunRequest request;
    request.thread_id = base::ThreadId{base::make_uuid_v7()};
    request.run_id = base::RunId{base::make_uuid_v7()};
    request.assistant = *catalog.find("echo");
    request.resume = Json{{"action", "retry"}};
    request.kwargs = encode_kwargs(request);
    const scheduler::Run made{request, 0, 0};
    const auto again = decode_run(made.row(), catalog);
    ASSERT_TRUE(again);
    EXPECT_EQ(again->resume, request.resume);
    EXPECT_FALSE(again->input);
}

}  // namespace
}  // namespace heddle::scheduler::test
