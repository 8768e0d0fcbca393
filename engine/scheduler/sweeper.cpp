#include "engine/scheduler/sweeper.hpp"

#include <utility>
#include <vector>

#include "engine/observe/log.hpp"

namespace heddle::scheduler {
namespace {

using Due = std::vector<storage::ExpiredThread>;

base::Task<> expire_on_shard(ShardScheduler& shard, Due due, base::Completion<std::size_t> done) {
    const auto count = co_await shard.expire(std::move(due));
    done(count);
}

}  // namespace

Sweeper::Sweeper(Scheduler& scheduler, SweeperLimits limits)
    : scheduler_{scheduler}, limits_{limits} {}

void Sweeper::start() {
    loop_.spawn(sweep());
}

void Sweeper::stop() {
    draining_.store(true, std::memory_order_relaxed);
    loop_.stop();
}

base::Task<> Sweeper::sweep() {
    while (!draining_.load(std::memory_order_relaxed)) {
        co_await base::wait_for(limits_.every);
        bool more = true;
        while (more && !draining_.load(std::memory_order_relaxed)) {
            const auto began = base::system_clock().now();
            const bool threads = co_await sweep_threads();
            const bool keys = co_await sweep_keys();
            more = threads || keys;
            // At most half of the time, however much there is.
            const auto took = base::system_clock().now() - began;
            co_await base::wait_for(took);
        }
    }
}

base::Task<bool> Sweeper::sweep_threads() {
    auto found = co_await base::from_callback<base::Result<Due>>([&](auto done) {
        scheduler_.store().find_expired(limits_.threads_per_round, std::move(done));
    });
    if (!found) {
        observe::log(observe::LogLevel::warn, "sweeper", "expired threads not found: {}",
                     found.error().message);
        co_return false;
    }
    const bool is_full = found->size() == static_cast<std::size_t>(limits_.threads_per_round);
    std::vector<Due> by_shard(scheduler_.pool().size());
    for (auto& due : *found) {
        by_shard[scheduler_.pool().of(due.id).index()].push_back(due);
    }
    std::size_t expired = 0;
    for (std::size_t i = 0; i < by_shard.size(); ++i) {
        if (by_shard[i].empty()) {
            continue;
        }
        expired += co_await base::from_callback<std::size_t>([&](auto done) {
            auto& shard = scheduler_.at(i);
            scheduler_.pool().at(i).spawn(
                expire_on_shard(shard, std::move(by_shard[i]), std::move(done)));
        });
    }
    scheduler_.metrics().threads_expired_total.fetch_add(static_cast<std::int64_t>(expired),
                                                         std::memory_order_relaxed);
    // If nothing could be done, what was found would be found again.
    co_return is_full&& expired > 0;
}

base::Task<bool> Sweeper::sweep_keys() {
    const auto deleted = co_await base::from_callback<base::Result<std::int32_t>>([&](auto done) {
        scheduler_.store().delete_expired_keys(limits_.keys_per_round, std::move(done));
    });
    co_return deleted&&* deleted == limits_.keys_per_round;
}

}  // namespace heddle::scheduler
