#pragma once

#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/base/shard.hpp"
#include "engine/graph/graph.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/scheduler/ownership.hpp"
#include "engine/scheduler/scheduler.hpp"

namespace heddle::scheduler::test {

/// When a test gives up waiting for what must happen.
[[nodiscard]] base::Instant soon();
/// No machine is so slow that a lease passes, nor is a clock that a test moves: an engine is dead
/// when TestEngine::kill() says so.
[[nodiscard]] storage::StoreLimits long_lease();
/// Looks often for what others left.
[[nodiscard]] OwnershipLimits quick_ownership();

/// Node executions that arrive here wait until the test lets them go. Any OS thread.
class Gate {
public:
    base::Task<> pass();
    /// Lets everybody through who waits or will come.
    void open();
    /// Who comes from now on waits again.
    void close();
    /// How many have arrived so far.
    [[nodiscard]] std::size_t arrived() const;

private:
    mutable std::mutex mutex_;
    bool open_ = false;
    std::size_t arrived_ = 0;
    std::vector<base::Completion<bool>> waiting_;
};

/// "echo": answers the last message. "gated": the same, behind a gate.
std::shared_ptr<const graph::Graph> make_echo_graph();
std::shared_ptr<const graph::Graph> make_gated_graph(Gate& gate);
/// "two_steps": both of them after one another.
std::shared_ptr<const graph::Graph> make_two_step_graph(Gate& gate);

/// An engine without its edge: shards, a store of its own over a shared database, a scheduler.
class TestEngine {
public:
    TestEngine(std::unique_ptr<storage::Store> store,
               const Catalog& catalog,
               OwnershipLimits ownership = {},
               const SchedulerLimits& limits = {});
    ~TestEngine();

    /// What a process that is killed does: stops whatever it is at. Its lease passes at once.
    void kill();
    [[nodiscard]] Ownership& ownership() { return *ownership_; }
    [[nodiscard]] Scheduler& scheduler() { return *scheduler_; }
    [[nodiscard]] const observe::Metrics& metrics() const { return metrics_; }

    /// Runs `body(ShardScheduler&)`, a coroutine, on the thread's shard and waits for its value.
    template <class T, class Body>
    T on_shard(const base::ThreadId& thread, Body body) {
        auto result = start<T>(thread, std::move(body));
        return result.get();
    }
    template <class T, class Body>
    std::future<T> start(const base::ThreadId& thread, Body body) {
        auto promise = std::make_shared<std::promise<T>>();
        auto future = promise->get_future();
        auto run = [](Body each, ShardScheduler& scheduler,
                      std::shared_ptr<std::promise<T>> out) -> base::Task<> {
            out->set_value(co_await each(scheduler));
        };
        shards_->of(thread).spawn(run(std::move(body), scheduler_->of(thread), promise));
        return future;
    }

private:
    observe::Metrics metrics_;
    std::unique_ptr<storage::Store> store_;
    std::unique_ptr<base::ShardPool> shards_;
    std::unique_ptr<Scheduler> scheduler_;
    std::unique_ptr<Ownership> ownership_;
    bool killed_ = false;
};

}  // namespace heddle::scheduler::test
