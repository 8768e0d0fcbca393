#include "tests/sim/world.hpp"

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include <asio/post.hpp>

namespace heddle::sim {
namespace {

World* the_world = nullptr;

// Where the store's clock stands when a world begins.
constexpr std::int64_t kBeginUs = 1'790'000'000'000'000;
constexpr std::size_t kLinesKept = 400;
// A process is now and then held up between two handlers, as by its operating system.
constexpr double kTakenIn = 0.5;
constexpr double kHeldUp = 0.01;
constexpr Duration kHeldUpMost = std::chrono::milliseconds{4};
constexpr Duration kWaitMost = std::chrono::hours{1};

bool prints_all() {
    static const bool all = std::getenv("HEDDLE_SIM_TRACE") != nullptr;
    return all;
}

}  // namespace

// ---- Process

Process::Process(World& world, std::string name)
    : world_{world},
      number_{world.processes_made_++},
      name_{std::move(name)},
      random_{world.random.bits()} {
    world_.processes_.push_back(this);
}

Process::~Process() {
    std::erase(world_.processes_, this);
}

void Process::touch() {
    for (auto& loop : loops_) {
        loop.ready = true;
    }
}

void Process::pause(Duration until) {
    paused_until_ = std::max(paused_until_, until);
    world_.after(paused_until_ - world_.now(), [] {});  // somebody must come back to it
}

bool Process::is_paused() const {
    return world_.now() < paused_until_;
}

base::Instant Process::clock() const {
    const auto passed = static_cast<double>(world_.now().count()) * clock_rate;
    return base::Instant{std::chrono::hours{1}} + Duration{static_cast<Duration::rep>(passed)};
}

std::int64_t Process::unix_us() const {
    return world_.unix_us() +
           std::chrono::duration_cast<std::chrono::microseconds>(clock_ahead).count();
}

void Process::wake_after(Duration rest) {
    constexpr double kRoundUp = 1000;
    const auto wait = static_cast<double>(std::clamp(rest, Duration{}, kWaitMost).count());
    const auto at =
        world_.now() +
        Duration{static_cast<Duration::rep>(wait / clock_rate + (wait > 0 ? kRoundUp : 0))};
    if (at == world_.now()) {
        touch();
        return;
    }
    if (!wakes_.insert(at).second) {
        return;
    }
    world_.after(at - world_.now(), [&world = world_, number = number_, at] {
        for (auto* process : world.processes_) {
            if (process->number_ == number) {
                process->wakes_.erase(at);
                process->touch();
            }
        }
    });
}

void Process::add_loop(asio::io_context& loop) {
    loops_.push_back({&loop, true, {}});
}

void Process::remove_loop(asio::io_context& loop) {
    std::erase_if(loops_, [&](const Loop& each) { return each.context == &loop; });
}

// ---- World

World::World(std::uint64_t seed) : random{seed} {
    the_world = this;
}

World::~World() {
    while (!events_.empty()) {
        events_.pop();
    }
    the_world = nullptr;
}

World* World::current() noexcept {
    return the_world;
}

std::int64_t World::unix_us() const noexcept {
    return kBeginUs + std::chrono::duration_cast<std::chrono::microseconds>(now_).count();
}

void World::after(Duration wait, base::UniqueFunction<void()> what) {
    events_.push(Event{now_ + std::max(wait, Duration{}), events_made_++, std::move(what)});
}

bool World::step() {
    ++steps_;
    if (run_handler()) {
        return true;
    }
    if (events_.empty()) {
        return false;
    }
    auto what = std::move(events_.top().what);
    now_ = events_.top().at;
    events_.pop();
    what();
    return true;
}

bool World::try_post(asio::io_context& loop, base::UniqueFunction<void()>& body) {
    for (auto* process : processes_) {
        for (auto& each : process->loops_) {
            if (each.context == &loop) {
                each.posted.push_back(std::move(body));
                each.ready = true;
                return true;
            }
        }
    }
    return false;
}

std::size_t Process::run_one(asio::io_context& context) {
    const auto at = std::find_if(loops_.begin(), loops_.end(),
                                 [&](const Loop& loop) { return loop.context == &context; });
    const auto take_in = [&] {
        asio::post(context, [body = std::move(at->posted.front())]() mutable { body(); });
        at->posted.pop_front();
    };
    if (!at->posted.empty() && world_.random.chance(kTakenIn)) {
        take_in();
    }
    const auto ran = context.poll_one();
    if (ran > 0 || at->posted.empty()) {  // what ran may have ended the loop
        return ran;
    }
    take_in();
    return context.poll_one();
}

bool World::run_handler() {
    std::vector<std::pair<Process*, asio::io_context*>> ready;
    for (auto* process : processes_) {
        if (process->is_paused()) {
            continue;
        }
        for (const auto& loop : process->loops_) {
            if (loop.ready) {
                ready.emplace_back(process, loop.context);
            }
        }
    }
    if (ready.empty()) {
        return false;
    }
    const auto [process, context] = ready[random.below(ready.size())];
    std::size_t ran = 0;
    running_loop = context;
    process->enter([&, each = process, chosen = context] { ran = each->run_one(*chosen); });
    running_loop = nullptr;
    if (ran == 0) {
        for (auto& loop : process->loops_) {
            loop.ready = loop.ready && loop.context != context;
        }
        return true;
    }
    process->touch();
    if (process->after_step) {
        process->enter([each = process] { each->after_step(); });
    }
    if (random.chance(kHeldUp)) {
        process->pause(now_ + random.between(Duration{}, kHeldUpMost));
    }
    return true;
}

void World::write_note(std::string line) {
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now_).count();
    auto whole = fmt::format("{:>4}.{:06} {:<3} {}", us / 1'000'000, us % 1'000'000,
                             running == nullptr ? "" : running->name(), line);
    for (const auto c : whole) {
        trace_hash_ = (trace_hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    }
    if (prints_all()) {
        std::cout << whole << '\n';
    }
    lines_.push_back(std::move(whole));
    if (lines_.size() > kLinesKept) {
        lines_.pop_front();
    }
}

void World::write_failure(std::string what) {
    write_note("FAILED: " + what);
    if (failure_.empty()) {
        failure_ = std::move(what);
    }
}

std::string World::trace() const {
    std::string all;
    for (const auto& line : lines_) {
        all += line;
        all += '\n';
    }
    return all;
}

}  // namespace heddle::sim
