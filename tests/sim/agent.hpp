#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/graph/graph.hpp"

namespace heddle::sim {

/// What one run is asked to do; travels in its input as the channel `plan`.
struct Plan {
    std::string tag;     ///< unique in a trial
    int rounds = 1;      ///< of the nodes a, then b and c side by side, then d
    int node_ms = 10;    ///< that one node takes
    int tokens = 0;      ///< custom events of node a
    bool fails = false;  ///< node d fails in the last round
    bool flaky = false;  ///< node b fails now and then, and is tried again
};
base::Json input_of(const Plan& plan);
/// What a whole run adds to the channel `log`, superstep by superstep.
std::vector<std::vector<std::string>> entries_of(const Plan& plan);

/// The agent "work". Its nodes wait, emit and write to `log`; they keep nothing.
std::shared_ptr<const graph::Graph> make_agent();

}  // namespace heddle::sim
