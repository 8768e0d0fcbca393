#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/graph/node.hpp"
#include "engine/graph/state.hpp"

namespace heddle::graph {

inline constexpr std::string_view kStart = "__start__";
inline constexpr std::string_view kEnd = "__end__";

struct RetryPolicy {
    std::int32_t attempts_max = 1;  ///< 1: no retry
    base::Duration first_wait = std::chrono::milliseconds{500};
    double factor = 2.0;
    base::Duration wait_max = std::chrono::seconds{30};
};

struct NodeSpec {
    std::string name;
    std::string kind;  ///< model, tools, lua, native, ...: for the graph drawing
    std::shared_ptr<const Node> body;
    RetryPolicy retry;
    base::Duration timeout = std::chrono::seconds{120};  ///< of one attempt
};

/// `from` may be kStart, `to` may be kEnd. Every edge whose condition holds (or that has none)
/// fires; of the conditional edges of one node the first that holds wins, and an unconditional one
/// listed after conditional ones is their "else" (fires only if none of them held). Several
/// unconditional edges and no conditional ones run their targets in parallel.
struct EdgeSpec {
    std::string from;
    std::string to;
    std::shared_ptr<const Condition> when;  ///< null: unconditional
};

/// A static breakpoint that depends on the state: before `node`, when `when` holds.
struct BreakpointSpec {
    std::string node;
    std::shared_ptr<const Condition> when;
};

/// A validated agent graph: immutable, shared by every shard.
struct Graph {
    std::string name;  ///< graph_id in the API
    std::string description;
    std::shared_ptr<const Channels> channels;
    std::vector<NodeSpec> nodes;
    std::vector<EdgeSpec> edges;
    std::vector<std::string> interrupt_before;  ///< static breakpoints
    std::vector<std::string> interrupt_after;
    std::vector<BreakpointSpec> interrupt_when;
    std::int32_t recursion_limit = 25;

    [[nodiscard]] const NodeSpec* find_node(std::string_view node) const noexcept;
    /// All of its nodes are local.
    [[nodiscard]] bool is_local() const noexcept;
    /// @return ok, or graph_error naming the node or edge: unknown names, unreachable nodes, no
    /// edge
    ///         out of START
    [[nodiscard]] base::Status validate() const;
};

}  // namespace heddle::graph
