#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/clock.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "tests/sim/ownership_spec.hpp"

/// Processes that fight for one thread of a real store. A world goes from one state to the next by
/// the action that it is told; nothing in it is random and nothing reads a clock of this machine.
namespace heddle::sim {

/// What a wrong store or engine would do; to show that the checks can fail.
enum class Fault : std::uint8_t {
    none,
    stale_epochs_pass,    ///< a write counts whatever epoch it carries, if its engine is the owner
    strangers_pass,       ///< a write counts whoever sends it
    the_live_are_robbed,  ///< a claim does not look at the owner's heartbeat
    the_dead_are_spared,  ///< an owner that nobody hears of keeps its thread
    late_heartbeats_count,  ///< a lease that has passed is renewed
    writes_vanish,          ///< a write is said to be done and is not
    local_clocks_count,     ///< a heartbeat is dated by the clock of who sends it
    writes_overlap,         ///< an engine sends a write before the one before it is answered
};

struct Bounds {
    int processes = 2;  ///< alive at the same time; any number may have died before
    int in_flight = 1;  ///< requests that were sent and have not arrived
    int rows = 2;       ///< supersteps that a run has at most; the last one ends it
    std::size_t depth_max = 1000;
    base::Duration skew = base::Duration::zero();  ///< of local clocks: every other one has -skew
    Fault fault = Fault::none;
};

enum class Act : std::uint8_t {
    start,           ///< a new process registers under a new id
    register_anew,   ///< a process believes its lease lost and takes a new id; its sessions linger
    heartbeat,       ///< sent and arrived at once
    heartbeat_sent,  ///< on its way
    heartbeat_arrives,  ///< possibly after its lease, its process or its id is gone
    claim,              ///< sent, arrived and answered at once, as the next three
    step,               ///< a superstep: journal row and run update; the first accepts the run
    finish,             ///< a superstep that ends the run
    release,            ///< the thread is handed over, the run stays
    claim_sent,
    step_sent,
    finish_sent,
    release_sent,
    arrives,     ///< the oldest request of a process, and the answer
    disconnect,  ///< requests that were sent may still arrive, and nobody hears the answers
    ghost_arrives,
    ghost_is_lost,
    abandon,  ///< the session is forgotten: evicted, or a local clock says that the lease is over
    unregister,  ///< an orderly end of the process
    crash,
    over_half_a_lease_passes,
    a_lease_passes,
};
std::string_view to_string(Act act) noexcept;

struct Action {
    Act act = Act::start;
    std::uint8_t process = 0;
};

/// Single-threaded.
class OwnershipWorld {
public:
    static constexpr base::Duration kLease = std::chrono::seconds{2};

    explicit OwnershipWorld(const Bounds& bounds);

    /// What can happen next.
    [[nodiscard]] std::vector<Action> actions() const;
    void apply(Action action);
    /// Compares all that the store holds with what it must hold.
    void check();
    /// The first thing that went wrong; empty if nothing did.
    [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
    /// Equal for states with the same future: ids, times and processes lose their names in it.
    [[nodiscard]] std::string key() const;

private:
    class DatabaseClock final : public base::Clock {
    public:
        explicit DatabaseClock(const OwnershipSpec& spec) : spec_{spec} {}
        [[nodiscard]] base::Instant now() const noexcept override {
            return base::Instant{std::chrono::microseconds{unix_us()}};
        }
        [[nodiscard]] std::int64_t unix_us() const noexcept override {
            return spec_.now_us() + ahead_us;
        }
        std::int64_t ahead_us = 0;

    private:
        const OwnershipSpec& spec_;
    };
    struct Request {
        enum class Kind : std::uint8_t { claim, step, finish, release };
        Kind kind = Kind::claim;
        EngineNumber engine = 0;
        storage::ThreadWrite write;
    };
    /// Both count the kinds in the same order, beginning with Act::claim or Act::claim_sent.
    static Request::Kind kind_of(Act act, Act first);
    static Act act_of(Request::Kind kind, Act first);

    struct Session {
        storage::ThreadKey key = 0;
        storage::Epoch epoch = 0;
        storage::Seq head = storage::kNoSeq;
        std::optional<storage::RunStatus> run;
    };
    struct Process {
        bool is_alive = true;
        EngineNumber engine = 0;
        std::optional<Session> session;
        std::optional<EngineNumber> heartbeat;  ///< on its way
        std::deque<Request> line;               ///< on its way, in this order
        std::deque<Request> ghosts;             ///< the same, after the connection broke
    };

    void add_actions(std::vector<Action>& actions, std::uint8_t number, bool may_send) const;
    [[nodiscard]] std::vector<Request::Kind> sendable(const Process& process) const;
    [[nodiscard]] int alive() const;
    [[nodiscard]] int in_flight() const;
    void expect(bool holds, std::string_view claim);

    EngineNumber register_engine();
    void beat(EngineNumber engine);
    void send(Process& process, Request::Kind kind);
    void deliver(Process& process);
    void deliver_ghost(Process& process);
    [[nodiscard]] std::optional<Session> carry_out_claim(EngineNumber engine);
    [[nodiscard]] bool carry_out_write(EngineNumber engine, const storage::ThreadWrite& write);
    base::Status write_with_fault(EngineNumber engine, storage::ThreadWrite write);
    void end(Process& process);

    void check_engines();
    void check_sessions();
    void check_thread();
    [[nodiscard]] std::string key_of(const Process& process, bool& has_owner) const;

    Bounds bounds_;
    OwnershipSpec spec_{kLease};
    DatabaseClock clock_{spec_};
    observe::Metrics metrics_;
    storage::StoreLimits limits_;
    storage::MemoryDatabase database_{clock_};
    std::unique_ptr<storage::Store> reader_;
    std::vector<std::unique_ptr<storage::Store>> stores_;  ///< by EngineNumber
    std::vector<Process> processes_;
    int rows_made_ = 0;
    std::string failure_;
};

}  // namespace heddle::sim
