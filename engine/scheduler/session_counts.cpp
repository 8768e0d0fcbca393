// What a ThreadSession adds to what its shard counts: runs, and the bytes that are kept for it.
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {

void ThreadSession::count_runs(std::int64_t running, std::int64_t waiting) {
    context_.metrics.runs_running.fetch_add(running - counted_running_, std::memory_order_relaxed);
    context_.metrics.runs_waiting.fetch_add(waiting - counted_waiting_, std::memory_order_relaxed);
    counted_running_ = running;
    counted_waiting_ = waiting;
}

void ThreadSession::count_bytes(std::size_t bytes) {
    context_.open_runs_bytes += bytes - runs_bytes_;
    context_.metrics.runs_open_bytes.fetch_add(
        static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(runs_bytes_),
        std::memory_order_relaxed);
    runs_bytes_ = bytes;
}

void ThreadSession::weigh() {
    const auto state = position_ ? position_->state.bytes() : 0;
    weigh_as(state + thread_.metadata.size() + thread_.interrupts.size());
}

void ThreadSession::weigh_as(std::size_t bytes) {
    context_.threads_bytes += bytes - bytes_;
    context_.metrics.threads_bytes.fetch_add(
        static_cast<std::int64_t>(bytes) - static_cast<std::int64_t>(bytes_),
        std::memory_order_relaxed);
    bytes_ = bytes;
}

}  // namespace heddle::scheduler
