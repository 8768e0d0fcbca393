#include "engine/scheduler/run_log.hpp"

#include "engine/base/assert.hpp"

namespace heddle::scheduler {

void RunLog::append(graph::StreamEvent event) {
    HEDDLE_ASSERT(!closed_);
    bytes_ += event.data.size();
    events_.push_back({next_id_++, event.mode, std::move(event.data)});
    // The newest event stays whatever its size: somebody is waiting for it right now.
    while (bytes_ > bytes_max_ && events_.size() > 1) {
        bytes_ -= events_.front().data.size();
        events_.pop_front();
    }
    changed_.notify_all();
}

void RunLog::close() {
    closed_ = true;
    changed_.notify_all();
}

const LoggedEvent* RunLog::find_after(std::uint64_t position) const noexcept {
    if (position >= last_id()) {
        return nullptr;
    }
    const auto first = first_id();
    return &events_[position < first ? 0 : position + 1 - first];
}

}  // namespace heddle::scheduler
