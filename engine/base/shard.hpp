#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

#include "engine/base/clock.hpp"
#include "engine/base/machine.hpp"
#include "engine/base/task.hpp"
#include "engine/base/unique_function.hpp"
#include "engine/base/uuid.hpp"

namespace heddle::base {

/// One OS thread with one Asio loop. Everything that belongs to a thread of the API is touched only
/// here, so it needs no lock. The constructor starts the OS thread, stop() and the destructor join
/// it.
class Shard {
public:
    /// @param index         0-based, for logs and thread names
    /// @param mailbox_max   how many posted functions may wait at once
    Shard(std::size_t index, std::size_t mailbox_max);
    ~Shard();
    Shard(const Shard&) = delete;
    Shard& operator=(const Shard&) = delete;

    [[nodiscard]] std::size_t index() const noexcept { return index_; }
    [[nodiscard]] Executor executor() noexcept { return loop_.get_executor(); }
    [[nodiscard]] bool is_current() const noexcept;

    /// Runs `body` on the shard, in the order of posting per caller. Any OS thread.
    /// @return false if mailbox_max functions already wait: the caller answers `overloaded`
    [[nodiscard]] bool try_post(UniqueFunction<void()> body);
    /// For what must not be dropped and is bounded elsewhere (completions, cancels). Any OS thread.
    void post(UniqueFunction<void()> body);
    /// Starts a coroutine on this shard; an exception that leaves it is our bug and asserts.
    void spawn(Task<> task);

    /// Refuses new posts, lets the loop end and joins. Not from the shard itself. Idempotent.
    void stop();

private:
    std::size_t index_;
    std::size_t mailbox_max_;
    std::atomic<std::size_t> waiting_{0};
    asio::io_context loop_{1};
    asio::executor_work_guard<Executor> guard_;
    machine::LoopThread os_thread_;  // last: it uses everything above
};

/// Completes on the awaiting shard when the time has passed.
Task<> wait_for(Duration duration);

/// A fixed set of shards; a thread of the API always lives on the same one.
class ShardPool {
public:
    ShardPool(std::size_t count, std::size_t mailbox_max);

    [[nodiscard]] std::size_t size() const noexcept { return shards_.size(); }
    [[nodiscard]] Shard& at(std::size_t index) { return *shards_[index]; }
    [[nodiscard]] Shard& of(const ThreadId& thread) {
        return *shards_[stable_hash(thread.uuid) % shards_.size()];
    }
    void stop();

private:
    std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace heddle::base
