#pragma once

#include <chrono>
#include <future>
#include <stdexcept>
#include <utility>

#include "engine/base/shard.hpp"

namespace heddle::test {

/// Starts `make()`'s task on the shard. The factory lives until the task is done, so it may be a
/// lambda coroutine with captures.
template <class Make>
auto start_on(base::Shard& shard, Make make) {
    using T = typename decltype(make())::value_type;
    std::promise<T> promise;
    auto future = promise.get_future();
    auto run = [](Make body, std::promise<T> result) -> base::Task<> {
        auto value = co_await body();
        result.set_value(std::move(value));
    };
    shard.spawn(run(std::move(make), std::move(promise)));
    return future;
}

/// @return what the task of `make()` came to; throws after 60 s
template <class Make>
auto run_on(base::Shard& shard, Make make) {
    auto future = start_on(shard, std::move(make));
    if (future.wait_for(std::chrono::seconds{60}) != std::future_status::ready) {
        shard.stop();  // the task uses what the caller is about to leave
        throw std::runtime_error{"the task on the shard did not end within 60 s"};
    }
    return future.get();
}

}  // namespace heddle::test
