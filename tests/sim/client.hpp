#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/ledger.hpp"

namespace heddle::sim {

/// What clients share.
struct Service {
    World& world;
    Ledger& ledger;
    std::vector<std::unique_ptr<Edge>>& edges;
    std::vector<base::ThreadId> threads;
    std::vector<base::ThreadId> lonely;  ///< threads of one run each that nobody comes back to
    Duration busy_until{};               ///< nothing new is asked after it
    std::size_t busy = 0;                ///< clients that are in the middle of something
    std::size_t tags = 0;
};

/// A client of the HTTP API: starts runs in every way, reads their streams, leaves in the middle,
/// comes back, repeats what was not answered, cancels, reads states, and leaves some runs to
/// themselves: only engines can take care of those. One thing at a time.
class Client {
public:
    Client(Service& service, std::string name) : service_{service}, name_{std::move(name)} {}

    void begin() { act_later(); }

private:
    class Start;
    class Stream;
    class Once;

    void act();
    void act_later();
    void start_run();
    void read_state();
    void join();
    void cancel();
    /// @return a tag of `thread` whose run is known, or empty
    std::string pick(const base::ThreadId& thread);

    Service& service_;
    std::string name_;
};

/// Asks until it has been answered with 200 or 404. `then` gets the body.
void read_until_answered(Service& service,
                         HttpRequest request,
                         std::function<void(int, const std::string&)> then);

}  // namespace heddle::sim
