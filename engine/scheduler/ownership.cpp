#include "engine/scheduler/ownership.hpp"

#include <algorithm>
#include <future>

#include "engine/observe/log.hpp"

namespace heddle::scheduler {

Ownership::Ownership(Scheduler& scheduler, std::string endpoint, OwnershipLimits limits)
    : scheduler_{scheduler}, endpoint_{std::move(endpoint)}, limits_{limits} {}

base::EngineId Ownership::engine_id() const {
    const std::lock_guard lock{id_mutex_};
    return id_;
}

base::Status Ownership::start() {
    std::promise<base::Status> registered;
    auto answer = registered.get_future();
    start([&registered](const base::Status& status) { registered.set_value(status); });
    return answer.get();
}

void Ownership::start(base::Completion<base::Status> done) {
    loops_.spawn([](Ownership& self, base::Completion<base::Status> registered) -> base::Task<> {
        auto status = co_await self.register_anew();
        if (status) {
            self.loops_.spawn(self.keep_lease());
            self.loops_.spawn(self.take_over());
        }
        registered(std::move(status));
    }(*this, std::move(done)));
}

void Ownership::leave() {
    if (left_.exchange(true)) {
        return;
    }
    loops_.stop();
    std::promise<void> gone;
    auto answer = gone.get_future();
    scheduler_.store().unregister_engine([&gone](const base::Status& status) {
        if (!status) {
            observe::log(observe::LogLevel::warn, "ownership", "not unregistered: {}",
                         status.error().message);
        }
        gone.set_value();
    });
    answer.wait();
}

void Ownership::stop() {
    loops_.stop();
}

base::Task<base::Status> Ownership::register_anew() {
    const base::EngineId id{base::make_uuid_v7()};
    storage::EngineRow row;
    row.id = id;
    row.endpoint = endpoint_;
    row.draining = draining_.load(std::memory_order_relaxed);
    const auto asked_at = base::system_clock().now();
    auto status = co_await base::from_callback<base::Status>(
        [&](auto done) { scheduler_.store().register_engine(std::move(row), std::move(done)); });
    if (status) {
        scheduler_.lease().extend(asked_at + limits_.lease);
        const std::lock_guard lock{id_mutex_};
        id_ = id;
    }
    co_return status;
}

base::Task<bool> Ownership::renew() {
    auto& lease = scheduler_.lease();
    const auto asked_at = base::system_clock().now();
    const auto status = co_await base::from_callback<base::Status>([&](auto done) {
        scheduler_.store().heartbeat(draining_.load(std::memory_order_relaxed), std::move(done));
    });
    if (status) {
        lease.extend(asked_at + limits_.lease);
        co_return true;
    }
    const auto code = status.error().code;
    if (code == base::ErrorCode::stale_epoch || code == base::ErrorCode::not_found) {
        lease.end();
    }
    observe::log(observe::LogLevel::warn, "ownership", "heartbeat failed: {}",
                 status.error().message);
    co_return !lease.is_over();
}

base::Task<> Ownership::keep_lease() {
    bool is_registered = true;
    // From beat to beat, however long the store takes: the lease counts from when it was asked.
    auto beats_at = base::system_clock().now();
    while (!left_.load(std::memory_order_relaxed)) {
        beats_at = std::max(beats_at + limits_.heartbeat_every, base::system_clock().now());
        co_await base::wait_for(beats_at - base::system_clock().now());
        if (left_.load(std::memory_order_relaxed)) {
            co_return;
        }
        if (is_registered) {
            const bool held = co_await renew();
            if (held) {
                continue;
            }
            observe::log(observe::LogLevel::error, "ownership",
                         "lease lost: all runs are abandoned");
            scheduler_.lease().end();
            abandon_all();
        }
        // The old id must not beat again, also if this fails and the store took it for alive: its
        // threads would belong to an engine that does nothing for them, and to nobody else.
        const auto status = co_await register_anew();
        is_registered = status.has_value();
    }
}

base::Task<> Ownership::take_over() {
    // Those of a full round have to be claimed before the next one finds others.
    constexpr base::Duration kAfterFullRound = std::chrono::milliseconds{50};
    bool was_full = false;
    while (!left_.load(std::memory_order_relaxed)) {
        co_await base::wait_for(was_full ? std::min(kAfterFullRound, limits_.recovery_every)
                                         : limits_.recovery_every);
        was_full = false;
        if (draining_.load(std::memory_order_relaxed)) {
            continue;
        }
        const auto orphans =
            co_await base::from_callback<base::Result<std::vector<base::ThreadId>>>([&](auto done) {
                scheduler_.store().find_orphans(limits_.orphans_per_round, std::move(done));
            });
        if (!orphans) {
            continue;
        }
        was_full = orphans->size() >= static_cast<std::size_t>(limits_.orphans_per_round);
        for (const auto& thread : *orphans) {
            auto& owner = scheduler_.of(thread);
            scheduler_.pool().of(thread).post([&owner, thread] { owner.recover(thread); });
        }
    }
}

void Ownership::abandon_all() {
    for (std::size_t i = 0; i < scheduler_.pool().size(); ++i) {
        auto& shard_scheduler = scheduler_.at(i);
        scheduler_.pool().at(i).post([&shard_scheduler] { shard_scheduler.abandon_all(); });
    }
}

}  // namespace heddle::scheduler
