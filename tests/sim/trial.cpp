#include "tests/sim/trial.hpp"

#include <algorithm>

#include "engine/scheduler/scheduler.hpp"
#include "tests/sim/client.hpp"

namespace heddle::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kEngines = 3;
constexpr std::size_t kEdges = 2;
constexpr Duration kBusy = seconds{20};
constexpr Duration kCalmMost = seconds{90};
constexpr std::uint64_t kStepsMost = 3'000'000;

class Trial {
public:
    Trial(std::uint64_t seed, Fault fault)
        : world_{seed},
          watch_{world_, seconds{2}, scheduler::SchedulerLimits{}.attempts_max},
          database_{world_, watch_, fault},
          catalog_{{make_agent()}},
          network_{world_, kEngines},
          ledger_{world_, watch_},
          service_{world_, ledger_, edges_, {}, {}} {}
    ~Trial() {
        for (auto& engine : network_.engines) {
            engine.reset();
        }
    }

    Outcome run();

private:
    void start(std::size_t slot);
    void crash(std::size_t slot);
    void drain(std::size_t slot);
    void watch_drain(std::size_t slot, Duration since);
    void strike();
    void strike_engine();
    void strike_database();
    void strike_network();
    void calm();
    void read_states();
    void go_until(Duration until, const std::function<bool()>& done);

    World world_;
    StoreWatch watch_;
    Database database_;
    scheduler::Catalog catalog_;
    Network network_;
    std::vector<std::unique_ptr<Edge>> edges_;
    Ledger ledger_;
    Service service_;
    std::vector<std::unique_ptr<Client>> clients_;
    Counts counts_;
    bool stormy_ = true;
    std::size_t doomed_ = 0;       ///< slot that dies
    std::uint64_t doomed_in_ = 0;  ///< steps until then; 0: nobody
    std::size_t states_read_ = 0;
};

void Trial::start(std::size_t slot) {
    if (network_.engines[slot] == nullptr) {
        network_.engines[slot] =
            std::make_unique<Engine>(world_, database_, watch_, catalog_, slot);
    }
}

void Trial::crash(std::size_t slot) {
    if (network_.engines[slot] == nullptr) {
        return;
    }
    world_.note("e{} crashes", slot);
    ++counts_.crashes;
    network_.engines[slot].reset();
    for (auto& edge : edges_) {
        edge->reset(slot);
    }
    world_.after(world_.random.between(milliseconds{50}, seconds{5}),
                 [this, slot] { start(slot); });
}

void Trial::drain(std::size_t slot) {
    ++counts_.drains;
    network_.engines[slot]->start_draining();
    watch_drain(slot, world_.now());
}

void Trial::watch_drain(std::size_t slot, Duration since) {
    auto* engine = network_.engines[slot].get();
    world_.after(milliseconds{20}, [this, slot, since, engine] {
        if (network_.engines[slot].get() != engine) {
            return;
        }
        if (!engine->is_drained() && world_.now() - since < seconds{4}) {
            watch_drain(slot, since);
            return;
        }
        engine->leave([this, slot, engine] {
            world_.after({}, [this, slot, engine] {
                if (network_.engines[slot].get() == engine) {
                    world_.note("e{} is gone", slot);
                    network_.engines[slot].reset();
                    for (auto& edge : edges_) {
                        edge->reset(slot);
                    }
                    world_.after(world_.random.between({}, seconds{2}),
                                 [this, slot] { start(slot); });
                }
            });
        });
    });
}

void Trial::strike() {
    if (!stormy_) {
        return;
    }
    const auto what = world_.random.below(10);
    if (what < 5) {
        strike_engine();
    } else if (what < 8) {
        strike_database();
    } else {
        strike_network();
    }
    world_.after(world_.random.between(milliseconds{100}, seconds{3}), [this] { strike(); });
}

void Trial::strike_engine() {
    const auto slot = world_.random.below(kEngines);
    auto& engine = network_.engines[slot];
    if (engine == nullptr) {
        return;
    }
    const auto what = world_.random.below(10);
    if (what < 5) {
        // Between any two handlers.
        doomed_ = slot;
        doomed_in_ = 1 + world_.random.below(400);
    } else if (what < 9) {
        const auto most = world_.random.chance(0.5) ? milliseconds{1500} : milliseconds{6000};
        const auto until = world_.now() + world_.random.between(milliseconds{50}, most);
        world_.note("e{} stops for {} ms", slot,
                    std::chrono::duration_cast<milliseconds>(until - world_.now()).count());
        ++counts_.pauses;
        engine->process().pause(until);
    } else if (engine->is_ready()) {
        drain(slot);
    }
}

void Trial::strike_database() {
    ++counts_.outages;
    auto& weather = database_.weather;
    auto& random = world_.random;
    switch (random.below(5)) {
        case 0:
            weather.stalled_until = world_.now() + random.between(milliseconds{20}, seconds{3});
            world_.note("the database stalls");
            break;
        case 1:
            weather.down_until = world_.now() + random.between(milliseconds{100}, seconds{2});
            world_.note("the database fails over");
            database_.cut_connections();
            break;
        case 2:
            weather.doubtful = random.chance(0.5) ? 0 : 0.05;
            world_.note("{} of the commits are in doubt", weather.doubtful);
            break;
        case 3:
            weather.refused = random.chance(0.5) ? 0 : 0.02;
            world_.note("{} of the operations are refused", weather.refused);
            break;
        default:
            weather.latency = random.between(std::chrono::microseconds{50}, milliseconds{20});
            break;
    }
}

void Trial::strike_network() {
    ++counts_.cuts;
    const auto slot = world_.random.below(kEngines);
    const auto edge = world_.random.below(kEdges);
    switch (world_.random.below(4)) {
        case 0:
            edges_[edge]->reset(slot);
            break;
        case 1:
            world_.note("n{} and e{} do not hear each other", edge, slot);
            network_.blocked_until[{edge, slot}] =
                world_.now() + world_.random.between(milliseconds{50}, seconds{6});
            break;
        case 2:
            edges_[edge]->reload();
            break;
        default:
            network_.latency =
                world_.random.between(std::chrono::microseconds{10}, milliseconds{10});
            break;
    }
}

void Trial::calm() {
    world_.note("calm");
    stormy_ = false;
    doomed_in_ = 0;
    database_.weather = {};
    network_.blocked_until.clear();
    network_.latency = std::chrono::microseconds{200};
}

void Trial::go_until(Duration until, const std::function<bool()>& done) {
    while (world_.failure().empty() && world_.now() < until && !done()) {
        if (!world_.step()) {
            world_.fail("nothing will ever happen again");
        }
        if (doomed_in_ > 0 && --doomed_in_ == 0) {
            crash(doomed_);
        }
        if (world_.steps() > kStepsMost) {
            world_.fail("something runs in circles");
        }
    }
}

void Trial::read_states() {
    auto& threads = service_.threads;
    threads.insert(threads.end(), service_.lonely.begin(), service_.lonely.end());
    for (const auto& thread : threads) {
        HttpRequest request;
        request.method = "GET";
        request.thread_id = thread.to_string();
        request.path = fmt::format("/threads/{}/state", request.thread_id);
        read_until_answered(
            service_, std::move(request), [this, thread](int status, const std::string& body) {
                const auto json = base::parse_stored_json(body);
                ledger_.check_end(thread, status == 200
                                              ? json->value("values", base::Json::object())
                                              : base::Json::object());
                ++states_read_;
            });
    }
}

Outcome Trial::run() {
    for (std::size_t i = 0; i < kEngines; ++i) {
        start(i);
    }
    for (std::size_t i = 0; i < kEdges; ++i) {
        edges_.push_back(std::make_unique<Edge>(world_, network_, i));
    }
    const auto threads = 2 + world_.random.below(4);
    for (std::size_t i = 0; i < threads; ++i) {
        base::ThreadId thread;
        for (auto& byte : thread.uuid.bytes) {
            byte = static_cast<std::uint8_t>(world_.random.below(256));
        }
        service_.threads.push_back(thread);
    }
    service_.busy_until = kBusy;
    for (std::size_t i = 0; i < 4 + world_.random.below(6); ++i) {
        clients_.push_back(std::make_unique<Client>(service_, fmt::format("c{}", i)));
        clients_.back()->begin();
    }
    world_.after(milliseconds{300}, [this] { strike(); });
    go_until(kBusy, [] { return false; });
    calm();
    const auto calm_until = world_.now() + kCalmMost;
    go_until(calm_until, [this] { return service_.busy == 0 && watch_.unfinished().empty(); });
    if (world_.now() >= calm_until) {
        const auto left = watch_.unfinished();
        world_.fail("in the calm: {}", left.empty() ? "clients still wait" : left);
    }
    if (world_.failure().empty()) {
        read_states();
        go_until(world_.now() + seconds{30},
                 [this] { return states_read_ == service_.threads.size(); });
        if (states_read_ != service_.threads.size()) {
            world_.fail("states cannot be read in the calm");
        }
        database_.compare();
    }
    counts_.steps = world_.steps();
    counts_.runs = watch_.runs_ended();
    counts_.takeovers = watch_.takeovers();
    counts_.rollbacks = watch_.rollbacks();
    counts_.stale_writes = watch_.stale_writes();
    counts_.streams = ledger_.streams_read;
    counts_.waits = ledger_.waits_read;
    counts_.repeats = ledger_.repeats;
    counts_.resumed = ledger_.resumed;
    counts_.losses = ledger_.losses;
    return {world_.failure(), world_.trace(), world_.trace_hash(), counts_};
}

}  // namespace

Counts& Counts::operator+=(const Counts& other) {
    steps += other.steps;
    runs += other.runs;
    crashes += other.crashes;
    pauses += other.pauses;
    drains += other.drains;
    outages += other.outages;
    cuts += other.cuts;
    takeovers += other.takeovers;
    rollbacks += other.rollbacks;
    stale_writes += other.stale_writes;
    streams += other.streams;
    waits += other.waits;
    repeats += other.repeats;
    resumed += other.resumed;
    losses += other.losses;
    return *this;
}

Outcome run_trial(std::uint64_t seed, Fault fault) {
    Trial trial{seed, fault};
    return trial.run();
}

}  // namespace heddle::sim
