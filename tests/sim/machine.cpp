// In place of engine/base/machine.cpp and engine/observe/log.cpp: the machine is a World, the log
// is its trace.
#include "engine/base/machine.hpp"

#include <cerrno>

#include "engine/observe/log.hpp"
#include "tests/sim/world.hpp"

// asio asks for a timer of the kernel's for each loop, and would set it to "at once" at each change
// of a simulated timer: four fifths of a trial's time. Without one it looks at its timers whenever
// a loop is polled, which is what is wanted.
extern "C" int timerfd_create(int /*clock*/, int /*flags*/) {
    errno = EMFILE;
    return -1;
}

namespace heddle::base::machine {
namespace {

sim::Process* process() noexcept {
    const auto* world = sim::World::current();
    return world == nullptr ? nullptr : world->running;
}

}  // namespace

Instant now() noexcept {
    const auto* here = process();
    return here == nullptr ? Instant{} : here->clock();
}

std::int64_t unix_us() noexcept {
    const auto* here = process();
    return here == nullptr ? 0 : here->unix_us();
}

Duration wait_of(Duration rest) noexcept {
    if (auto* here = process()) {
        here->wake_after(rest);
    }
    // Whenever a loop is polled, it looks at its timers.
    return {};
}

std::uint64_t random_bits() {
    auto* here = process();
    return here == nullptr ? 0 : here->random_bits();
}

std::atomic<std::uint64_t>& last_tick() noexcept {
    static std::atomic<std::uint64_t> nobodys{0};
    auto* here = process();
    return here == nullptr ? nobodys : here->tick;
}

void post(asio::io_context& loop, UniqueFunction<void()> body) {
    auto* world = sim::World::current();
    if (world->running_loop == &loop || !world->try_post(loop, body)) {
        asio::post(loop, [body = std::move(body)]() mutable { body(); });
    }
}

PostTogether::PostTogether() noexcept = default;
PostTogether::~PostTogether() = default;

LoopThread::LoopThread(asio::io_context& loop, const std::string& /*name*/) : loop_{loop} {
    process()->add_loop(loop_);
}

LoopThread::~LoopThread() {
    join();
}

bool LoopThread::is_current() const noexcept {
    return sim::World::current()->running_loop == &loop_;
}

void LoopThread::join() {
    if (auto* here = process()) {
        here->remove_loop(loop_);
    }
}

}  // namespace heddle::base::machine

namespace heddle::observe {

void configure_log(LogLevel /*least*/, const std::string& /*name*/) {}

LogLevel parse_log_level(std::string_view /*name*/) noexcept {
    return LogLevel::debug;
}

bool is_logged(LogLevel /*level*/) noexcept {
    return sim::World::current() != nullptr;
}

void write_log(LogLevel /*level*/, std::string_view component, const std::string& text) {
    sim::World::current()->note("[{}] {}", component, text);
}

}  // namespace heddle::observe
