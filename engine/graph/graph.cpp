#include "engine/graph/graph.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Status;

Error broken(std::string message) {
    return Error{ErrorCode::graph_error, std::move(message)};
}

Status check_nodes(const Graph& graph) {
    std::set<std::string_view> seen;
    for (const auto& node : graph.nodes) {
        if (node.name.empty() || node.name == kStart || node.name == kEnd) {
            return broken(fmt::format("\"{}\" cannot be the name of a node", node.name));
        }
        if (!seen.insert(node.name).second) {
            return broken(fmt::format("there are two nodes named \"{}\"", node.name));
        }
        if (node.body == nullptr) {
            return broken(fmt::format("node \"{}\" does nothing", node.name));
        }
    }
    return base::ok();
}

Status check_edges(const Graph& graph) {
    bool started = false;
    for (const auto& edge : graph.edges) {
        if (edge.from != kStart && graph.find_node(edge.from) == nullptr) {
            return broken(fmt::format("an edge comes from \"{}\", which is no node", edge.from));
        }
        if (edge.to != kEnd && graph.find_node(edge.to) == nullptr) {
            return broken(fmt::format("an edge leads to \"{}\", which is no node", edge.to));
        }
        started = started || edge.from == kStart;
    }
    if (!started) {
        return broken("no edge leads out of START");
    }
    return base::ok();
}

Status check_breakpoints(const Graph& graph) {
    for (const auto* names : {&graph.interrupt_before, &graph.interrupt_after}) {
        for (const auto& name : *names) {
            if (name != "*" && graph.find_node(name) == nullptr) {
                return broken(fmt::format("a breakpoint names \"{}\", which is no node", name));
            }
        }
    }
    for (const auto& breakpoint : graph.interrupt_when) {
        if (breakpoint.when == nullptr || graph.find_node(breakpoint.node) == nullptr) {
            return broken(
                fmt::format("a breakpoint names \"{}\", which is no node", breakpoint.node));
        }
    }
    return base::ok();
}

Status check_reachable(const Graph& graph) {
    std::set<std::string_view> reached{kStart};
    for (bool grown = true; grown;) {
        grown = false;
        for (const auto& edge : graph.edges) {
            if (reached.contains(edge.from)) {
                grown = reached.insert(edge.to).second || grown;
            }
        }
    }
    for (const auto& node : graph.nodes) {
        if (!reached.contains(node.name)) {
            return broken(fmt::format("no path leads from START to node \"{}\"", node.name));
        }
    }
    return base::ok();
}

}  // namespace

bool Graph::is_local() const noexcept {
    return std::all_of(nodes.begin(), nodes.end(),
                       [](const NodeSpec& node) { return node.body->is_local(); });
}

const NodeSpec* Graph::find_node(std::string_view node) const noexcept {
    const auto found = std::find_if(nodes.begin(), nodes.end(),
                                    [&](const NodeSpec& spec) { return spec.name == node; });
    return found == nodes.end() ? nullptr : &*found;
}

Status Graph::validate() const {
    if (channels == nullptr) {
        return broken("the graph has no channels");
    }
    for (const auto check : {check_nodes, check_edges, check_breakpoints, check_reachable}) {
        auto status = check(*this);
        if (!status) {
            return status;
        }
    }
    return base::ok();
}

}  // namespace heddle::graph
