#pragma once

#include <cstdint>
#include <string>

#include "tests/sim/database.hpp"

namespace heddle::sim {

/// What happened, so that nothing passes because nothing happened.
struct Counts {
    std::uint64_t steps = 0;  ///< handlers and events
    std::uint64_t runs = 0;   ///< that have ended
    std::uint64_t crashes = 0;
    std::uint64_t pauses = 0;
    std::uint64_t drains = 0;
    std::uint64_t outages = 0;  ///< of the database: stalls, cut connections, doubt
    std::uint64_t cuts = 0;     ///< of the network
    std::uint64_t takeovers = 0;
    std::uint64_t rollbacks = 0;
    std::uint64_t stale_writes = 0;  ///< refused by the store
    std::uint64_t streams = 0;       ///< read to their ends
    std::uint64_t waits = 0;
    std::uint64_t repeats = 0;
    std::uint64_t resumed = 0;  ///< streams, from an id
    std::uint64_t losses = 0;   ///< announced events that were not kept

    Counts& operator+=(const Counts& other);
};

struct Outcome {
    std::string failure;     ///< empty: everything held
    std::string trace;       ///< the newest lines of it
    std::uint64_t hash = 0;  ///< of the whole trace
    Counts counts;
};

/// Half a minute of a service with three engines, two edges and a few busy threads, while engines,
/// network and database fail; then a calm in which everything has to end. All of it from `seed`.
Outcome run_trial(std::uint64_t seed, Fault fault = Fault::none);

}  // namespace heddle::sim
