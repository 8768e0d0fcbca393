#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <fmt/format.h>

#include "engine/base/clock.hpp"
#include "engine/base/unique_function.hpp"

/// The machine that simulated engines run on: one OS thread, a clock that jumps from event to
/// event, chance from one seed. tests/sim/machine.cpp gives the engine's own code this instead of
/// the real one.
namespace heddle::sim {

using base::Duration;

/// Every choice of a trial, from its seed.
class Random {
public:
    explicit Random(std::uint64_t seed) : bits_{seed} {}

    std::uint64_t bits() { return bits_(); }
    /// In [0, bound); bound > 0.
    std::uint64_t below(std::uint64_t bound) { return bits_() % bound; }
    bool chance(double probability) {
        constexpr double kScale = 18446744073709551616.0;
        return static_cast<double>(bits_()) < probability * kScale;
    }
    Duration between(Duration least, Duration most) {
        const auto span = static_cast<std::uint64_t>((most - least).count()) + 1;
        return least + Duration{static_cast<Duration::rep>(below(span))};
    }

private:
    std::mt19937_64 bits_;
};

class World;

/// One simulated process: loops that are run, or not, and a clock of its own.
class Process {
public:
    Process(World& world, std::string name);
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    /// Runs `body` as code of this process: what it asks of the machine is this process's.
    template <class Body>
    void enter(Body&& body);
    /// Something may be ready in one of the loops.
    void touch();
    /// Nothing of the process runs until `until`.
    void pause(Duration until);
    [[nodiscard]] bool is_paused() const;
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    double clock_rate = 1.0;  ///< of its monotonic clock
    Duration clock_ahead{};   ///< of its wall clock
    std::atomic<std::uint64_t> tick{0};
    base::UniqueFunction<void()> after_step;  ///< called when a handler has run

    // ---- for machine.cpp
    [[nodiscard]] base::Instant clock() const;
    [[nodiscard]] std::int64_t unix_us() const;
    void wake_after(Duration rest);
    std::uint64_t random_bits() { return random_.bits(); }
    void add_loop(asio::io_context& loop);
    void remove_loop(asio::io_context& loop);

private:
    std::size_t run_one(asio::io_context& context);

    friend class World;
    struct Loop {
        asio::io_context* context = nullptr;
        bool ready = true;
        std::deque<base::UniqueFunction<void()>> posted{};  ///< by others than its own handlers
    };

    World& world_;
    std::uint64_t number_;  ///< never used twice in a world
    std::string name_;
    Random random_;
    std::list<Loop> loops_;
    std::set<Duration> wakes_;
    Duration paused_until_{};
};

class World {
public:
    explicit World(std::uint64_t seed);
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    /// The one that exists now, if one does.
    static World* current() noexcept;
    /// Whose code runs; null between processes.
    Process* running = nullptr;
    /// The loop whose handler runs.
    asio::io_context* running_loop = nullptr;

    /// For machine.cpp: has one of the loops run `body`, after what was posted so before; when,
    /// beside its own handlers, is chance. @return false if nobody runs that loop
    bool try_post(asio::io_context& loop, base::UniqueFunction<void()>& body);

    Random random;
    /// Since the world began: the time of the store and of the network.
    [[nodiscard]] Duration now() const noexcept { return now_; }
    [[nodiscard]] std::int64_t unix_us() const noexcept;
    void after(Duration wait, base::UniqueFunction<void()> what);
    /// One handler of one process, or the next event. @return false if nothing will ever happen
    bool step();
    [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }

    template <class... Args>
    void note(fmt::format_string<Args...> format, Args&&... args) {
        write_note(fmt::format(format, std::forward<Args>(args)...));
    }
    /// First failure wins; the trial ends at the next look.
    template <class... Args>
    void fail(fmt::format_string<Args...> format, Args&&... args) {
        write_failure(fmt::format(format, std::forward<Args>(args)...));
    }
    [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
    [[nodiscard]] std::uint64_t trace_hash() const noexcept { return trace_hash_; }
    /// The newest lines, oldest first.
    [[nodiscard]] std::string trace() const;

private:
    friend class Process;
    struct Event {
        Duration at{};
        std::uint64_t number = 0;
        mutable base::UniqueFunction<void()> what;
        bool operator<(const Event& other) const {
            return at != other.at ? at > other.at : number > other.number;
        }
    };

    void write_note(std::string line);
    void write_failure(std::string what);
    bool run_handler();

    Duration now_{};
    std::priority_queue<Event> events_;
    std::uint64_t events_made_ = 0;
    std::uint64_t steps_ = 0;
    std::uint64_t processes_made_ = 0;
    std::vector<Process*> processes_;
    std::string failure_;
    std::deque<std::string> lines_;
    std::uint64_t trace_hash_ = 0xcbf29ce484222325ULL;
};

template <class Body>
void Process::enter(Body&& body) {
    auto* before = std::exchange(world_.running, this);
    body();
    world_.running = before;
}

}  // namespace heddle::sim
