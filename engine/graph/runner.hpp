#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/task.hpp"
#include "engine/base/uuid.hpp"
#include "engine/graph/graph.hpp"
#include "engine/graph/state.hpp"
#include "engine/storage/store.hpp"

namespace heddle::graph {

/// What a run streams; spelled as stream_mode in the API, '-' as '_'.
enum class StreamMode : std::uint8_t {
    values,
    updates,
    messages,
    messages_tuple,
    custom,
    debug,
    tasks,
    checkpoints,
    events,
};

/// Whether run_graph emits events of this mode: all but messages (the old form) and events.
[[nodiscard]] bool is_supported(StreamMode mode) noexcept;

/// Where a thread stands between two supersteps: what the next one starts from.
struct Position {
    explicit Position(std::shared_ptr<const Channels> channels) : state{std::move(channels)} {}

    State state;
    storage::Seq seq = storage::kNoSeq;  ///< journal row of this position
    /// Newest row of the thread: the next one is tip + 1. Greater than seq only on the way to a
    /// fork (a position restored from an older checkpoint), whose first row is a snapshot.
    storage::Seq tip = storage::kNoSeq;
    storage::Seq base = 0;             ///< snapshot row its chain begins with
    std::size_t base_bytes = 0;        ///< journal data bytes of the snapshot
    std::size_t bytes_since_base = 0;  ///< journal data bytes after the snapshot
    base::RunId run_id;                ///< the run that wrote this row
    base::CheckpointId checkpoint_id;  ///< nil before the first
    std::int32_t step = -2;            ///< metadata.step; the first input checkpoint is -1
    std::vector<std::string> next;     ///< nodes to run next; empty: at the end
    bool paused = false;               ///< the run stopped here by a breakpoint after a node
};

/// Rebuilds the position from JournalRows base..seq (Store::load_chain). An empty chain is a new
/// thread's position. `tip` is set to the last row's seq.
/// @return internal if the rows are broken or do not fit the graph any more
base::Result<Position> restore(std::shared_ptr<const Channels> channels,
                               const std::vector<storage::JournalRow>& chain);
/// The same from Store::load_newest().
base::Result<Position> restore_newest(std::shared_ptr<const Channels> channels,
                                      const storage::StateRows& rows);
/// The state alone. @return internal if the rows are broken
base::Result<State> restore_state(std::shared_ptr<const Channels> channels,
                                  const storage::StateRows& rows);

/// JournalRow::head, decoded: all that history needs besides values.
struct CheckpointHead {
    std::string source;  ///< input, loop, update, fork
    std::int32_t step = -1;
    std::vector<std::string> next;
    bool paused = false;                         ///< as Position::paused
    base::Json tasks = base::Json::array();      ///< as ThreadState.tasks
    base::Json metadata = base::Json::object();  ///< as ThreadState.metadata
};
base::Result<CheckpointHead> parse_head(const storage::JournalRow& row);

/// What one execution is asked to do.
struct RunSpec {
    base::ThreadId thread_id;
    base::RunId run_id;
    base::AssistantId assistant_id;
    /// Set: new input for START (an input checkpoint is written). Unset: go on from position.next
    /// (after an interrupt or with input null). To go on after a crash give the same input again:
    /// if position.run_id is this run's, what its checkpoints show as done is not done twice.
    std::optional<base::Json> input;
    PreparedInput prepared_input;  ///< instead of `input`, if it was made before
    /// Answers by the id of the interrupt, for the superstep that the run goes on with.
    std::map<std::string, base::Json> resume;
    base::Json configurable = base::Json::object();
    base::Json metadata = base::Json::object();  ///< goes into every checkpoint's metadata
    std::vector<std::string> interrupt_before;   ///< "*" stands alone for all; added to the graph's
    std::vector<std::string> interrupt_after;
    std::int32_t recursion_limit = 25;
    std::int32_t attempt = 1;
    base::Instant deadline{};  ///< the epoch (the default) means none
};

/// One event of a run's stream, before it is numbered.
struct StreamEvent {
    StreamMode mode = StreamMode::values;
    std::string data;  ///< compact JSON text
};

/// What the runner needs of whoever runs it (engine/scheduler). All calls on the run's shard.
class RunHost {
public:
    virtual ~RunHost() = default;
    /// Whether anybody will read events of this mode; asked before a payload is built.
    [[nodiscard]] virtual bool wants(StreamMode mode) const noexcept = 0;
    /// Something that happens while a superstep runs: tokens, custom events, tasks.
    virtual void emit(StreamEvent event) = 0;
    /// Hands one superstep to the store, with the events that say what came of it: updates, values,
    /// checkpoints, debug. These are the step's, and reach readers when it is on disk. Returns when
    /// the run may go on: at once for durability async and exit, when it is on disk for sync. The
    /// row's head, and its data but for the events, are complete.
    /// @return stale_epoch, unavailable, ...: the run must stop and write nothing more
    virtual base::Task<base::Status> checkpoint(storage::JournalRow row,
                                                std::vector<StreamEvent> events) = 0;
    virtual void count_tokens(std::int64_t input_tokens, std::int64_t output_tokens) = 0;
    /// Tool calls on record for the superstep that starts from `seq`.
    virtual base::Task<base::Result<std::vector<storage::ToolCallRow>>> load_tool_calls(
        storage::Seq seq) = 0;
    /// Returns when they are on disk, and with them every checkpoint before, whatever the run's
    /// durability. @return as checkpoint()
    virtual base::Task<base::Status> record_tool_calls(std::vector<storage::ToolCallRow> calls) = 0;
    /// One of those recorded, now with its answer.
    virtual void record_answer(storage::ToolCallRow call) = 0;
    [[nodiscard]] virtual base::CancelSource& cancel() noexcept = 0;
    /// Against which deadlines are measured; tests give their own.
    [[nodiscard]] virtual const base::Clock& clock() const noexcept { return base::system_clock(); }
};

struct RunResult {
    storage::RunStatus status = storage::RunStatus::success;
    storage::ThreadStatus thread_status = storage::ThreadStatus::idle;
    base::Error error;  ///< when status is error, timeout or interrupted
    /// As Thread.interrupts: after a breakpoint, or what is asked.
    base::Json interrupts = base::Json::object();
    /// It stopped before its end: what `__interrupt__` says in the stream, a JSON array; [] for a
    /// breakpoint.
    std::optional<base::Json> stop;
};

/// RunResult::stop of a run that asks what is in Thread.interrupts.
base::Json flatten_interrupts(const base::Json& interrupts);

/// Runs the graph from `position` until its end, a breakpoint, an error or a cancel. `position` is
/// moved on with every checkpoint and always equals the last row handed to the host. Checkpoints
/// and their numbering are LangGraph's (1.x): input step N (-1 on a new thread), then one `loop`
/// checkpoint when the input has been applied, then one for each superstep. A row is a snapshot
/// instead of a delta when the rows since the last one (64 at least, or 1 MB) weigh eight times the
/// state, 512 bytes being added for each row, or when there are 4,096 and they weigh eight times
/// that snapshot: loading is bounded by a multiple of the state, and a thread that only grows pays
/// no steps as dear as it is long.
///
/// How it ends: RunStatus success at END or at a breakpoint (thread interrupted, `interrupts` has
/// the waiting tasks); timeout past spec.deadline; interrupted when tasks ask something (no error,
/// `interrupts` has the questions) or when host.cancel() fired (the error is its reason); else
/// error, with the failing node's code: graph_error, model_error, tool_error, timeout (of the
/// node), recursion_limit, invalid_argument (the input) or what host.checkpoint said.
///
/// `graph`, `position` and `host` must outlive the task. Never throws.
base::Task<RunResult> run_graph(const Graph& graph,
                                RunSpec spec,
                                Position& position,
                                RunHost& host);

}  // namespace heddle::graph
