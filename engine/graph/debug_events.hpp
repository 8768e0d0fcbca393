#pragma once

#include "engine/graph/task_run.hpp"

/// Events of the modes tasks, checkpoints and debug. Each costs O(state) and is built only when
/// somebody reads that mode.
namespace heddle::graph {

void emit_task_start(StepScope& scope, const PlannedTask& task);
void emit_task_end(StepScope& scope, const PlannedTask& task, const TaskOutcome& outcome);

/// The checkpoint's own events, for whoever reads them.
/// @param parent  the checkpoint before this one, nil on a new thread
void add_checkpoint_events(std::vector<StreamEvent>& events,
                           const RunHost& host,
                           const RunSpec& spec,
                           const Position& position,
                           const storage::JournalRow& row,
                           const base::CheckpointId& parent);

}  // namespace heddle::graph
