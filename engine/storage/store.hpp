#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"
#include "engine/base/uuid.hpp"

/// The storage port: what the engine needs of a database, and nothing of how one does it.
/// Drivers: storage/memory, storage/sqlite, storage/postgres; all pass tests/conformance.
namespace heddle::storage {

using base::CheckpointId;
using base::Completion;
using base::EngineId;
using base::Result;
using base::RunId;
using base::Status;
using base::ThreadId;

/// Surrogate of a ThreadId inside one store: small, dense, first column of every key.
using ThreadKey = std::int64_t;
/// Raised by every claim; a write that carries an older one is refused whole.
using Epoch = std::int64_t;
/// Position of a superstep in its thread's journal, from 0, without gaps.
using Seq = std::int64_t;
inline constexpr Seq kNoSeq = -1;

enum class ThreadStatus : std::uint8_t { idle, busy, interrupted, error };
enum class RunStatus : std::uint8_t { pending, running, success, error, timeout, interrupted };

std::string_view to_string(ThreadStatus status) noexcept;
std::string_view to_string(RunStatus status) noexcept;
std::optional<ThreadStatus> parse_thread_status(std::string_view text) noexcept;
std::optional<RunStatus> parse_run_status(std::string_view text) noexcept;
/// Whether a run in this status will never change again.
bool is_final(RunStatus status) noexcept;

/// What becomes of a thread that nobody has written to for a while (ADR 0008).
enum class TtlStrategy : std::uint8_t {
    delete_thread,  ///< "delete" in the API: it goes with all it has
    keep_latest,    ///< its newest checkpoint stays, the older ones go
    temporary,      ///< as delete_thread; searches do not show it
};
/// As in the HTTP API; a temporary thread is never shown.
std::string_view to_string(TtlStrategy strategy) noexcept;

inline constexpr base::Duration kTtlMax = std::chrono::hours{24 * 3653};

struct ThreadTtl {
    TtlStrategy strategy = TtlStrategy::delete_thread;
    /// Since the last write, by the database's clock; above 0, at most kTtlMax, whole microseconds.
    base::Duration after{};
    friend bool operator==(const ThreadTtl&, const ThreadTtl&) = default;
};

struct ThreadRow {
    ThreadKey key = 0;
    ThreadId id;
    ThreadStatus status = ThreadStatus::idle;
    std::string metadata = "{}";    ///< JSON object
    std::string interrupts = "{}";  ///< JSON object, as the API's Thread.interrupts
    Seq head = kNoSeq;              ///< newest journal row of the current line
    Seq first = 0;                  ///< oldest journal row that has not been pruned
    std::int64_t created_at_us = 0;
    std::int64_t updated_at_us = 0;
    std::optional<ThreadTtl> ttl;
    std::int64_t expires_at_us = 0;  ///< by the database's clock; 0: not until it is written to
};

struct RunRow {
    RunId id;
    ThreadId thread_id;
    base::AssistantId assistant_id;
    RunStatus status = RunStatus::pending;
    std::string metadata = "{}";  ///< JSON object
    std::string kwargs = "{}";    ///< JSON object: everything needed to execute it again
    std::string multitask_strategy = "enqueue";
    std::string request_hash;  ///< of the body that made it: a repeat must match. At most 64 bytes
    std::string error;         ///< JSON object that says how it ended, unless well; opaque here
    std::int32_t attempt = 0;  ///< how many times an engine has started it
    std::int64_t created_at_us = 0;
    std::int64_t updated_at_us = 0;
};

/// One superstep. `head` is what listings need, `data` what the state needs.
struct JournalRow {
    Seq seq = 0;
    Seq parent = kNoSeq;  ///< seq of the parent checkpoint; seq - 1 unless forked
    Seq base = 0;  ///< seq of the snapshot row that this row's chain begins with; == seq on a
                   ///< snapshot. Rows base..seq are one unbroken line.
    CheckpointId checkpoint_id;
    RunId run_id;            ///< the run that made it; nil for a state update by hand
    std::int32_t step = -1;  ///< LangGraph's metadata.step
    std::string head;        ///< JSON: source, next, tasks, metadata. Opaque here
    std::string data;        ///< delta or snapshot, encoded by engine/graph. Opaque here
    std::int64_t created_at_us = 0;
};

/// What the state at a thread's newest row is built from.
struct StateRows {
    JournalRow newest;    ///< its data is empty
    CheckpointId parent;  ///< of the row newest.parent; may be nil if that is not in the chain
    Seq first = 0;        ///< the chain's oldest row
    std::string data;     ///< of the rows first..newest.seq, one behind the other
    std::vector<std::size_t> ends{};  ///< where each row's ends in it, ascending
};

struct RunUpdate {
    RunId id;
    RunStatus status = RunStatus::running;
    std::int32_t attempt = 0;
    std::string error;
};

/// Takes the oldest rows from a thread's journal. For every reader they are gone with this write;
/// the disk is cleared in slices of the caller's choice.
struct JournalPrune {
    Seq first = 0;  ///< the oldest row that stays; at most the thread's head
    /// What row `first` holds from now on, the whole state; empty: as it is, because it was a
    /// snapshot already or an earlier prune has seen to it.
    std::string snapshot;
    Seq delete_below = 0;  ///< rows below it leave the disk; at most `first`
    /// Runs that ended longer ago than this, by the database's clock, and of which no row is left
    /// go as well.
    base::Duration runs_kept = kTtlMax;
    bool stop_ttl = false;  ///< the thread does not expire again until it is written to
};

/// One call of a tool, recorded before it is made (ADR 0011). Its key is thread, seq, task_id and
/// number.
struct ToolCallRow {
    Seq seq = 0;              ///< of the checkpoint from which the superstep that makes it starts
    base::Uuid task_id;       ///< of its task in that superstep
    std::int32_t number = 0;  ///< of the call within the task, from 0
    RunId run_id;             ///< the run that made it, or made it again, last
    std::string answer;       ///< encoded by engine/nodes, opaque here; empty: none is known
};

/// Everything that changes for one thread, committed together or not at all.
struct ThreadWrite {
    ThreadKey key = 0;
    ThreadId thread_id;
    Epoch epoch = 0;
    std::optional<ThreadStatus> status;
    std::optional<std::string> metadata;
    std::optional<std::string> interrupts;
    std::vector<JournalRow> journal;  ///< ascending; head moves to the last one
    std::vector<RunRow> new_runs;
    std::vector<RunUpdate> run_updates;
    std::vector<RunId> deleted_runs;
    /// Added, or put in the place of those with the same key.
    std::vector<ToolCallRow> tool_calls;
    /// The tool calls of checkpoints up to this one go: their supersteps are over. No write of the
    /// thread adds any with such a seq after it. kNoSeq: none go.
    Seq tool_calls_done = kNoSeq;
    /// The journal rows above it go, with their tool calls, and head moves to it (kNoSeq: the
    /// thread has none left). Stands alone with deleted_runs and status.
    std::optional<Seq> rollback_to;
    /// Counts as no use of the thread. Stands alone.
    std::optional<JournalPrune> prune;
    /// Another time to live, which begins now. Stands alone.
    std::optional<ThreadTtl> ttl;
    base::Duration ttl_kept{};   ///< with ttl: it does not expire earlier than that, this time
    bool delete_thread = false;  ///< with all its rows; everything else is ignored
    /// With delete_thread: only if this is when the thread expires, else stale_epoch. 0: in any
    /// case.
    std::int64_t if_expires_at_us = 0;
    bool release = false;  ///< give up ownership with this write
};

struct ThreadClaim {
    ThreadId thread_id;
    bool create_if_missing = false;
    std::string metadata = "{}";   ///< of a thread created by this claim
    std::optional<ThreadTtl> ttl;  ///< likewise
    /// false: the claim may be lost if the database crashes before the next durable write (writes
    /// of its epoch are then refused). For callers that tell nobody before such a write is done.
    bool durable = true;
};

struct ClaimOutcome {
    enum class Kind : std::uint8_t {
        claimed,          ///< the thread was there and is ours now
        created,          ///< it was not, and is ours now
        owned_elsewhere,  ///< a live engine owns it: owner and owner_endpoint are set
        missing,          ///< it does not exist and was not to be created
    };
    Kind kind = Kind::missing;
    ThreadRow thread;
    Epoch epoch = 0;
    std::vector<RunRow> unfinished_runs;  ///< pending and running ones, oldest first
    EngineId owner;
    std::string owner_endpoint;
};

struct ThreadFilter {
    std::vector<ThreadId> ids;  ///< at most 1000; empty: any
    std::optional<ThreadStatus> status;
    std::string metadata_contains;  ///< JSON object or empty
    enum class SortBy : std::uint8_t { thread_id, status, created_at, updated_at };
    SortBy sort_by = SortBy::created_at;
    bool ascending = false;
    std::int32_t limit = 10;  ///< 1..1000
    std::int32_t offset = 0;
    std::int64_t count_max = std::numeric_limits<std::int64_t>::max();  ///< counts go no further
};

struct RunFilter {
    std::optional<RunStatus> status;
    std::int32_t limit = 10;  ///< 1..1000; newest first
    std::int32_t offset = 0;
};

/// A thread whose time is over.
struct ExpiredThread {
    ThreadKey key = 0;
    ThreadId id;
    Epoch epoch = 0;
    bool is_ours = false;  ///< this engine owns it; else nobody alive does
    TtlStrategy strategy = TtlStrategy::delete_thread;
    std::int64_t expires_at_us = 0;
    Seq rows = 0;  ///< of its journal
};

/// An Idempotency-Key that a client gave, and what its first request makes of it.
struct KeyClaim {
    std::string key;  ///< with its scope, hashed: 1 to kKeyBytesMax bytes
    ThreadId thread;
    RunId run;
    base::Duration kept{};  ///< from now, by the database's clock; above 0, at most kTtlMax
};
struct KeyHolder {
    ThreadId thread;
    RunId run;
    bool is_new = false;  ///< this claim's own, or a repeat of it after a lost connection
};

struct EngineRow {
    EngineId id;
    std::string endpoint;
    bool draining = false;
};

struct StoreLimits {
    base::Duration lease = std::chrono::seconds{2};  ///< an engine silent for longer may be robbed
    std::size_t batch_rows_max = 512;
    std::size_t batch_bytes_max = 2U << 20U;
    std::size_t waiting_max = 16384;  ///< writes that may wait; past it `overloaded`
    base::Duration wait_max = std::chrono::seconds{10};  ///< any one operation, then `timeout`
};

/// One engine's view of the store. Every method may be called from any OS thread, returns at once
/// and calls its completion exactly once, on an OS thread of the driver, or in the loop that the
/// calling OS thread runs (or, for memory, before it returns); completions must neither block nor
/// end the store. Writes of one thread are carried out in the order of the
/// calls. A refusal (overloaded, invalid_argument) may come before the call returns in every
/// driver. Errors common to all: overloaded (queue full, nothing done), unavailable (no connection,
/// nothing done), timeout (nothing done), in_doubt (connection lost in commit and the read-back
/// failed too: it may be done even later, until a new claim settles it), invalid_argument (a limit
/// out of bounds, metadata that is no JSON object or holds U+0000, a text that is not UTF-8;
/// nothing done), internal.
///
/// Destroying a store finishes or fails what waits and joins its OS threads.
class Store {
public:
    virtual ~Store() = default;

    /// The driver's name for logs and /info: "memory", "sqlite", "postgres".
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;

    // ---- engines

    /// Makes this engine known and alive; to be called before any claim, and again (with a new id)
    /// after a lost lease.
    virtual void register_engine(EngineRow engine, Completion<Status> done) = 0;
    /// Renews the lease by the database's clock.
    /// @return not_found if the row is gone; stale_epoch if the lease had already expired (others
    ///         may have claimed our threads): the engine abandons its runs and registers anew.
    virtual void heartbeat(bool draining, Completion<Status> done) = 0;
    /// Deletes the engine's row: what it still owned may be claimed at once.
    virtual void unregister_engine(Completion<Status> done) = 0;
    /// Those whose lease has not passed, by id.
    virtual void list_engines(Completion<Result<std::vector<EngineRow>>> done) = 0;

    // ---- ownership

    /// One statement: takes the thread if nobody owns it, this engine does already, or its owner's
    /// lease has passed. A successful claim raises the epoch and is committed. Calls for one thread
    /// must not overlap.
    virtual void claim(ThreadClaim claim, Completion<Result<ClaimOutcome>> done) = 0;
    /// Threads with unfinished runs whose owner is dead or gone; what other engines examine at the
    /// same moment is skipped where the database can (SKIP LOCKED). Claims nothing.
    /// @param limit 1..1000
    virtual void find_orphans(std::int32_t limit,
                              Completion<Result<std::vector<ThreadId>>> done) = 0;

    // ---- writing

    /// Makes a thread that is not there yet and carries out its first write, in one commit: what a
    /// claim of a missing thread and a write of its epoch, 1, would do. Durable when `done` is
    /// called with the thread's key. After in_doubt a claim settles what became of it.
    /// @param claim  create_if_missing and durable are taken for granted
    /// @param first  key and epoch are set by the driver; nothing that stands alone
    /// @return conflict  the thread exists, or one of the runs does; nothing was done
    virtual void create(ThreadClaim claim,
                        ThreadWrite first,
                        Completion<Result<ThreadKey>> done) = 0;
    /// Commits `write` if this engine owns the thread and write.epoch is still the thread's;
    /// durable when `done` is called. Updates and deletions of runs that do not exist are ignored.
    /// On an error nothing was written.
    /// @return stale_epoch  another engine has claimed the thread, or it was released
    ///         conflict     a run or journal row with that key exists already
    ///         not_found    no such thread (deleted)
    virtual void write(ThreadWrite write, Completion<Status> done) = 0;

    // ---- retention (ADR 0008)

    /// Threads whose time to live is over, that have no unfinished run and belong to this engine or
    /// to nobody alive; longest expired first. Claims nothing.
    /// @param limit 1..1000
    virtual void find_expired(std::int32_t limit,
                              Completion<Result<std::vector<ExpiredThread>>> done) = 0;
    /// Whose the key is: the thread and run of the first claim, until its time is over and that run
    /// has ended; then those of the next. What becomes of the run is not looked at. Durable when
    /// `done` is called.
    virtual void claim_key(KeyClaim claim, Completion<Result<KeyHolder>> done) = 0;
    /// Deletes keys whose time is over. @return how many, at most `limit` (1..1000)
    virtual void delete_expired_keys(std::int32_t limit, Completion<Result<std::int32_t>> done) = 0;

    // ---- reading; needs no ownership and sees what is committed

    virtual void load_thread(ThreadId thread, Completion<Result<ThreadRow>> done) = 0;
    /// The rows base..seq from which the state at `seq` is built, ascending.
    /// Where older rows were pruned, the chain begins with the oldest that is left, and that is
    /// the base of its rows.
    /// @param at  kNoSeq means the thread's head; an empty vector if the thread has no checkpoint
    /// @return not_found if there is no such thread or row
    virtual void load_chain(ThreadId thread,
                            Seq at,
                            Completion<Result<std::vector<JournalRow>>> done) = 0;
    /// The chain of the thread's head in a form that costs little however long it is.
    /// @return nullopt inside if the thread has no checkpoint; not_found if there is no such thread
    virtual void load_newest(ThreadId thread,
                             Completion<Result<std::optional<StateRows>>> done) = 0;
    /// As load_chain, by checkpoint.
    virtual void load_chain_of(ThreadId thread,
                               CheckpointId checkpoint,
                               Completion<Result<std::vector<JournalRow>>> done) = 0;
    /// Newest first, `data` left empty, only rows with seq < before (kNoSeq: from the newest).
    /// @param limit 1..1000
    virtual void list_journal(ThreadId thread,
                              Seq before,
                              std::int32_t limit,
                              Completion<Result<std::vector<JournalRow>>> done) = 0;
    /// The calls on record for the superstep that starts from `seq`, by task_id and number; none if
    /// there is no such thread.
    virtual void load_tool_calls(ThreadId thread,
                                 Seq seq,
                                 Completion<Result<std::vector<ToolCallRow>>> done) = 0;
    virtual void load_run(ThreadId thread, RunId run, Completion<Result<RunRow>> done) = 0;
    /// For stateless routes that know only the run.
    virtual void find_run(RunId run, Completion<Result<RunRow>> done) = 0;
    virtual void list_runs(ThreadId thread,
                           RunFilter filter,
                           Completion<Result<std::vector<RunRow>>> done) = 0;
    /// Neither this nor count_threads sees temporary threads.
    virtual void search_threads(ThreadFilter filter,
                                Completion<Result<std::vector<ThreadRow>>> done) = 0;
    virtual void count_threads(ThreadFilter filter, Completion<Result<std::int64_t>> done) = 0;
};

}  // namespace heddle::storage
