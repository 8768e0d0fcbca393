#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/signal.hpp"
#include "engine/graph/runner.hpp"
#include "engine/scheduler/catalog.hpp"
#include "engine/scheduler/run_log.hpp"
#include "engine/scheduler/run_note.hpp"
#include "engine/scheduler/thread_queue.hpp"
#include "engine/storage/store.hpp"

namespace heddle::scheduler {

enum class Durability : std::uint8_t { sync, async, exit };

/// What the API asks for when a run is to be created; everything validated.
struct RunRequest {
    base::ThreadId thread_id;
    base::RunId run_id;  ///< the edge's, or minted by the API
    Assistant assistant;
    bool create_thread = false;     ///< if_not_exists: create, or a stateless run
    bool temporary_thread = false;  ///< stateless with on_completion: delete
    bool keyed = false;             ///< by an Idempotency-Key: its thread stays as long as that
    bool may_begin = true;          ///< no other request has its key: the thread may be new
    bool maybe_repeated = false;    ///< the edge may have sent this to others, too
    bool must_exist = false;        ///< it was stored before: if it is gone, it is not made again
    /// Where the run is to start. Only the thread's newest checkpoint is obeyed (SDKs name it with
    /// every turn); no matter for a run that is there already.
    std::optional<base::CheckpointId> from_checkpoint;
    std::string checkpoint_field;         ///< which field said so
    std::optional<base::Json> input;      ///< unset: go on from where the thread stands
    graph::PreparedInput prepared_input;  ///< of it, for run_id, if that was made already
    std::optional<base::Json> resume;     ///< command.resume: answers what the thread asks
    base::Json configurable = base::Json::object();
    base::Json metadata = base::Json::object();  ///< the run's own, also in its checkpoints
    std::string kwargs = "{}";  ///< JSON object shown as Run.kwargs; recovery reads it again
    std::string request_hash;   ///< of the request body
    MultitaskStrategy strategy = MultitaskStrategy::enqueue;
    Durability durability = Durability::async;
    std::vector<graph::StreamMode> stream_modes;  ///< what is logged; empty: nothing
    bool stream_resumable = false;  ///< tokens and custom events go to disk with their superstep
    std::vector<std::string> interrupt_before;
    std::vector<std::string> interrupt_after;
    std::int32_t recursion_limit = 25;
    base::Duration time_max = std::chrono::minutes{15};  ///< of execution, not of waiting
};

/// How a run ended, once that is on disk.
struct RunOutcome {
    storage::RunStatus status = storage::RunStatus::success;
    base::Error error;          ///< when status is error, timeout or interrupted
    std::string values = "{}";  ///< the state at the run's end, compact JSON text
    /// Thread.interrupts after a breakpoint, or what is asked.
    base::Json interrupts = base::Json::object();
    std::int64_t input_tokens = 0;
    std::int64_t output_tokens = 0;
    /// `values` was not made: nobody waited for it, and a stream has had its events. It is in the
    /// store (ShardScheduler::load_values).
    bool values_left_out = false;
};

/// As of its row, see run_note.hpp.
bool has_failed(const RunOutcome& outcome) noexcept;

/// The attempt of a run that is under way, or was the last, as event ids name it.
std::uint32_t event_attempt_of(const storage::RunRow& row) noexcept;

/// One run while this engine knows it: waiting, executing, or ended a short while ago. Belongs to
/// its thread's shard; held by shared handles there, so that a client may still read the end.
class Run {
public:
    /// @param logs  what bounds the logs of its shard together, or nullptr
    Run(RunRequest request,
        std::int64_t now_us,
        std::size_t log_bytes_max,
        LogBudget* logs = nullptr);

    /// A run that ended before this engine knew it, read back from the store.
    // NOLINTNEXTLINE: see RunHandle
    static std::shared_ptr<Run> make_ended(RunRequest request,
                                           storage::RunRow row,  // NOLINT
                                           RunOutcome outcome);

    /// Without its JSON and kwargs, which its row has.
    [[nodiscard]] const RunRequest& request() const noexcept { return request_; }
    /// With all that it came with.
    /// @return internal  the row is broken
    [[nodiscard]] base::Result<RunRequest> request_again() const;
    /// The row as the API shows it, with the current status.
    [[nodiscard]] const storage::RunRow& row() const noexcept { return row_; }
    [[nodiscard]] storage::Epoch epoch() const noexcept { return epoch_; }
    /// Made by make_ended(): its events are in the store, not in log().
    [[nodiscard]] bool is_read_back() const noexcept { return read_back_; }
    [[nodiscard]] RunLog& log() noexcept { return log_; }
    /// The text of its row, in bytes: what it holds in memory while it waits for its turn, but for
    /// a bounded rest.
    [[nodiscard]] std::size_t row_bytes() const noexcept {
        return row_.kwargs.size() + row_.metadata.size();
    }
    /// What it holds in memory when it has ended, in bytes, roughly.
    [[nodiscard]] std::size_t cost() const noexcept;
    /// The attempt that is under way, as event ids name it.
    [[nodiscard]] std::uint32_t event_attempt() const noexcept { return event_attempt_of(row_); }
    [[nodiscard]] base::CancelSource& cancel() noexcept { return cancel_; }

    /// Resumes when the run's row is on disk, or with the error that kept it from getting there.
    base::Task<base::Status> wait_accepted(base::Instant deadline);
    /// Somebody will answer with all that the run comes to: RunOutcome::values is to be made.
    void expect_values() noexcept { values_expected_ = true; }
    /// Resumes when the run has ended and all of it is on disk. @return timeout at `deadline`
    base::Task<base::Result<RunOutcome>> wait_finished(base::Instant deadline);
    [[nodiscard]] bool is_finished() const noexcept {
        return outcome_.has_value() || failure_.has_value();
    }
    /// It was rolled back: nobody finds it but who asks for it again with the same id, which must
    /// not make it anew.
    [[nodiscard]] bool is_taken_back() const noexcept { return taken_back_; }
    /// Why this engine lost it, perhaps after it was accepted; nothing while it has not.
    [[nodiscard]] const std::optional<base::Error>& failure() const noexcept { return failure_; }

private:
    friend class ThreadSession;
    /// Lets go of the JSON of its request: while it waits its row says the same, in less memory.
    void set_aside();
    /// Before its turn: reads that again.
    /// @return internal  the row is broken
    base::Status take_up();
    void let_go_of_json();
    void accept();
    void finish(RunOutcome outcome);
    void fail(const base::Error& error);

    RunRequest request_;
    storage::RunRow row_;
    storage::Epoch epoch_ = 0;
    RunLog log_;
    base::CancelSource cancel_;
    bool accepted_ = false;
    bool read_back_ = false;
    bool is_set_aside_ = false;
    bool roll_back_ = false;  ///< when it stops, it is taken back
    bool taken_back_ = false;
    storage::Seq base_seq_ = storage::kNoSeq;  ///< newest row before its own, unless resumed_
    RunNote note_;                             ///< until it ends
    /// Its turn is its end: it cannot be executed (again), or was to stop when its engine died.
    std::optional<base::Error> doomed_;
    bool started_ = false;  ///< in this session
    bool values_expected_ = false;
    bool resumed_ = false;  ///< it was begun before this session: rows of it may be there
    std::optional<base::Error> failure_;  ///< it never was, or this engine lost it
    std::optional<RunOutcome> outcome_;
    base::Signal changed_;
};

using RunHandle = std::shared_ptr<Run>;  // NOLINT: stays on one shard; session and readers hold it

}  // namespace heddle::scheduler
