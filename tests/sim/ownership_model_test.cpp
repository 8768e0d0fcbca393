#include <algorithm>
#include <iostream>
#include <unordered_set>

#include <gtest/gtest.h>

#include "tests/sim/ownership_world.hpp"

/// Every state that the bounds allow is visited, breadth first, so what fails is told by a shortest
/// list of actions. A state is reached by repeating the actions that lead to it on a new store.
namespace heddle::sim {
namespace {

// Nothing here has a second OS thread: under a sanitizer a part of the graph shows as much.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

struct Explored {
    std::size_t states = 0;
    std::size_t transitions = 0;
    std::size_t depth = 0;
    bool is_whole = true;    ///< nothing was left out because it is too deep
    std::size_t digest = 0;  ///< of all states, in the order in which they were found
    std::string failure;     ///< and the actions that led to it
};

class Explorer {
public:
    explicit Explorer(const Bounds& bounds) : bounds_{bounds} {}

    Explored explore() {
        add({}, OwnershipWorld{bounds_}.key());
        for (std::size_t at = 0; at < nodes_.size() && found_.failure.empty(); ++at) {
            if (nodes_[at].depth == bounds_.depth_max) {
                found_.is_whole = false;
                break;
            }
            expand(at);
        }
        found_.states = nodes_.size();
        found_.depth = nodes_.back().depth;
        return found_;
    }

private:
    struct Node {
        std::uint32_t parent = 0;
        std::uint16_t depth = 0;
        Action action;
    };

    void add(const Node& node, std::string key) {
        const auto hash = std::hash<std::string>{}(key);
        if (seen_.insert(std::move(key)).second) {
            nodes_.push_back(node);
            found_.digest = found_.digest * 31 + hash;
        }
    }

    void expand(std::size_t at) {
        const auto path = path_to(at);
        for (const auto action : replay(path)->actions()) {
            const auto world = replay(path);
            world->apply(action);
            world->check();
            ++found_.transitions;
            if (!world->failure().empty()) {
                found_.failure = world->failure() + describe(path, action);
                return;
            }
            const auto depth = static_cast<std::uint16_t>(nodes_[at].depth + 1);
            add({static_cast<std::uint32_t>(at), depth, action}, world->key());
        }
    }

    [[nodiscard]] std::vector<Action> path_to(std::size_t at) const {
        std::vector<Action> path;
        for (; nodes_[at].depth != 0; at = nodes_[at].parent) {
            path.push_back(nodes_[at].action);
        }
        std::reverse(path.begin(), path.end());
        return path;
    }

    [[nodiscard]] std::unique_ptr<OwnershipWorld> replay(const std::vector<Action>& path) const {
        auto world = std::make_unique<OwnershipWorld>(bounds_);
        for (const auto action : path) {
            world->apply(action);
        }
        return world;
    }

    static std::string describe(std::vector<Action> path, Action last) {
        path.push_back(last);
        std::string text;
        for (const auto action : path) {
            text += "\n  " + std::string{to_string(action.act)};
            const bool is_for_all = action.act == Act::start ||
                                    action.act == Act::over_half_a_lease_passes ||
                                    action.act == Act::a_lease_passes;
            text += is_for_all ? "" : " (process " + std::to_string(action.process) + ")";
        }
        return text;
    }

    Bounds bounds_;
    std::vector<Node> nodes_;
    std::unordered_set<std::string> seen_;
    Explored found_;
};

Explored explore(const Bounds& bounds) {
    const auto found = Explorer{bounds}.explore();
    std::cout << found.states << " states, " << found.transitions << " transitions, " << found.depth
              << " deep, "
              << (!found.failure.empty() ? "failed"
                  : found.is_whole       ? "the whole graph"
                                         : "cut off")
              << '\n';
    return found;
}

TEST(OwnershipModel, OneOfTwoWritesWhateverIsLateLostOrDeadToTheLastState) {
    Bounds bounds;
    bounds.depth_max = kIsSanitized ? 8 : 1000;
    const auto found = explore(bounds);
    EXPECT_EQ(found.failure, "");
    EXPECT_EQ(found.is_whole, !kIsSanitized);
}

TEST(OwnershipModel, TwoLateRequestsMayOvertakeEachOther) {
    Bounds bounds;
    bounds.in_flight = 2;
    bounds.depth_max = kIsSanitized ? 7 : 9;
    EXPECT_EQ(explore(bounds).failure, "");
}

TEST(OwnershipModel, AThirdProcessChangesNothing) {
    Bounds bounds;
    bounds.processes = 3;
    bounds.depth_max = kIsSanitized ? 6 : 8;
    EXPECT_EQ(explore(bounds).failure, "");
}

TEST(OwnershipModel, ClocksOfEnginesDoNotMatter) {
    Bounds bounds;
    bounds.depth_max = kIsSanitized ? 7 : 9;
    const auto right = explore(bounds);
    bounds.skew = std::chrono::seconds{10};
    const auto wrong = explore(bounds);
    EXPECT_EQ(wrong.failure, "");
    EXPECT_EQ(wrong.states, right.states);
    EXPECT_EQ(wrong.transitions, right.transitions);
    EXPECT_EQ(wrong.digest, right.digest);
}

TEST(OwnershipModel, EveryFaultIsFound) {
    struct Case {
        Fault fault;
        const char* found;
    };
    const Case cases[] = {
        {Fault::stale_epochs_pass, "only the owner's write with its epoch is accepted"},
        {Fault::strangers_pass, "only the owner's write with its epoch is accepted"},
        {Fault::the_live_are_robbed, "a live owner is not robbed"},
        {Fault::the_dead_are_spared, "a thread of nobody alive may be claimed at once"},
        {Fault::late_heartbeats_count, "a heartbeat after the lease is refused"},
        {Fault::writes_vanish, "the head is the row accepted last"},
        {Fault::local_clocks_count, "a heartbeat within the lease renews it"},
        {Fault::writes_overlap, "a row follows the one before it"},
    };
    for (const auto& each : cases) {
        Bounds bounds;
        bounds.skew = std::chrono::seconds{10};
        bounds.fault = each.fault;
        bounds.in_flight = 2;
        const auto failure = explore(bounds).failure;
        std::cout << failure << '\n';
        EXPECT_EQ(failure.substr(0, failure.find('\n')), each.found);
    }
}

}  // namespace
}  // namespace heddle::sim
