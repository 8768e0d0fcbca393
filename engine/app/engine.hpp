#pragma once

#include <memory>
#include <variant>

#include "engine/app/options.hpp"
#include "engine/base/result.hpp"

namespace heddle::app {

/// One engine process: everything joined. Made, used and destroyed on the main OS thread.
class Engine {
public:
    /// Loads the agents, opens the store, binds, registers and serves. What keeps it from that is
    /// logged, with what to do about it.
    static std::variant<std::unique_ptr<Engine>, Exit> start(const Options& options);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Refuses new work from now on.
    void start_draining();
    /// Whether every run has ended and every response is out.
    [[nodiscard]] bool is_drained() const;
    /// The time for that is over: supersteps that have not ended are begun again elsewhere.
    void hand_over_now();
    /// Stops what still runs, without another write: clients are sent elsewhere.
    void abandon();
    /// Gives every thread up, so that other engines take them over at once.
    void leave();

private:
    struct Impl;
    explicit Engine(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
};

}  // namespace heddle::app
