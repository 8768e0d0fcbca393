#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/task.hpp"
#include "engine/graph/runner.hpp"
#include "engine/graph/superstep.hpp"

namespace heddle::graph {

/// What the tasks of one superstep share; outlives them. Belongs to the run's shard.
struct StepScope {
    const Graph& graph;
    const RunSpec& spec;
    const Position& position;
    RunHost& host;
    std::int32_t step;           ///< metadata.step of the checkpoint this superstep will make
    base::CancelSource& cancel;  ///< fires when the run is cancelled or a sibling has failed
    /// Answers to interrupts of its tasks; null for a superstep that the run did not begin with.
    const std::map<std::string, base::Json>* resume;
};

struct TaskOutcome {
    std::vector<PreparedWrite> writes;
    std::vector<Interrupt> interrupts;  ///< what the task asks; it has written nothing then
    std::optional<base::Error> error;
    std::string update;  ///< payload of its `updates` event, empty if nobody reads that mode
};

/// [{"id", "value"}, ...] as in ThreadState.tasks[].interrupts and in events.
base::Json to_json(const std::vector<Interrupt>& interrupts);

/// Runs one task of a superstep to its end: attempts, back-off between them, each attempt's timeout
/// and the run's deadline; then prepares its writes and emits its events. Never throws.
base::Task<TaskOutcome> run_task(StepScope& scope, const PlannedTask& task);

/// {"node": {channel: value, ...}}, or {"node": null} when nothing was written.
std::string updates_text(const Channels& channels,
                         std::string_view node,
                         const std::vector<PreparedWrite>& writes);

}  // namespace heddle::graph
