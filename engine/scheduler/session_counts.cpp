// What a ThreadSession adds to what its shard counts: runs, and the bytes that are kept for it.
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {
namespace {

void recount(std::size_t& own,
             std::size_t now,
             std::size_t& of_shard,
             std::atomic<std::int64_t>& of_engine) {
    of_shard += now - own;
    of_engine.fetch_add(static_cast<std::int64_t>(now) - static_cast<std::int64_t>(own),
                        std::memory_order_relaxed);
    own = now;
}

}  // namespace

void ThreadSession::count_runs(std::int64_t running, std::int64_t waiting) {
    context_.metrics.runs_running.fetch_add(running - counted_running_, std::memory_order_relaxed);
    context_.metrics.runs_waiting.fetch_add(waiting - counted_waiting_, std::memory_order_relaxed);
    counted_running_ = running;
    counted_waiting_ = waiting;
}

void ThreadSession::count_bytes(std::size_t bytes) {
    recount(runs_bytes_, bytes, context_.open_runs_bytes, context_.metrics.runs_open_bytes);
}

void ThreadSession::weigh() {
    if (!is_weighed_) {
        return;
    }
    const auto state = position_ ? position_->state.bytes() : 0;
    recount(bytes_, state + thread_.metadata.size() + thread_.interrupts.size(),
            context_.threads_bytes, context_.metrics.threads_bytes);
    if (context_.threads_bytes > context_.limits.threads_bytes_max) {
        context_.evict_soon();
    }
}

void ThreadSession::leave_counts() {
    recount(bytes_, 0, context_.threads_bytes, context_.metrics.threads_bytes);
    is_weighed_ = false;
}

}  // namespace heddle::scheduler
