#include "engine/api/run_body.hpp"

#include <gtest/gtest.h>

#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using base::ErrorCode;
using base::Json;

const scheduler::Catalog& catalog() {
    static const scheduler::Catalog made = [] {
        auto graph = std::make_shared<graph::Graph>();
        graph->name = "echo";
        graph->recursion_limit = 25;
        graph::Channels channels{{"messages", graph::Reducer::add_messages}, {"x"}};
        channels.back().type = "string";
        graph->channels = std::make_shared<const graph::Channels>(std::move(channels));
        graph->nodes.push_back({});
        graph->nodes.back().name = "answer";
        return scheduler::Catalog{{graph}};
    }();
    return made;
}

base::Result<RunBody> read(const Json& fields, bool stateless = false) {
    Json body{{"assistant_id", "echo"}};
    body.update(fields);
    return read_run_body(body.dump(), stateless, {}, catalog());
}

TEST(RunBody, HasTheDefaultsOfTheApi) {
    const auto body = read(Json::object());
    ASSERT_TRUE(body.has_value());
    EXPECT_EQ(body->run.strategy, scheduler::MultitaskStrategy::enqueue);
    EXPECT_EQ(body->run.durability, scheduler::Durability::async);
    EXPECT_EQ(body->run.stream_modes, (std::vector{graph::StreamMode::values}));
    EXPECT_EQ(body->run.recursion_limit, 25);
    EXPECT_FALSE(body->run.create_thread);
    EXPECT_FALSE(body->run.input.has_value());
    EXPECT_FALSE(body->cancel_on_disconnect);
    EXPECT_FALSE(body->names_modes);

    const auto stateless = read(Json::object(), true);
    EXPECT_TRUE(stateless->run.create_thread);
    EXPECT_TRUE(stateless->run.temporary_thread);
    EXPECT_FALSE(read({{"on_completion", "keep"}}, true)->run.temporary_thread);
}

TEST(RunBody, ReadsEveryFieldItObeys) {
    const auto body = read({{"input", {{"messages", Json::array()}}},
                            {"metadata", {{"a", 1}}},
                            {"config", {{"recursion_limit", 7}, {"configurable", {{"b", 2}}}}},
                            {"interrupt_before", "*"},
                            {"interrupt_after", {"answer"}},
                            {"stream_mode", {"updates", "messages-tuple", "updates"}},
                            {"multitask_strategy", "reject"},
                            {"if_not_exists", "create"},
                            {"on_disconnect", "cancel"},
                            {"durability", "sync"},
                            {"stream_resumable", true},
                            {"stream_subgraphs", false},
                            {"after_seconds", 0},
                            {"feedback_keys", Json::array()},
                            {"webhook", nullptr}});
    ASSERT_TRUE(body.has_value()) << body.error().message;
    EXPECT_EQ(body->run.metadata, (Json{{"a", 1}}));
    EXPECT_EQ(body->run.recursion_limit, 7);
    EXPECT_EQ(body->run.configurable, (Json{{"b", 2}}));
    EXPECT_EQ(body->run.interrupt_before, (std::vector<std::string>{"*"}));
    EXPECT_EQ(body->run.interrupt_after, (std::vector<std::string>{"answer"}));
    EXPECT_EQ(body->run.stream_modes,
              (std::vector{graph::StreamMode::updates, graph::StreamMode::messages_tuple}));
    EXPECT_EQ(body->run.strategy, scheduler::MultitaskStrategy::reject);
    EXPECT_TRUE(body->run.create_thread);
    EXPECT_TRUE(body->cancel_on_disconnect);
    EXPECT_EQ(body->run.durability, scheduler::Durability::sync);
}

TEST(RunBody, TakesContextForConfigurable) {
    EXPECT_EQ(read({{"context", {{"user", "u"}}}})->run.configurable, (Json{{"user", "u"}}));
    const auto both = read({{"context", {{"a", 1}}}, {"config", {{"configurable", {{"b", 2}}}}}});
    EXPECT_EQ(both.error().field, "context");
}

TEST(RunBody, MapsTheDeprecatedFieldAndLetsTheNewOneWin) {
    EXPECT_EQ(read({{"checkpoint_during", false}})->run.durability, scheduler::Durability::exit);
    EXPECT_EQ(read({{"checkpoint_during", false}, {"durability", "sync"}})->run.durability,
              scheduler::Durability::sync);
}

struct Refusal {
    Json fields;
    const char* field;
    ErrorCode code;
};

void expect_refusals(const std::vector<Refusal>& cases) {
    for (const auto& each : cases) {
        const auto body = read(each.fields);
        ASSERT_FALSE(body.has_value()) << each.field;
        EXPECT_EQ(body.error().field, each.field);
        EXPECT_EQ(body.error().code, each.code) << each.field;
        EXPECT_EQ(base::error_traits(body.error().code).http_status, 422) << each.field;
    }
}

TEST(RunBody, NamesWhatItRefusesOfACommand) {
    expect_refusals({
        {{{"command", "go"}}, "command", ErrorCode::invalid_argument},
        {{{"command", {{"goto", "answer"}}}}, "command.goto", ErrorCode::unsupported},
        {{{"command", {{"update", {{"x", "y"}}}}}}, "command.update", ErrorCode::unsupported},
        {{{"command", {{"typo", 1}}}}, "command.typo", ErrorCode::invalid_argument},
        {{{"command", {{"resume", true}}}}, "command.resume", ErrorCode::invalid_argument},
        {{{"command", {{"resume", {{"action", "wait"}}}}}},
         "command.resume.action",
         ErrorCode::invalid_argument},
        {{{"command", {{"resume", {{"action", "result"}}}}}},
         "command.resume.content",
         ErrorCode::invalid_argument},
        {{{"command", {{"resume", {{std::string(32, 'a'), {{"action", 1}}}}}}}},
         "command.resume.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.action",
         ErrorCode::invalid_argument},
        {{{"command", {{"resume", {{"action", "fail"}}}}}, {"input", {{"x", "y"}}}},
         "command",
         ErrorCode::invalid_argument},
    });
}

TEST(RunBody, NamesEveryFieldItRefuses) {
    expect_refusals({
        {{{"checkpoint", {{"checkpoint_id", "x"}}}},
         "checkpoint.checkpoint_id",
         ErrorCode::invalid_argument},
        {{{"checkpoint", {{"checkpoint_ns", "x"}}}},
         "checkpoint.checkpoint_ns",
         ErrorCode::unsupported},
        {{{"checkpoint_id", "x"}}, "checkpoint_id", ErrorCode::invalid_argument},
        {{{"webhook", "http://a"}}, "webhook", ErrorCode::unsupported},
        {{{"feedback_keys", {"k"}}}, "feedback_keys", ErrorCode::unsupported},
        {{{"stream_subgraphs", true}}, "stream_subgraphs", ErrorCode::unsupported},
        {{{"after_seconds", 2}}, "after_seconds", ErrorCode::unsupported},
        {{{"after_seconds", -1}}, "after_seconds", ErrorCode::invalid_argument},
        {{{"multitask_strategy", "queue"}}, "multitask_strategy", ErrorCode::invalid_argument},
        {{{"on_completion", "delete"}}, "on_completion", ErrorCode::unsupported},
        {{{"stream_mode", "events"}}, "stream_mode", ErrorCode::unsupported},
        {{{"stream_mode", {"values", "nonsense"}}}, "stream_mode", ErrorCode::invalid_argument},
        {{{"stream_mode", {"values", 3}}}, "stream_mode[1]", ErrorCode::invalid_argument},
        {{{"input", "text"}}, "input", ErrorCode::invalid_argument},
        {{{"input", {{"x", 7}}}}, "input.x", ErrorCode::invalid_argument},
        {{{"input", {{"y", "z"}}}}, "input.y", ErrorCode::invalid_argument},
        {{{"metadata", 1}}, "metadata", ErrorCode::invalid_argument},
        {{{"config", {{"recursion_limit", 0}}}},
         "config.recursion_limit",
         ErrorCode::invalid_argument},
        {{{"config", {{"configurable", 1}}}}, "config.configurable", ErrorCode::invalid_argument},
        {{{"config", {{"configurable", {{"checkpoint_id", "x"}}}}}},
         "config.configurable.checkpoint_id",
         ErrorCode::unsupported},
        {{{"config", {{"tags", {"t"}}}}}, "config.tags", ErrorCode::unsupported},
        {{{"config", {{"typo", 1}}}}, "config.typo", ErrorCode::invalid_argument},
        {{{"interrupt_before", {"answer", "nowhere"}}},
         "interrupt_before[1]",
         ErrorCode::invalid_argument},
        {{{"interrupt_after", "answer"}}, "interrupt_after", ErrorCode::invalid_argument},
        {{{"durability", "later"}}, "durability", ErrorCode::invalid_argument},
        {{{"typo", 1}}, "typo", ErrorCode::invalid_argument},
    });
    EXPECT_EQ(read({{"assistant_id", "nobody"}}).error().code, ErrorCode::not_found);
    EXPECT_EQ(read({{"assistant_id", nullptr}}).error().field, "assistant_id");
}

TEST(RunBody, TakesAnAnswerToAnInterrupt) {
    const Json decision{{"action", "retry"}};
    const auto plain = read({{"command", {{"resume", decision}, {"goto", nullptr}}}});
    ASSERT_TRUE(plain) << plain.error().message;
    EXPECT_EQ(plain->run.resume, decision);
    EXPECT_FALSE(plain->run.input);
    const Json by_id{{std::string(32, 'a'), decision}};
    EXPECT_EQ(read({{"command", {{"resume", by_id}}}})->run.resume, by_id);
    for (const auto& nothing :
         {Json::object(), Json{{"resume", nullptr}, {"update", Json::object()}}}) {
        const auto body = read({{"command", nothing}});
        ASSERT_TRUE(body) << nothing;
        EXPECT_FALSE(body->run.resume);
    }
    EXPECT_EQ(read({{"command", {{"resume", decision}}}}, true).error().field, "command");
}

TEST(RunKwargs, AreReadBackAsTheyWereWritten) {
    auto body = read({{"input", {{"x", "\"\n"}}},
                      {"config", {{"recursion_limit", 7}, {"configurable", {{"b", 2}}}}},
                      {"interrupt_before", {"answer"}},
                      {"stream_mode", {"updates", "messages-tuple"}},
                      {"durability", "exit"},
                      {"multitask_strategy", "reject"}},
                     true);
    ASSERT_TRUE(body.has_value());
    storage::RunRow row;
    row.assistant_id = body->run.assistant.id;
    row.kwargs = scheduler::encode_kwargs(body->run);
    row.multitask_strategy = "reject";
    const auto again = scheduler::decode_run(row, catalog());
    ASSERT_TRUE(again.has_value()) << again.error().message;
    EXPECT_EQ(*again->input, *body->run.input);
    EXPECT_EQ(again->configurable, body->run.configurable);
    EXPECT_EQ(again->recursion_limit, 7);
    EXPECT_EQ(again->interrupt_before, body->run.interrupt_before);
    EXPECT_EQ(again->stream_modes, body->run.stream_modes);
    EXPECT_EQ(again->durability, scheduler::Durability::exit);
    EXPECT_TRUE(again->temporary_thread);
    EXPECT_TRUE(again->maybe_repeated);
    EXPECT_EQ(scheduler::encode_kwargs(*again), row.kwargs);

    row.kwargs = R"({"stream_mode":["no such mode"]})";
    EXPECT_EQ(scheduler::decode_run(row, catalog()).error().code, ErrorCode::internal);
    row.assistant_id = {};
    EXPECT_EQ(scheduler::decode_run(row, catalog()).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace heddle::api
