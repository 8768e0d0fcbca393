#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/shard.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/scheduler/catalog.hpp"
#include "engine/scheduler/lease.hpp"
#include "engine/scheduler/run.hpp"
#include "engine/storage/store.hpp"

namespace heddle::scheduler {

struct SchedulerLimits {
    std::size_t sessions_max = 16384;  ///< idle threads kept in memory per shard
    /// What they hold as text, with those that have runs; past it idle ones go. Per shard.
    std::size_t threads_bytes_max = 256U << 20U;
    std::size_t waiting_runs_max = 1024;  ///< per thread
    /// Text of the rows of all runs that have not ended, per shard; past it (see base::has_room)
    /// overloaded.
    std::size_t open_runs_bytes_max = 256U << 20U;
    std::size_t run_log_bytes_max = 8U << 20U;        ///< events of one run in memory
    std::size_t active_logs_bytes_max = 256U << 20U;  ///< of all that have not ended, per shard
    /// Of what happens while one superstep runs, kept on disk with stream_resumable.
    std::size_t live_bytes_max = 4U << 20U;
    std::int32_t attempts_max = 3;                   ///< starts of one run over all engines
    base::Duration lease = std::chrono::seconds{2};  ///< as StoreLimits::lease
    base::Duration owner_wait_max = std::chrono::seconds{3};   ///< for a dead owner's lease to pass
    base::Duration ended_run_kept = std::chrono::seconds{60};  ///< in memory, for late joiners
    std::size_t ended_runs_bytes_max = 64U << 20U;             ///< of those runs, per shard
    // ---- retention (ADR 0008)
    base::Duration key_kept = std::chrono::hours{24};  ///< an Idempotency-Key, from its first use
    /// A temporary thread after its run has ended, for a client or an edge that asks again.
    base::Duration temporary_kept = std::chrono::seconds{60};
    std::optional<storage::ThreadTtl> thread_ttl;  ///< of threads that are made without one
    std::int64_t checkpoints_kept = 0;             ///< of a thread, the newest; 0: all
};

/// Thread state at one checkpoint, as state and history show it.
struct StateAt {
    storage::JournalRow row;  ///< data is empty
    graph::CheckpointHead head;
    std::string values = "{}";             ///< compact JSON text
    base::CheckpointId parent_checkpoint;  ///< nil: none
};

/// The events of a run that has ended.
struct LoadedEvents {
    std::vector<LoggedEvent> events;
    /// Those up to here may have been pruned with their checkpoints; unset: it is all there.
    std::optional<EventId> cut_at;
    std::vector<LoggedEvent> stop;  ///< that it stopped to be told something
    base::CheckpointId checkpoint;  ///< its newest; nil: none
};

/// Some of the events of a run that may still be executing.
struct EventPage {
    std::vector<LoggedEvent> events;
    std::optional<EventId> to;      ///< unset: there is no more on disk
    std::optional<EventId> cut_at;  ///< as LoadedEvents
    std::uint64_t rows = 0;         ///< of the thread, up to its newest that is on disk
    base::CheckpointId checkpoint;  ///< its newest on disk; nil: none
};

class ThreadSession;

enum class IfExists : std::uint8_t { raise, do_nothing };

/// Everything one shard does with its threads: claims them, queues and executes their runs, writes
/// for them. One per shard; every method is called on that shard, with threads that live there
/// (ShardPool::of). Errors common to those that need the thread:
///   not_found        no such thread
///   owned_elsewhere  a live engine owns it; Error::message is its endpoint, Error::field its
///                    engine_id; nothing was done
///   unavailable, overloaded, timeout   from the store; nothing was done
class ShardScheduler {
public:
    /// All references must outlive it.
    ShardScheduler(base::Shard& shard,
                   storage::Store& store,
                   const Catalog& catalog,
                   observe::Metrics& metrics,
                   SchedulerLimits limits,
                   const Lease& lease);
    ~ShardScheduler();
    ShardScheduler(const ShardScheduler&) = delete;
    ShardScheduler& operator=(const ShardScheduler&) = delete;

    /// Claims the thread if need be, decides by the strategy and queues or starts the run. Returns
    /// before the run is on disk: wait_accepted() before anybody hears of it.
    /// @param wait_for_owner  the caller found the owner dead: wait for its lease to pass instead
    /// of
    ///                        answering owned_elsewhere
    /// @return thread_busy            strategy reject, and a run is waiting or executing
    ///         idempotency_mismatch   run_id is known with another request_hash
    ///         conflict               the thread belongs to another graph
    ///         not_found              also: request.must_exist, and there is no such run
    ///         unsupported            the thread does not stand at request.from_checkpoint
    base::Task<base::Result<RunHandle>> submit(RunRequest request, bool wait_for_owner);

    /// @return nullptr if this engine does not hold the run in memory
    [[nodiscard]] RunHandle find_run(const base::ThreadId& thread, const base::RunId& run) const;

    /// Stops a waiting or executing run: it ends as `interrupted`. Returns when it has been told
    /// to and that is on disk, not when it has ended (wait_finished).
    /// @return not_found; ok if it had ended already
    /// @param roll_back  its row and its checkpoints go as well
    base::Task<base::Status> cancel_run(base::ThreadId thread, base::RunId run, bool roll_back);

    base::Task<base::Result<storage::ThreadRow>> create_thread(
        base::ThreadId thread,
        std::string metadata,
        IfExists if_exists,
        std::optional<storage::ThreadTtl> ttl = std::nullopt);
    /// Merges `metadata` (JSON object, top level) into the thread's; a time to live begins now.
    base::Task<base::Result<storage::ThreadRow>> patch_thread(
        base::ThreadId thread,
        base::Json metadata,
        std::optional<storage::ThreadTtl> ttl = std::nullopt);
    /// Cancels its runs, then deletes the thread with everything it has.
    base::Task<base::Status> delete_thread(base::ThreadId thread);
    /// Deletes a run that has ended. @return conflict while it is waiting or executing
    base::Task<base::Status> delete_run(base::ThreadId thread, base::RunId run);

    // ---- reading what is on disk; works for threads of any engine

    /// @param checkpoint  unset: the newest. @return nullopt inside if the thread has none yet
    base::Task<base::Result<std::optional<StateAt>>> load_state(
        base::ThreadId thread, std::optional<base::CheckpointId> checkpoint);
    /// Newest first. @param before  only checkpoints older than this one
    base::Task<base::Result<std::vector<StateAt>>> load_history(
        base::ThreadId thread, std::optional<base::CheckpointId> before, std::int32_t limit);

    /// How a run that has ended did so: its values are those of its newest checkpoint, "{}" if it
    /// made none; for one that asks, those of the checkpoint where it stopped.
    /// @return not_found  also: they were pruned
    base::Task<base::Result<RunOutcome>> load_outcome(storage::RunRow row);
    /// RunOutcome::values of a run that has ended, where they were left out.
    base::Task<base::Result<std::string>> load_values(base::ThreadId thread, base::RunId run);
    /// The events of an ended run's supersteps, in order; none if its stream modes were none.
    /// Where events were not kept, one that is `lost` says so.
    base::Task<base::Result<LoadedEvents>> load_run_events(storage::RunRow row);
    /// The same of a run that may still be executing, as far as its rows are on disk: those above
    /// `after`, until they weigh `bytes_max`; at least those of one row.
    base::Task<base::Result<EventPage>> load_events_after(base::ThreadId thread,
                                                          base::RunId run,
                                                          EventId after,
                                                          std::size_t bytes_max);

    // ---- retention (called by Sweeper)

    /// Does what their strategies say to threads whose time is over, some at once, unless somebody
    /// has taken them up meanwhile.
    /// @return how many it was done to
    base::Task<std::size_t> expire(std::vector<storage::ExpiredThread> due);

    // ---- ownership (called by Ownership)

    /// Claims an orphan and resumes its unfinished runs.
    void recover(base::ThreadId thread);
    /// The lease was lost: no further write, stop every run, forget every thread. Clients get
    /// `unavailable`; the runs go on elsewhere.
    void abandon_all();
    /// This engine leaves: each thread goes to whoever wants it next as soon as its superstep is on
    /// disk. Clients get `unavailable`; the runs go on elsewhere, and it counts as no attempt.
    void hand_over_all();
    /// Its time to do so is over: what a superstep has not ended is begun again elsewhere. Counts
    /// as no attempt either.
    void hand_over_now();
    /// See Scheduler::stop(). Called when the shard has stopped, from any OS thread.
    void drop_waiters();
    /// @return runs waiting or executing
    [[nodiscard]] std::size_t active_runs() const noexcept;

private:
    class Sessions;
    struct Round;
    base::Task<base::Result<RunHandle>> submit_first(ThreadSession& session, RunRequest& request);
    base::Task<base::Result<RunHandle>> ended_run(RunRequest request, storage::RunRow row);
    /// What the run left behind; nullopt inside if it made no checkpoint, not_found if those that
    /// it made may have been pruned.
    base::Task<base::Result<std::optional<StateAt>>> load_run_state(base::ThreadId thread,
                                                                    base::RunId run);

    std::unique_ptr<Sessions> sessions_;
};

/// The shards' schedulers, and whether new work is taken.
class Scheduler {
public:
    Scheduler(base::ShardPool& shards,
              storage::Store& store,
              const Catalog& catalog,
              observe::Metrics& metrics,
              SchedulerLimits limits);

    /// Stops the shards for good, and lets go of the coroutines that wait in sessions, which they
    /// hold in turn. Their loops must still be there, and the scheduler until they are not.
    void stop();

    [[nodiscard]] ShardScheduler& at(std::size_t shard_index) { return *shards_[shard_index]; }
    [[nodiscard]] ShardScheduler& of(const base::ThreadId& thread) {
        return at(pool_.of(thread).index());
    }
    [[nodiscard]] base::ShardPool& pool() noexcept { return pool_; }
    [[nodiscard]] const Catalog& catalog() const noexcept { return catalog_; }
    [[nodiscard]] storage::Store& store() noexcept { return store_; }
    [[nodiscard]] observe::Metrics& metrics() noexcept { return metrics_; }
    [[nodiscard]] const SchedulerLimits& limits() const noexcept { return limits_; }
    /// Ownership keeps it; no thread is opened while it is over.
    [[nodiscard]] Lease& lease() noexcept { return lease_; }

private:
    base::ShardPool& pool_;
    storage::Store& store_;
    const Catalog& catalog_;
    observe::Metrics& metrics_;
    const SchedulerLimits limits_;
    Lease lease_;
    std::vector<std::unique_ptr<ShardScheduler>> shards_;
};

}  // namespace heddle::scheduler
