#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/storage/memory/memory_store.hpp"
#include "tests/unit/engine/scheduler/test_engine.hpp"

namespace heddle::scheduler::test {

/// Engines over one disk in memory, a thread, and the graphs "echo", "gated" and "two_steps".
class SchedulerTest : public testing::Test {
protected:
    [[nodiscard]] std::unique_ptr<TestEngine> make_engine(const SchedulerLimits& limits = {});

    /// Of thread_, which it makes if need be.
    [[nodiscard]] RunRequest request(const std::string& graph, const std::string& text) const;

    /// Comes back when the scheduler has taken it.
    static base::Result<RunHandle> submit(TestEngine& engine, RunRequest request);
    /// Comes back when its row is on disk.
    static base::Result<RunHandle> accept(TestEngine& engine, RunRequest request);
    static base::Result<RunOutcome> wait_for_end(TestEngine& engine, RunHandle run);
    /// Submits and waits for the end.
    static base::Result<RunOutcome> run(TestEngine& engine, RunRequest request);
    base::Status cancel(TestEngine& engine, base::RunId run, bool roll_back) const;

    /// Newest first.
    [[nodiscard]] std::vector<storage::RunRow> runs(TestEngine& engine) const;
    /// Newest first.
    [[nodiscard]] std::vector<StateAt> history(TestEngine& engine) const;
    /// Of the messages on disk, oldest first.
    [[nodiscard]] std::vector<std::string> contents(TestEngine& engine) const;
    /// Whether the thread's checkpoints form one line without a fork.
    [[nodiscard]] bool is_linear(TestEngine& engine) const;

    /// @return whether it came true until soon()
    template <class Condition>
    [[nodiscard]] static bool comes_true(Condition condition) {
        const auto until = soon();
        while (!condition() && base::system_clock().now() < until) {
            std::this_thread::yield();
        }
        return condition();
    }
    /// @return whether so many node executions have come to the gate
    [[nodiscard]] bool wait_arrived(std::size_t executions) const;
    /// @return whether the engine has no thread any more
    [[nodiscard]] static bool wait_gone(const TestEngine& engine);

    Gate gate_;
    Catalog catalog_{{make_echo_graph(), make_gated_graph(gate_), make_two_step_graph(gate_)}};
    observe::Metrics store_metrics_;
    storage::MemoryDatabase database_;  ///< the engines' common disk
    base::ThreadId thread_{base::make_uuid_v7()};
};

}  // namespace heddle::scheduler::test
