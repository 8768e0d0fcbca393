#include "engine/scheduler/run_log.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "engine/base/assert.hpp"
#include "engine/base/json.hpp"

namespace heddle::scheduler {

EventId event_id_of(const graph::RowEvent& event) noexcept {
    // What happens while a superstep runs comes after the rows before it.
    const auto rows = event.attempt == 0 ? event.seq + 1 : event.seq;
    return {static_cast<std::uint64_t>(rows), event.attempt, event.number};
}

std::string run_metadata(const base::RunId& run, std::int32_t attempt) {
    return fmt::format(R"({{"run_id":"{}","attempt":{}}})", run.to_string(), attempt);
}

std::vector<LoggedEvent> logged_events(const base::RunId& run,
                                       std::vector<graph::RowEvent> events) {
    std::vector<LoggedEvent> logged;
    logged.reserve(events.size());
    std::uint32_t announced = 1;
    for (auto& each : events) {
        const auto id = event_id_of(each);
        if (id.attempt > announced) {
            announced = id.attempt;
            logged.push_back({{id.rows, announced, 0},
                              std::nullopt,
                              run_metadata(run, static_cast<std::int32_t>(announced))});
        }
        logged.push_back({id, each.event.mode, std::move(each.event.data)});
    }
    return logged;
}

std::vector<LoggedEvent> stop_events(std::uint64_t rows,
                                     const std::vector<graph::StreamMode>& modes,
                                     const base::Json& stop) {
    std::vector<LoggedEvent> events;
    for (const auto mode : {graph::StreamMode::updates, graph::StreamMode::values}) {
        if (std::find(modes.begin(), modes.end(), mode) != modes.end()) {
            const auto id = EventId::of_stop(rows, mode == graph::StreamMode::values);
            events.push_back({id, mode, base::dump_json(base::Json{{"__interrupt__", stop}})});
        }
    }
    return events;
}

void RunLog::append(LoggedEvent event) {
    HEDDLE_ASSERT(!closed_ && (is_empty() || last_ < event.id));
    last_ = event.id;
    bytes_ += event.data.size();
    events_.push_back(std::move(event));
    // The newest event stays whatever its size: somebody is waiting for it right now.
    while (bytes_ > bytes_max_ && events_.size() > 1) {
        bytes_ -= events_.front().data.size();
        dropped_to_ = events_.front().id;
        ++dropped_;
        events_.pop_front();
    }
    if (gates_.empty()) {
        changed_.notify_all();
    }
}

void RunLog::add_gate() {
    gates_.push_back(dropped_ + events_.size());
}

void RunLog::cut() {
    cut_at_ = dropped_ + visible();
}

void RunLog::open_gate() {
    HEDDLE_ASSERT(!gates_.empty());
    gates_.pop_front();
    changed_.notify_all();
}

void RunLog::close() {
    closed_ = true;
    changed_.notify_all();
}

std::size_t RunLog::visible() const noexcept {
    auto end = dropped_ + events_.size();
    if (!gates_.empty()) {
        end = std::min(end, gates_.front());
    }
    if (cut_at_) {
        end = std::min(end, *cut_at_);
    }
    return end > dropped_ ? static_cast<std::size_t>(end - dropped_) : 0;
}

const LoggedEvent* RunLog::find_after(const EventId& position) const noexcept {
    const auto end = events_.begin() + static_cast<std::ptrdiff_t>(visible());
    const auto found =
        std::upper_bound(events_.begin(), end, position,
                         [](const EventId& id, const auto& event) { return id < event.id; });
    return found == end ? nullptr : &*found;
}

}  // namespace heddle::scheduler
