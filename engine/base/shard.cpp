#include "engine/base/shard.hpp"

#include <exception>

#include <asio/co_spawn.hpp>
#include <fmt/format.h>

#include "engine/base/assert.hpp"
#include "engine/base/timer.hpp"

namespace heddle::base {

Shard::Shard(std::size_t index, std::size_t mailbox_max)
    : index_{index},
      mailbox_max_{mailbox_max},
      guard_{loop_.get_executor()},
      os_thread_{loop_, fmt::format("shard-{}", index_)} {}

Shard::~Shard() {
    stop();
}

bool Shard::is_current() const noexcept {
    return os_thread_.is_current();
}

bool Shard::try_post(UniqueFunction<void()> body) {
    if (waiting_.fetch_add(1, std::memory_order_relaxed) >= mailbox_max_) {
        waiting_.fetch_sub(1, std::memory_order_relaxed);
        return false;
    }
    machine::post(loop_, [this, body = std::move(body)]() mutable {
        waiting_.fetch_sub(1, std::memory_order_relaxed);
        body();
    });
    return true;
}

void Shard::post(UniqueFunction<void()> body) {
    machine::post(loop_, std::move(body));
}

void Shard::spawn(Task<> task) {
    asio::co_spawn(loop_, std::move(task), [](const std::exception_ptr& failure) {
        if (failure == nullptr) {
            return;
        }
        // Layers report errors as values; what arrives here is a bug, and its message the only
        // trace.
        try {
            std::rethrow_exception(failure);
        } catch (const std::exception& e) {
            assertion_failed(e.what(), "coroutine", 0);
        }
    });
}

void Shard::stop() {
    guard_.reset();
    loop_.stop();
    os_thread_.join();
}

Task<> wait_for(Duration duration) {
    const Executor executor = co_await asio::this_coro::executor;
    Timer timer{executor, duration};
    co_await timer.async_wait(kUseTask);
}

ShardPool::ShardPool(std::size_t count, std::size_t mailbox_max) {
    HEDDLE_ASSERT(count > 0);
    for (std::size_t i = 0; i < count; ++i) {
        shards_.push_back(std::make_unique<Shard>(i, mailbox_max));
    }
}

void ShardPool::stop() {
    for (auto& shard : shards_) {
        shard->stop();
    }
}

}  // namespace heddle::base
