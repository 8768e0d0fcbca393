#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/graph/row_events.hpp"
#include "engine/scheduler/catalog.hpp"
#include "engine/scheduler/scheduler.hpp"
#include "engine/storage/store.hpp"

/// Reading committed checkpoints back: needs no ownership, any engine, any shard.
namespace heddle::scheduler {

/// @param checkpoint  unset: the newest
/// @return nullopt inside if the thread has no checkpoint yet
///         not_found   no such thread or checkpoint
///         conflict    the thread's assistant is not served by this engine
base::Task<base::Result<std::optional<StateAt>>> read_state(
    storage::Store& store,
    const Catalog& catalog,
    base::ThreadId thread,
    std::optional<base::CheckpointId> checkpoint);

/// The values at a checkpoint, through the channels of the graph that made it, if they are in
/// memory: compact JSON text.
using KnownValues =
    std::function<std::optional<std::string>(const base::CheckpointId&, const graph::Channels&)>;

/// The same of the newest checkpoint, which is likely to be known: of the store's rows only the
/// newest is read, and says which checkpoint that is.
base::Task<base::Result<std::optional<StateAt>>> read_newest_state(storage::Store& store,
                                                                   const Catalog& catalog,
                                                                   base::ThreadId thread,
                                                                   KnownValues known);

/// Newest first, at most `limit` (1..1000); reads each snapshot chain once, however many of its
/// rows are asked for.
base::Task<base::Result<std::vector<StateAt>>> read_history(
    storage::Store& store,
    const Catalog& catalog,
    base::ThreadId thread,
    std::optional<base::CheckpointId> before,
    std::int32_t limit);

/// What a thread's journal row `at` must hold so that it no longer needs the rows before it; empty
/// if it needs none now.
/// @return not_found  no such row
///         conflict   more than one agent wrote to it, or one that this engine does not serve: the
///                    state cannot be told without losing what the other one's channels hold
base::Task<base::Result<std::string>> make_snapshot(storage::Store& store,
                                                    const Catalog& catalog,
                                                    base::ThreadId thread,
                                                    storage::Seq at);

/// The newest row in [from, to] that was made at `until_us` or before; kNoSeq if there is none.
/// Rows must not get older with their seq. O(log rows) reads.
base::Task<base::Result<storage::Seq>> find_last_before(storage::Store& store,
                                                        base::ThreadId thread,
                                                        storage::Seq from,
                                                        storage::Seq to,
                                                        std::int64_t until_us);

/// The newest checkpoint that `run` made, without its data; nullopt inside if it made none.
base::Task<base::Result<std::optional<storage::JournalRow>>> find_newest_row(storage::Store& store,
                                                                             base::ThreadId thread,
                                                                             base::RunId run);

/// @return not_found  no such checkpoint, or it was pruned
base::Task<base::Result<storage::Seq>> find_seq_of(storage::Store& store,
                                                   base::ThreadId thread,
                                                   base::CheckpointId checkpoint);

/// The newest row before those of `run`, which is the thread's newest run; kNoSeq if there is none.
base::Task<base::Result<storage::Seq>> find_seq_before(storage::Store& store,
                                                       base::ThreadId thread,
                                                       base::RunId run);

struct RunEvents {
    std::vector<graph::RowEvent> events;
    /// Rows of the run below this one may have been pruned; unset: it is all there.
    std::optional<storage::Seq> cut_at;
    storage::Seq newest = storage::kNoSeq;  ///< row of the run, if it made one
    bool has_next = false;                  ///< nodes were to follow that row
    base::CheckpointId checkpoint;          ///< of that row
    storage::Seq to = storage::kNoSeq;      ///< rows of a part: the last that was read
};
/// A part of a run's rows: from `from` on until they weigh `bytes_max`, and at least one; 0: all.
struct RowRange {
    storage::Seq from = 0;
    std::size_t bytes_max = 0;
};
/// The events of all supersteps of `run` that are on disk, in order.
/// @return as read_state()
base::Task<base::Result<RunEvents>> read_run_events(storage::Store& store,
                                                    const Catalog& catalog,
                                                    base::ThreadId thread,
                                                    base::RunId run,
                                                    RowRange range = {});

}  // namespace heddle::scheduler
