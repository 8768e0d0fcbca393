#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/base/shard.hpp"
#include "engine/base/signal.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/scheduler/lease.hpp"
#include "engine/scheduler/run.hpp"
#include "engine/scheduler/scheduler.hpp"
#include "engine/scheduler/thread_queue.hpp"
#include "engine/storage/store.hpp"

namespace heddle::scheduler {

/// How often runs were begun here in vain because the store did not take what they made: that is no
/// fault of theirs, so it counts as no attempt. Known to this engine alone, and bounded.
class SparedStarts {
public:
    void add(const base::RunId& run);
    void forget(const base::RunId& run) { of_.erase(run); }
    [[nodiscard]] std::int32_t of(const base::RunId& run) const;

private:
    std::unordered_map<base::RunId, std::int32_t> of_;
};

/// What a session borrows of its shard; all of it outlives every session.
struct SessionContext {
    base::Shard& shard;
    storage::Store& store;
    const Catalog& catalog;
    observe::Metrics& metrics;
    const SchedulerLimits& limits;
    const Lease& lease;
    /// The session can no longer write for its thread (lost, deleted): forget it.
    /// @param recover  whether its unfinished runs are still ours to resume later
    std::function<void(const base::ThreadId&, bool recover)> forget;
    /// The run has ended and somebody may still want to read its events.
    std::function<void(const RunHandle&)> keep_ended;
    /// All sessions together hold more than they may.
    std::function<void()> evict_soon;
    SparedStarts spared{};
    LogBudget logs{limits.active_logs_bytes_max};  ///< of the runs that have not ended
    std::size_t open_runs_bytes = 0;               ///< Run::row_bytes() of those
    std::size_t threads_bytes = 0;                 ///< ThreadSession::bytes_ of those in the table
};

/// One claimed thread: its position, its queue and the only pipeline by which anything is written
/// for it. At most one write is on its way to the store; what comes meanwhile is gathered into the
/// next, so a short run costs one commit and the store sees a thread's writes in order.
///
/// Belongs to the thread's shard. Held by shared pointers because coroutines and completions of the
/// shard outlive its place in the session table.
class ThreadSession : public std::enable_shared_from_this<ThreadSession> {
public:
    /// Rows that leave the disk with one write: so that nobody's write waits long behind it.
    static constexpr storage::Seq kSliceRows = 1000;

    ThreadSession(SessionContext& context, storage::ClaimOutcome claim);
    /// Of a thread that its first write is to make, if nobody else has made it.
    ThreadSession(SessionContext& context, storage::ThreadClaim fresh);
    [[nodiscard]] const storage::ThreadRow& thread() const noexcept { return thread_; }
    [[nodiscard]] bool is_lost() const noexcept { return lost_.has_value(); }
    /// The thread that it was to make is there already.
    [[nodiscard]] bool is_refused_thread() const noexcept {
        return not_made_ && not_made_->code == base::ErrorCode::conflict;
    }
    /// Whether it has made its thread is in doubt.
    [[nodiscard]] bool may_be_made_yet() const noexcept {
        return not_made_ && not_made_->code == base::ErrorCode::in_doubt;
    }
    [[nodiscard]] bool is_idle() const noexcept {
        return queue_.is_idle() && !writing_ && on_written_.empty() && alone_.empty();
    }
    /// How many runs have ended here. Who read the store before the last may have missed it.
    [[nodiscard]] std::uint64_t settled_runs() const noexcept { return settled_runs_; }
    [[nodiscard]] std::size_t active_runs() const noexcept {
        return queue_.waiting() + (queue_.executing() ? 1 : 0);
    }
    [[nodiscard]] RunHandle find_run(const base::RunId& run) const;
    /// It has read, or made, the state that the thread stands at.
    [[nodiscard]] bool has_position() const noexcept { return position_.has_value(); }
    /// @return nullopt unless that is the state of `checkpoint`, read through `channels`
    [[nodiscard]] std::optional<std::string> values_at(const base::CheckpointId& checkpoint,
                                                       const graph::Channels& channels) const;

    /// Resumes when the thread is there. @return what kept it from being made, as Store::create()
    base::Task<base::Status> wait_made();
    /// Queues again what another engine, or an earlier life of this one, left unfinished.
    void resume(std::vector<storage::RunRow> rows);
    /// @return whether a run that is submitted now, without waiting for anything, starts from there
    base::Task<base::Result<bool>> stands_at(base::CheckpointId checkpoint);
    base::Result<RunHandle> submit(RunRequest request);
    /// @return false if the run is neither waiting nor executing here
    /// @param roll_back  it and its checkpoints are taken back as well
    bool cancel_run(const base::RunId& run, const base::Error& reason, bool roll_back);
    /// As cancel_run(), at a client's wish: resumes when that is on disk, so that no crash forgets
    /// it before the run has stopped.
    base::Task<base::Result<bool>> cancel_for_good(base::RunId run, bool roll_back);
    void cancel_all(const base::Error& reason);
    base::Task<base::Status> patch_metadata(const base::Json& changes);
    base::Task<base::Status> set_ttl(storage::ThreadTtl ttl);
    base::Task<base::Status> remove_run(base::RunId run);
    /// Cancels everything, waits until it has stopped, deletes the thread.
    base::Task<base::Status> remove();
    /// The thread's time is over: deletes it, or all but its newest checkpoint. @return conflict if
    /// it is in use again
    base::Task<base::Status> expire(storage::ExpiredThread due);
    /// This engine leaves: the executing run stops after its superstep, nothing is started any
    /// more, and then the thread is free for the next engine, which goes on with its runs.
    void hand_over();
    /// There is no time left for the superstep: it is begun again elsewhere, which counts as no
    /// attempt of the run. Nothing to do for a thread whose superstep has ended in time.
    /// @return whether there was such a superstep
    bool hand_over_now();
    /// The run that was started here and executes, if there is one.
    [[nodiscard]] std::optional<base::RunId> started_run() const;
    /// Writes nothing from now on and fails what waits. @param recover  see SessionContext::forget
    void lose(const base::Error& error, bool recover);
    /// @param spared  what was started was stopped by no fault of its own
    void lose(const base::Error& error, bool recover, bool spared);
    /// It has left the shard's table, and whoever holds it yet may end it on another OS thread:
    /// what it holds counts no more.
    void leave_counts();
    /// The shard has stopped for good: lets go of those who wait for a write, who hold the session.
    void drop_waiters();

private:
    friend class SessionHost;
    using Written = base::UniqueFunction<void(const base::Status&)>;

    /// @param reason  why runs are stopped, if some are
    void carry_out(const Actions& actions, const base::Error& reason = {});
    void start(const RunHandle& run);
    void drop(const RunHandle& run);
    /// A waiting run is to leave no trace.
    void remove_waiting(const RunHandle& run);
    /// The run has stopped: its checkpoints and its row go, the thread stands where it stood.
    base::Task<> undo(RunHandle run);
    void vanish(const RunHandle& run);
    [[nodiscard]] bool has_had_its_attempts(const Run& run) const;
    base::Task<> execute(RunHandle run);
    /// It executes no more: how it ended goes to disk, or it is taken back; then the next one.
    base::Task<> conclude(RunHandle run, graph::RunResult result, RunOutcome outcome);
    /// Everything that has to be there before its first superstep.
    base::Task<base::Status> prepare(RunHandle run);
    base::Task<base::Status> load_position(const Run& run);
    /// A run that came to nothing leaves the thread's questions as they are.
    void keep_asking(graph::RunResult& result) const;
    /// What the attempts before this one made durable goes into the log once more.
    base::Task<base::Status> replay_log(Run& run);
    /// @return invalid_argument if the run answers what is not asked
    base::Result<graph::RunSpec> spec_of(Run& run) const;
    void end_run(const RunHandle& run, graph::RunResult result, RunOutcome outcome);
    void settle(const RunHandle& run, RunOutcome outcome);
    /// A doomed one's turn; its readers get the events that it has made.
    base::Task<> give_up(RunHandle run);
    /// Whether the thread still asks what it asked when the run was begun.
    base::Task<base::Result<bool>> is_still_asked(const Run& run) const;
    /// Nothing executes any more: gives the thread up with the last write.
    void release_thread();
    void put_in(const RunHandle& run);
    void take_out(const Run& run);
    void count_runs(std::int64_t running, std::int64_t waiting);
    void count_bytes(std::size_t bytes);
    /// What the thread holds may have changed.
    void weigh();
    void note_graph(const Run& run);
    void set_run_status(const Run& run,
                        storage::RunStatus status,
                        std::string error,
                        std::int32_t attempt);

    /// What its superstep left in the tool ledger goes with the same write.
    void append_row(storage::JournalRow row);
    void write_soon(Written done);
    base::Task<base::Status> write_now();
    base::Task<base::Status> roll_back_now(storage::Seq to,
                                           base::RunId run,
                                           storage::ThreadStatus left);
    /// Commits `write` before everything that is pending, and apart from it.
    /// @param then  called at once when it is on disk, before anything else is written
    base::Task<base::Status> write_alone(storage::ThreadWrite write,
                                         base::UniqueFunction<void()> then = {});
    base::Task<base::Status> delete_now(std::int64_t if_expires_at_us, base::Error told);

    // session_retention.cpp
    /// What a repeat with an Idempotency-Key is answered with outlives the thread's time to live.
    base::Task<> keep_for_key();
    base::Task<base::Status> keep_latest();
    /// Takes the rows below `first` away, which must be on disk and not above the head, while no
    /// run is here that could want them back.
    base::Task<base::Status> prune(storage::Seq first, bool stop_ttl);
    void prune_soon();
    base::Task<> prune_old();
    [[nodiscard]] storage::Seq head() const noexcept {
        return position_ ? position_->seq : thread_.head;
    }
    void post_flush();
    void flush();
    void on_made(const base::Result<storage::ThreadKey>& key);
    void on_flushed(const base::Status& status);

    SessionContext& context_;
    storage::ThreadRow thread_;
    storage::Epoch epoch_;
    std::optional<storage::ThreadClaim> fresh_;  ///< until the thread is made
    std::optional<base::Error> not_made_;
    base::Signal made_;
    std::optional<graph::Position> position_;
    std::shared_ptr<const graph::Graph> graph_;  ///< the one position_ was built for
    /// The store may hold tool calls of the superstep that starts from this row, and of none after.
    std::optional<storage::Seq> tool_calls_seq_;
    bool graph_noted_ = false;
    ThreadQueue queue_;
    std::unordered_map<base::RunId, RunHandle> runs_;  ///< waiting and executing
    std::int64_t newest_created_us_ = 0;               ///< of those
    std::optional<base::Error> lost_;
    bool handing_over_ = false;
    bool releasing_ = false;           ///< nothing executes here any more
    bool between_supersteps_ = false;  ///< the executing run waits for its checkpoint's commit
    std::uint64_t settled_runs_ = 0;
    base::Signal idle_changed_;
    std::int64_t counted_running_ = 0;  ///< this session's share of the gauges
    std::int64_t counted_waiting_ = 0;
    std::size_t runs_bytes_ = 0;  ///< the same of SessionContext::open_runs_bytes
    std::size_t bytes_ = 0;       ///< of the thread's state and its row, as text
    bool is_weighed_ = true;

    bool pruning_ = false;
    base::Instant prune_again_at_{};

    struct Alone {
        storage::ThreadWrite write;
        Written done;
    };
    storage::ThreadWrite pending_;
    std::deque<Alone> alone_;  ///< go before pending_, each by itself
    bool dirty_ = false;       ///< pending_ holds something
    bool writing_ = false;     ///< a write is on its way
    bool flush_posted_ = false;
    std::vector<Written> on_written_;  ///< for pending_
    std::vector<Written> in_flight_;   ///< for the write on its way
};

}  // namespace heddle::scheduler
