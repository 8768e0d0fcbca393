#pragma once

#include <string>
#include <vector>

#include "engine/base/uuid.hpp"
#include "engine/graph/runner.hpp"

/// How positions become journal rows and back.
namespace heddle::graph {

/// What all checkpoints of one run have in common: the text of metadata without source and step.
std::string common_metadata(const Graph& graph, const RunSpec& spec);

/// What distinguishes one checkpoint of a run from the next.
struct CheckpointInfo {
    std::string_view source;  ///< "input", "loop", "update" or "fork"
    std::string delta;        ///< what the state changed by
    std::vector<std::string> next;
    bool paused = false;  ///< the run stops here: a breakpoint after a node
};

/// Moves `position` on to a new checkpoint and makes its row. The state must hold what `delta`
/// says.
/// @param common  common_metadata() of the run
storage::JournalRow advance(Position& position,
                            const base::RunId& run,
                            const std::string& common,
                            CheckpointInfo info);

/// Thread.interrupts of a thread whose run stopped at a breakpoint before `next`.
base::Json breakpoint_interrupts(const base::CheckpointId& checkpoint,
                                 const std::vector<std::string>& next);

/// ThreadState.tasks of a checkpoint whose next superstep has not run.
base::Json waiting_tasks(const base::CheckpointId& checkpoint,
                         const std::vector<std::string>& next);

}  // namespace heddle::graph
