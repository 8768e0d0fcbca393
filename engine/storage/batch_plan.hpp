#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/storage/store.hpp"

/// How a batch of operations becomes one statement: which of them may go together, and what they
/// amount to when several belong to one thread. Pure; everything points into the writes given.
namespace heddle::storage {

/// Decides how long a prefix of the waiting operations may be carried out as: first all claims,
/// then all writes (merged per thread), then all deletions. Where that would change the order seen
/// by one thread, or where two writes of it cannot be merged, the batch is cut.
class BatchCut {
public:
    /// @return false if the batch must end before this operation (which is then not part of it)
    [[nodiscard]] bool admit(const ThreadClaim& claim);
    [[nodiscard]] bool admit(const ThreadWrite& write);

private:
    enum class Phase : std::uint8_t { claim, write, sealed };
    struct Seen {
        Phase phase = Phase::claim;
        Epoch epoch = 0;
    };
    std::unordered_map<ThreadId, Seen> seen_;
};

struct MergedThread {
    ThreadKey key = 0;
    Epoch epoch = 0;
    std::optional<ThreadStatus> status;
    const std::string* metadata = nullptr;    ///< null: unchanged
    const std::string* interrupts = nullptr;  ///< null: unchanged
    Seq head = kNoSeq;                        ///< kNoSeq: unchanged
    bool release = false;
};
struct PlannedJournal {
    ThreadKey key = 0;
    const JournalRow* row = nullptr;
};
/// A run to insert. What later writes of the batch changed in it is folded in.
struct PlannedRun {
    ThreadKey key = 0;
    const RunRow* row = nullptr;
    RunStatus status = RunStatus::pending;
    std::int32_t attempt = 0;
    const std::string* error = nullptr;
};
struct PlannedUpdate {
    ThreadKey key = 0;
    const RunUpdate* update = nullptr;
};
struct PlannedDelete {
    ThreadKey key = 0;
    RunId id;
};

struct PlannedToolCall {
    ThreadKey key = 0;
    const ToolCallRow* row = nullptr;
};
struct PlannedDone {
    ThreadKey key = 0;
    Seq seq = kNoSeq;  ///< tool calls of checkpoints up to this one go
};

struct BatchPlan {
    std::vector<MergedThread> threads;  ///< each key once, ascending: locks are taken in one order
    std::vector<PlannedJournal> journal;
    std::vector<PlannedRun> new_runs;
    std::vector<PlannedUpdate> run_updates;  ///< each run once: the last one counts
    std::vector<PlannedDelete> deleted_runs;
    std::vector<PlannedToolCall> tool_calls;   ///< each once: the last one counts; none that goes
    std::vector<PlannedDone> tool_calls_done;  ///< each key once
};

/// @param writes  in the order of the calls, admitted by one BatchCut, none that stands alone; must
/// outlive the plan
BatchPlan plan_batch(std::span<const ThreadWrite* const> writes);

}  // namespace heddle::storage
