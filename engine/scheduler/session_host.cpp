#include "engine/scheduler/session_host.hpp"

#include <algorithm>

namespace heddle::scheduler {
namespace {

// Rows that may wait for a slow store before the run itself has to wait.
constexpr std::size_t kPendingRowsMax = 64;

}  // namespace

bool SessionHost::wants(graph::StreamMode mode) const noexcept {
    const auto& modes = run_.request().stream_modes;
    return std::find(modes.begin(), modes.end(), mode) != modes.end();
}

void SessionHost::emit(graph::StreamEvent event) {
    // A session that was lost emits nothing: another engine speaks for the run now.
    if (!session_.lost_ && !run_.log().is_closed()) {
        run_.log().append(std::move(event));
    }
}

base::Task<base::Status> SessionHost::checkpoint(storage::JournalRow row) {
    if (session_.lost_) {
        co_return *session_.lost_;
    }
    session_.context_.metrics.supersteps_total.fetch_add(1, std::memory_order_relaxed);
    if (run_.request().durability == Durability::exit) {
        held_.push_back(std::move(row));
        co_return base::ok();
    }
    session_.pending_.journal.push_back(std::move(row));
    const bool must_wait = run_.request().durability == Durability::sync ||
                           session_.pending_.journal.size() >= kPendingRowsMax;
    if (must_wait) {
        co_return co_await session_.write_now();
    }
    session_.write_soon({});
    co_return base::ok();
}

void SessionHost::count_tokens(std::int64_t input_tokens, std::int64_t output_tokens) {
    input_tokens_ += input_tokens;
    output_tokens_ += output_tokens;
    session_.context_.metrics.tokens_in_total.fetch_add(input_tokens, std::memory_order_relaxed);
    session_.context_.metrics.tokens_out_total.fetch_add(output_tokens, std::memory_order_relaxed);
}

base::CancelSource& SessionHost::cancel() noexcept {
    return run_.cancel();
}

void SessionHost::hand_over_held_rows() {
    for (auto& row : held_) {
        session_.pending_.journal.push_back(std::move(row));
    }
    held_.clear();
}

}  // namespace heddle::scheduler
