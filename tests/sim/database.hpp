#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "engine/observe/metrics.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "tests/sim/store_watch.hpp"
#include "tests/sim/world.hpp"

namespace heddle::sim {

/// What a wrong store or engine would do; to show that the checks can fail.
enum class Fault : std::uint8_t {
    none,
    stale_epochs_pass,      ///< the epoch of a write is not looked at
    writes_answered_early,  ///< a write is said to be done before it is
    writes_vanish,          ///< now and then a write is said to be done and never is
    attempts_forgotten,     ///< who takes a run over counts, and numbers, no further attempt
    events_forgotten,       ///< who takes a run over does not find the events of its rows
    the_live_are_robbed,    ///< a claim does not look at the owner's heartbeat
    orphans_stay,           ///< nobody is told of the runs that dead engines left
    rollbacks_forget_rows,  ///< a rollback deletes the run and keeps its checkpoints
    ended_runs_forgotten,   ///< a repeat does not find the run that has ended
};
inline constexpr Fault kFaults[] = {
    Fault::stale_epochs_pass,  Fault::writes_answered_early, Fault::writes_vanish,
    Fault::attempts_forgotten, Fault::events_forgotten,      Fault::the_live_are_robbed,
    Fault::orphans_stay,       Fault::rollbacks_forget_rows, Fault::ended_runs_forgotten,
};
std::string_view to_string(Fault fault) noexcept;

/// How a database treats its clients for a while.
struct Weather {
    Duration latency = std::chrono::microseconds{400};  ///< of one way, on average
    double doubtful = 0;       ///< share of writes whose answer is lost in commit
    double refused = 0;        ///< share of operations that fail and do nothing
    Duration stalled_until{};  ///< nothing is carried out before
    Duration down_until{};     ///< nobody is connected before
};

/// The database of a trial: one memory::Database behind a network, a queue and their failures. The
/// port's promises (store.hpp) are kept, and used to the full.
class Database {
public:
    Database(World& world, StoreWatch& watch, Fault fault);

    /// One engine's view; it must be gone before the database.
    std::unique_ptr<storage::Store> connect(Process& process);
    /// Every operation on its way fails: in doubt if it may have been done.
    void cut_connections();
    /// Of what is there with what the watch says.
    void compare();

    Weather weather;
    [[nodiscard]] const storage::StoreLimits& limits() const noexcept { return limits_; }

private:
    class Connection;
    class Port;
    class Clock final : public base::Clock {
    public:
        explicit Clock(const World& world) : world_{world} {}
        [[nodiscard]] base::Instant now() const noexcept override {
            return base::Instant{world_.now()};
        }
        [[nodiscard]] std::int64_t unix_us() const noexcept override { return world_.unix_us(); }

    private:
        const World& world_;
    };

    World& world_;
    StoreWatch& watch_;
    const Fault fault_;
    Clock clock_{world_};
    storage::StoreLimits limits_;
    storage::MemoryDatabase database_{clock_};
    observe::Metrics metrics_;  ///< of all connections: what an engine sent outlives it
    std::list<Connection*> connections_;
    /// Claims carried out per thread: what is in doubt is settled by the next.
    std::unordered_map<storage::ThreadId, std::uint64_t> claims_;
};

}  // namespace heddle::sim
