#pragma once

#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include <asio/co_spawn.hpp>

#include "engine/base/assert.hpp"
#include "engine/base/task.hpp"

namespace heddle::graph {

/// Runs all of them at once on the calling shard and resumes when the last has ended. They must not
/// throw; each owns its deadline.
inline base::Task<> run_all(std::vector<base::Task<>> tasks) {
    struct Waiting {
        std::size_t left;
        base::Completion<bool> done;
    };
    if (tasks.empty()) {
        co_return;
    }
    const base::Executor executor = co_await asio::this_coro::executor;
    auto start = [executor, &tasks](base::Completion<bool> done) {
        const auto waiting = std::make_shared<Waiting>(Waiting{tasks.size(), std::move(done)});
        for (auto& task : tasks) {
            asio::co_spawn(executor, std::move(task), [waiting](const std::exception_ptr& failure) {
                HEDDLE_ASSERT(failure == nullptr);
                if (--waiting->left == 0) {
                    waiting->done(true);
                }
            });
        }
    };
    (void)co_await base::from_callback<bool>(std::move(start));
}

}  // namespace heddle::graph
