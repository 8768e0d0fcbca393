#include <chrono>
#include <cstdio>
#include <utility>

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "engine/app/engine.hpp"
#include "engine/app/options.hpp"
#include "engine/base/clock.hpp"
#include "engine/observe/log.hpp"

namespace heddle::app {
namespace {

// Blocks SIGTERM and SIGINT in this OS thread and in all that are started later, and reads them
// from a descriptor instead: no code runs in a signal handler.
class Signals {
public:
    Signals() {
        sigset_t wanted;
        sigemptyset(&wanted);
        sigaddset(&wanted, SIGTERM);
        sigaddset(&wanted, SIGINT);
        pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
        signal(SIGPIPE, SIG_IGN);
        fd_ = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    }
    ~Signals() { close(fd_); }
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

    /// @return false if none came in time. A negative time has no end
    bool wait(std::chrono::milliseconds most) {
        pollfd waiting{fd_, POLLIN, 0};
        if (poll(&waiting, 1, static_cast<int>(most.count())) <= 0) {
            return false;
        }
        signalfd_siginfo info{};
        return read(fd_, &info, sizeof info) == sizeof info;
    }

private:
    int fd_ = -1;
};

int say(const Exit& exit) {
    std::fputs(exit.text.c_str(), exit.code == 0 ? stdout : stderr);
    return exit.code;
}

// A signal while it waits means: at once.
void wait_drained(const Engine& engine, Signals& signals, base::Duration most) {
    constexpr std::chrono::milliseconds kLook{10};
    const auto until = base::system_clock().now() + most;
    while (!engine.is_drained() && base::system_clock().now() < until) {
        if (signals.wait(kLook)) {
            return;
        }
    }
}

int run(int argc, const char* const* argv) {
    auto read = read_options(argc, argv);
    if (const auto* exit = std::get_if<Exit>(&read)) {
        return say(*exit);
    }
    const auto& options = std::get<Options>(read);
    observe::configure_log(observe::parse_log_level(options.log_level), options.name);

    Signals signals;  // before any other OS thread exists
    auto started = Engine::start(options);
    if (const auto* exit = std::get_if<Exit>(&started)) {
        return say(*exit);
    }
    auto& engine = *std::get<0>(started);
    while (!signals.wait(std::chrono::milliseconds{-1})) {
    }

    engine.start_draining();
    wait_drained(engine, signals, std::chrono::seconds{options.drain_seconds});
    engine.hand_over_now();
    wait_drained(engine, signals, std::chrono::seconds{1});
    engine.abandon();
    wait_drained(engine, signals, std::chrono::milliseconds{500});
    engine.leave();
    return 0;
}

}  // namespace
}  // namespace heddle::app

int main(int argc, char** argv) {
    return heddle::app::run(argc, argv);
}
