// What a ThreadSession does about its thread's age: it goes, or its oldest checkpoints do.
#include <algorithm>

#include "engine/observe/log.hpp"
#include "engine/scheduler/history.hpp"
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {
namespace {

// A snapshot is as long as the state; so many rows at least share one.
constexpr std::int64_t kPruneRowsMin = 16;
// Until it is looked again whether rows have become old enough, and whether what failed goes now.
constexpr base::Duration kPruneWaitMin = std::chrono::seconds{1};
constexpr base::Duration kPruneRetryWait = std::chrono::minutes{1};

}  // namespace

base::Task<base::Status> ThreadSession::set_ttl(storage::ThreadTtl ttl) {
    storage::ThreadWrite write;
    write.ttl = ttl;
    auto written = co_await write_alone(std::move(write));
    if (written) {
        thread_.ttl = ttl;
    }
    co_return written;
}

base::Task<> ThreadSession::keep_for_key() {
    const auto self = shared_from_this();
    storage::ThreadWrite write;
    write.ttl = thread_.ttl;
    write.ttl_kept = context_.limits.key_kept;
    (void)co_await write_alone(
        std::move(write));  // if it fails, so does the run that comes with it
}

base::Task<base::Status> ThreadSession::expire(storage::ExpiredThread due) {
    const auto self = shared_from_this();
    if (lost_) {
        co_return *lost_;
    }
    if (!is_idle() || pruning_ || handing_over_) {
        co_return base::Error{base::ErrorCode::conflict, "the thread is in use"};
    }
    if (due.strategy == storage::TtlStrategy::keep_latest) {
        co_return co_await keep_latest();
    }
    if (due.rows > kSliceRows) {
        // Slice by slice; broken off, it leaves a thread that can be read.
        const auto pruned = co_await prune(head(), false);
        if (!pruned && pruned.error().code != base::ErrorCode::conflict) {
            co_return pruned;
        }
        if (!is_idle()) {
            co_return base::Error{base::ErrorCode::conflict, "the thread is in use"};
        }
    }
    // Who asks for it meanwhile asks again, and finds none.
    base::Error gone{base::ErrorCode::unavailable, "the thread has expired"};
    co_return co_await delete_now(due.expires_at_us, std::move(gone));
}

base::Task<base::Status> ThreadSession::keep_latest() {
    const auto newest = std::max<storage::Seq>(head(), 0);
    auto pruned = co_await prune(newest, true);
    if (pruned || lost_ || !thread_.ttl) {
        co_return pruned;
    }
    observe::log(observe::LogLevel::warn, "scheduler", "thread {} keeps its checkpoints: {}",
                 thread_.id.to_string(), pruned.error().message);
    // Not every few seconds again: that would keep the sweep from all the others.
    const auto later = *thread_.ttl;
    const auto postponed = co_await set_ttl(later);
    co_return postponed ? pruned : postponed;
}

base::Task<base::Status> ThreadSession::prune(storage::Seq first, bool stop_ttl) {
    const auto self = shared_from_this();
    storage::JournalPrune prune;
    prune.first = first;
    prune.runs_kept = context_.limits.key_kept;
    prune.stop_ttl = stop_ttl;
    if (first > thread_.first) {
        pruning_ = true;
        auto snapshot = co_await make_snapshot(context_.store, context_.catalog, thread_.id, first);
        pruning_ = false;
        if (!snapshot) {
            co_return std::move(snapshot).error();
        }
        prune.snapshot = std::move(*snapshot);
    }
    pruning_ = true;
    auto status = base::ok();
    const auto from = std::min(thread_.first, first);
    for (auto below = from; status;) {
        below = std::min(below + kSliceRows, first);
        prune.delete_below = below;
        storage::ThreadWrite write;
        write.prune = prune;
        status = co_await write_alone(std::move(write));
        prune.snapshot.clear();
        if (status) {
            thread_.first = std::max(thread_.first, first);
        }
        if (below == first) {
            break;
        }
    }
    pruning_ = false;
    if (status) {
        context_.metrics.checkpoints_pruned_total.fetch_add(first - from,
                                                            std::memory_order_relaxed);
    }
    if (status && position_) {
        position_->base = std::max(position_->base, first);
    }
    co_return status;
}

void ThreadSession::prune_soon() {
    const auto kept = context_.limits.checkpoints_kept;
    if (kept == 0 || lost_ || pruning_ || handing_over_) {
        return;
    }
    const auto rows = head() - thread_.first + 1;
    if (rows < kept + std::max(kept, kPruneRowsMin) ||
        base::system_clock().now() < prune_again_at_) {
        return;
    }
    pruning_ = true;
    context_.shard.spawn(prune_old());
}

base::Task<> ThreadSession::prune_old() {
    const auto self = shared_from_this();
    const auto kept = context_.limits.checkpoints_kept;
    // A run's answer is its checkpoint: it can be had again as long as its key is promised.
    const auto until_us = base::unix_microseconds() - base::microseconds(context_.limits.key_kept);
    const auto first = co_await find_last_before(context_.store, thread_.id, thread_.first,
                                                 head() - kept + 1, until_us);
    pruning_ = false;
    const bool enough = first && *first - thread_.first >= kPruneRowsMin;
    if (!enough) {
        prune_again_at_ =
            base::system_clock().now() + std::max(kPruneWaitMin, context_.limits.key_kept / 64);
    }
    // A run that came in between may be taken back to where it began, which is above `first`.
    if (!enough || lost_ || handing_over_) {
        co_return;
    }
    const auto pruned = co_await prune(*first, false);
    if (!pruned && !lost_) {
        prune_again_at_ = base::system_clock().now() + kPruneRetryWait;
        observe::log(observe::LogLevel::info, "scheduler", "thread {} not pruned: {}",
                     thread_.id.to_string(), pruned.error().message);
    }
}

}  // namespace heddle::scheduler
