#include "engine/graph/superstep.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using base::Status;

Status follow_node(const Graph& graph,
                   const State& state,
                   const std::string& from,
                   std::set<std::string>& next) {
    bool conditions_seen = false;
    bool condition_held = false;
    for (const auto& edge : graph.edges) {
        if (edge.from != from) {
            continue;
        }
        if (edge.when == nullptr) {
            if (!conditions_seen || !condition_held) {
                next.insert(edge.to);
            }
            continue;
        }
        conditions_seen = true;
        if (condition_held) {
            continue;
        }
        auto held = edge.when->holds(state);
        if (!held) {
            auto error = std::move(held).error();
            error.message =
                fmt::format("edge from \"{}\" to \"{}\": {}", edge.from, edge.to, error.message);
            return error;
        }
        condition_held = *held;
        if (condition_held) {
            next.insert(edge.to);
        }
    }
    return base::ok();
}

bool names_task(const std::vector<std::string>& names, const PlannedTask& task) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
        return name == "*" || name == task.node->name;
    });
}

}  // namespace

base::Uuid task_id_of(const base::CheckpointId& checkpoint, std::string_view node) {
    return base::make_uuid_v5(checkpoint.uuid, node);
}

Result<std::vector<PlannedTask>> plan_step(const Graph& graph,
                                           const std::vector<std::string>& next,
                                           const base::CheckpointId& checkpoint) {
    std::vector<PlannedTask> tasks;
    tasks.reserve(next.size());
    for (const auto& name : next) {
        const NodeSpec* node = graph.find_node(name);
        if (node == nullptr) {
            return Error{
                ErrorCode::graph_error,
                fmt::format("the thread waits at node \"{}\", which agent \"{}\" no longer "
                            "has",
                            name, graph.name)};
        }
        const auto id = task_id_of(checkpoint, name);
        tasks.push_back(PlannedTask{id, id.to_string(), node});
    }
    return tasks;
}

Result<std::vector<std::string>> follow_edges(const Graph& graph,
                                              const State& state,
                                              const std::vector<std::string>& finished) {
    std::set<std::string> next;
    for (const auto& from : finished) {
        auto status = follow_node(graph, state, from, next);
        if (!status) {
            return std::move(status).error();
        }
    }
    next.erase(std::string{kEnd});
    return std::vector<std::string>(next.begin(), next.end());
}

Result<StepResult> apply_step(const Graph& graph,
                              State& state,
                              const std::vector<PreparedWrite>& writes,
                              const std::vector<std::string>& finished) {
    StepResult step;
    State::Undo undo;
    auto status = state.apply(writes, step.delta, &undo);
    if (!status) {
        return std::move(status).error();
    }
    auto next = follow_edges(graph, state, finished);
    if (!next) {
        state.revert(std::move(undo));
        return std::move(next).error();
    }
    step.next = std::move(*next);
    return step;
}

Result<bool> stops_before(const Graph& graph,
                          const State& state,
                          const std::vector<PlannedTask>& tasks,
                          const std::vector<std::string>& names) {
    for (const auto& task : tasks) {
        if (names_task(names, task) || names_task(graph.interrupt_before, task)) {
            return true;
        }
        for (const auto& breakpoint : graph.interrupt_when) {
            if (breakpoint.node != task.node->name) {
                continue;
            }
            auto held = breakpoint.when->holds(state);
            if (!held) {
                auto error = std::move(held).error();
                error.message =
                    fmt::format("breakpoint before \"{}\": {}", task.node->name, error.message);
                return error;
            }
            if (*held) {
                return true;
            }
        }
    }
    return false;
}

bool stops_after(const Graph& graph,
                 const std::vector<PlannedTask>& tasks,
                 const std::vector<std::string>& names) {
    return std::any_of(tasks.begin(), tasks.end(), [&](const PlannedTask& task) {
        return names_task(names, task) || names_task(graph.interrupt_after, task);
    });
}

}  // namespace heddle::graph
