#include "tests/sim/agent.hpp"

#include <fmt/format.h>

#include "engine/base/machine.hpp"
#include "engine/base/signal.hpp"

namespace heddle::sim {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

Plan plan_of(const graph::State& state) {
    Plan plan;
    const auto* item = state.find_value("plan");
    if (item == nullptr) {
        return plan;
    }
    const auto& json = item->json();
    plan.tag = json.value("tag", std::string{});
    plan.rounds = json.value("rounds", 1);
    plan.node_ms = json.value("node_ms", 1);
    plan.tokens = json.value("tokens", 0);
    plan.fails = json.value("fails", false);
    plan.flaky = json.value("flaky", false);
    return plan;
}

std::string entry(const Plan& plan, std::string_view node, int round) {
    return fmt::format("{}/{}{}", plan.tag, node, round);
}

// Rounds that the run in progress has ended.
int rounds_done(const graph::State& state, const Plan& plan) {
    int rounds = 0;
    for (const auto& item : *state.find_list("log")) {
        const auto text = item.json().get<std::string>();
        rounds += text.starts_with(plan.tag + "/d") ? 1 : 0;
    }
    return rounds;
}

class WorkNode final : public graph::Node {
public:
    explicit WorkNode(std::string name)
        : name_{std::move(name)}, is_local_{base::machine::random_bits() % 2 == 0} {}

    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const auto plan = plan_of(context.state());
        const int round = rounds_done(context.state(), plan);
        const int parts = name_ == "a" ? plan.tokens + 1 : 1;
        const auto part = base::Duration{std::chrono::milliseconds{plan.node_ms}} / parts;
        for (int i = 0; i < parts; ++i) {
            const bool waited = co_await wait(context, part);
            if (!waited) {
                co_return context.cancel().reason();
            }
            if (i + 1 < parts) {
                // Another attempt says something else: one id must never stand for both.
                context.emit_custom({{"token", fmt::format("{} {} {:x}", plan.tag, i,
                                                           base::machine::random_bits())}});
            }
        }
        if (name_ == "d" && plan.fails && round + 1 == plan.rounds) {
            co_return Error{ErrorCode::graph_error, "as it was asked to"};
        }
        if (name_ == "b" && plan.flaky && base::machine::random_bits() % 4 == 0) {
            co_return Error{ErrorCode::unavailable, "now and then"};
        }
        graph::NodeOutput output;
        output.writes.push_back({"log", Json::array({entry(plan, name_, round)})});
        co_return output;
    }
    [[nodiscard]] bool is_local() const noexcept override { return is_local_; }

private:
    // Ends early, with false, when the node is cancelled.
    static base::Task<bool> wait(graph::NodeContext& context, base::Duration duration) {
        base::Signal changed;
        const auto wake = context.cancel().on_cancel([&] { changed.notify_all(); });
        const auto until = base::system_clock().now() + duration;
        while (!context.cancel().is_cancelled() && base::system_clock().now() < until) {
            co_await changed.wait(until);
        }
        co_return !context.cancel().is_cancelled();
    }

    std::string name_;
    bool is_local_;
};

class MoreRounds final : public graph::Condition {
public:
    [[nodiscard]] base::Result<bool> holds(const graph::State& state) const override {
        const auto plan = plan_of(state);
        return rounds_done(state, plan) < plan.rounds;
    }
};

}  // namespace

Json input_of(const Plan& plan) {
    return {{"log", Json::array({plan.tag + "/in"})},
            {"plan",
             {{"tag", plan.tag},
              {"rounds", plan.rounds},
              {"node_ms", plan.node_ms},
              {"tokens", plan.tokens},
              {"fails", plan.fails},
              {"flaky", plan.flaky}}}};
}

std::vector<std::vector<std::string>> entries_of(const Plan& plan) {
    std::vector<std::vector<std::string>> steps{{plan.tag + "/in"}};
    for (int round = 0; round < plan.rounds; ++round) {
        steps.push_back({entry(plan, "a", round)});
        steps.push_back({entry(plan, "b", round), entry(plan, "c", round)});
        steps.push_back({entry(plan, "d", round)});
    }
    return steps;
}

std::shared_ptr<const graph::Graph> make_agent() {
    auto graph = std::make_shared<graph::Graph>();  // NOLINT: becomes const below
    graph->name = "work";
    graph::Channels channels{{"log", graph::Reducer::append, Json::array(), {}},
                             {"plan", graph::Reducer::last_value, nullptr, {}}};
    graph->channels = std::make_shared<const graph::Channels>(std::move(channels));
    for (const auto* name : {"a", "b", "c", "d"}) {
        graph::NodeSpec node;
        node.name = name;
        node.kind = "native";
        node.body = std::make_shared<const WorkNode>(name);
        node.retry.attempts_max = 5;
        node.retry.first_wait = std::chrono::milliseconds{20};
        graph->nodes.push_back(std::move(node));
    }
    const auto edge = [&](std::string_view from, std::string_view to,
                          std::shared_ptr<const graph::Condition> when) {
        graph->edges.push_back({std::string{from}, std::string{to}, std::move(when)});
    };
    edge(graph::kStart, "a", nullptr);
    edge("a", "b", nullptr);
    edge("a", "c", nullptr);
    // Not from both: two edges into one node are fine, but one is enough to say what follows.
    edge("b", "d", nullptr);
    edge("c", graph::kEnd, nullptr);
    edge("d", "a", std::make_shared<const MoreRounds>());
    edge("d", graph::kEnd, nullptr);
    return graph;
}

}  // namespace heddle::sim
