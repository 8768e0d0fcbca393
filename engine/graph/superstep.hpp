#pragma once

#include <string>
#include <vector>

#include "engine/base/uuid.hpp"
#include "engine/graph/graph.hpp"
#include "engine/graph/state.hpp"

/// Deciding what a superstep does, apart from doing it: pure functions of graph and state.
namespace heddle::graph {

/// One node that runs in a superstep.
struct PlannedTask {
    base::Uuid id;  ///< of checkpoint and node: the same when the step is run again
    std::string id_text;
    const NodeSpec* node = nullptr;  ///< in the graph
};

/// @return graph_error if `next` names a node that the graph does not have (any more)
base::Result<std::vector<PlannedTask>> plan_step(const Graph& graph,
                                                 const std::vector<std::string>& next,
                                                 const base::CheckpointId& checkpoint);

/// The id of the task that runs `node` from `checkpoint`.
base::Uuid task_id_of(const base::CheckpointId& checkpoint, std::string_view node);

/// The nodes that follow when those in `finished` (node names, or kStart) have run and `state`
/// holds their writes; sorted by name, each once, kEnd left out. For the rules see EdgeSpec.
/// @return the error of a condition, naming its edge
base::Result<std::vector<std::string>> follow_edges(const Graph& graph,
                                                    const State& state,
                                                    const std::vector<std::string>& finished);

struct StepResult {
    std::string delta;              ///< for JournalRow::data
    std::vector<std::string> next;  ///< nodes of the next superstep; empty: the end
};

/// Applies what the tasks of one superstep wrote, in task order, and decides what follows.
/// @return the error of the state or of a condition; `state` is unchanged then
base::Result<StepResult> apply_step(const Graph& graph,
                                    State& state,
                                    const std::vector<PreparedWrite>& writes,
                                    const std::vector<std::string>& finished);

/// The planned tasks a breakpoint holds back, by `names` ("*" means all) and the graph's own rules.
/// @return the error of a condition, naming its breakpoint
base::Result<bool> stops_before(const Graph& graph,
                                const State& state,
                                const std::vector<PlannedTask>& tasks,
                                const std::vector<std::string>& names);
bool stops_after(const Graph& graph,
                 const std::vector<PlannedTask>& tasks,
                 const std::vector<std::string>& names);

}  // namespace heddle::graph
