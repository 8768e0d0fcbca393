#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <variant>
#include <vector>

#include "engine/base/error.hpp"
#include "engine/base/uuid.hpp"

namespace heddle::scheduler {

/// What to do when a run arrives while another one is waiting or executing on its thread; spelled
/// as multitask_strategy in the API.
enum class MultitaskStrategy : std::uint8_t { reject, enqueue, interrupt, rollback };

struct StartRun {
    base::RunId run;
    friend bool operator==(const StartRun&, const StartRun&) = default;
};
/// Tell the executing run to stop; it still ends through finished().
struct CancelRun {
    base::RunId run;
    friend bool operator==(const CancelRun&, const CancelRun&) = default;
};
/// A waiting run left the queue without having been started.
struct DropRun {
    base::RunId run;
    friend bool operator==(const DropRun&, const DropRun&) = default;
};
/// As CancelRun; when it has ended, it and its checkpoints are taken back.
struct RollBackRun {
    base::RunId run;
    friend bool operator==(const RollBackRun&, const RollBackRun&) = default;
};
/// A waiting run left the queue as if it had never been.
struct RemoveRun {
    base::RunId run;
    friend bool operator==(const RemoveRun&, const RemoveRun&) = default;
};
struct RefuseRun {
    base::RunId run;
    base::ErrorCode code;
    friend bool operator==(const RefuseRun&, const RefuseRun&) = default;
};
using Action = std::variant<StartRun, CancelRun, DropRun, RollBackRun, RemoveRun, RefuseRun>;
using Actions = std::vector<Action>;

/// The runs of one thread, one executing at a time, the others in order of acceptance. A pure
/// decision: state in, actions out; whoever owns it carries them out.
class ThreadQueue {
public:
    /// @param waiting_max  runs that may wait behind the executing one
    explicit ThreadQueue(std::size_t waiting_max) : waiting_max_{waiting_max} {}

    /// interrupt and rollback concern all runs that are here, the waiting ones too; the new one
    /// starts when the executing one has ended. Refusals: thread_busy (reject), overloaded
    /// (waiting_max).
    [[nodiscard]] Actions submit(base::RunId run, MultitaskStrategy strategy);
    /// `run` has ended, however it did; it must be the executing one.
    [[nodiscard]] Actions finished(base::RunId run);
    /// Nothing if the run is not here.
    /// @param roll_back  RollBackRun and RemoveRun instead of CancelRun and DropRun
    [[nodiscard]] Actions cancel(base::RunId run, bool roll_back = false);

    [[nodiscard]] const std::optional<base::RunId>& executing() const noexcept {
        return executing_;
    }
    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
    [[nodiscard]] bool is_idle() const noexcept { return !executing_ && waiting_.empty(); }

private:
    std::size_t waiting_max_;
    std::optional<base::RunId> executing_;
    std::deque<base::RunId> waiting_;
};

}  // namespace heddle::scheduler
