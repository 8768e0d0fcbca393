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

std::size_t cost_of(const LoggedEvent& event) noexcept {
    // A block of the heap has a header, and its size is rounded up; short texts have none.
    static const auto kInPlace = std::string{}.capacity();
    constexpr std::size_t kBlock = 16;
    const auto text = event.data.capacity();
    return sizeof(LoggedEvent) + (text > kInPlace ? text + kBlock : 0);
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
        logged.push_back({id, each.event.mode, std::move(each.event.data), each.lost});
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

RunLog::~RunLog() {
    if (budget_ != nullptr) {
        budget_->leave(*this);
    }
}

void RunLog::append(LoggedEvent event) {
    HEDDLE_ASSERT(!closed_ && (is_empty() || last_ < event.id));
    last_ = event.id;
    if (event.lost) {
        note_dropped(event, dropped_ + events_.size());
    } else {
        const auto cost = cost_of(event);
        bytes_ += cost;
        events_.push_back(std::move(event));
        while (bytes_ > bytes_max_ && can_drop()) {
            drop_oldest();
        }
        if (budget_ != nullptr) {
            budget_->grew(*this, cost);
        }
    }
    if (gates_.empty()) {
        changed_.notify_all();
    }
}

bool RunLog::can_drop() const noexcept {
    // The newest event stays, whatever its size, unless the shard has no room for it: somebody is
    // waiting for it right now. What is said
    // of the run's end is in no journal row, and small.
    return events_.size() > 1 && !events_.front().id.is_of_end();
}

bool RunLog::can_drop_newest() const noexcept {
    if (events_.empty() || events_.front().id.attempt != 0) {
        return false;
    }
    const auto rows = events_.front().id.rows;
    return rows <= stored_rows_ || std::any_of(gates_.begin(), gates_.end(),
                                               [&](const Gate& gate) { return gate.rows >= rows; });
}

void RunLog::drop_oldest() {
    const auto cost = cost_of(events_.front());
    bytes_ -= cost;
    if (budget_ != nullptr) {
        budget_->shrank(cost);
    }
    note_dropped(events_.front(), dropped_);
    ++dropped_;
    events_.pop_front();
}

void RunLog::note_dropped(const LoggedEvent& event, std::uint64_t at) {
    const bool of_step = event.id.attempt == 0;
    auto kind = std::find_if(kinds_.begin(), kinds_.end(), [&](const Dropped& each) {
        return each.mode == event.mode && each.of_step == of_step;
    });
    if (kind == kinds_.end()) {
        kind = kinds_.insert(kind, {event.mode, of_step, {}, 0});
    }
    kind->newest = event.id;
    kind->at = at;
}

void RunLog::add_gate(std::uint64_t rows) {
    gates_.push_back({dropped_ + events_.size(), rows});
}

void RunLog::cut() {
    cut_at_ = dropped_ + visible();
}

void RunLog::open_gate() {
    HEDDLE_ASSERT(!gates_.empty());
    stored_rows_ = std::max(stored_rows_, gates_.front().rows);
    gates_.pop_front();
    changed_.notify_all();
}

void RunLog::close() {
    closed_ = true;
    if (budget_ != nullptr) {
        budget_->leave(*this);
    }
    changed_.notify_all();
}

std::size_t RunLog::visible() const noexcept {
    auto end = dropped_ + events_.size();
    if (!gates_.empty()) {
        end = std::min(end, gates_.front().at);
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

LogBudget::~LogBudget() {
    for (auto* log : logs_) {
        log->budget_ = nullptr;
    }
}

void LogBudget::grew(RunLog& log, std::size_t bytes) {
    logs_.insert(&log);
    bytes_ += bytes;
    while (bytes_ > bytes_max_) {
        RunLog* largest = nullptr;
        RunLog* newest = nullptr;
        for (auto* each : logs_) {
            if (each->can_drop() && (largest == nullptr || largest->bytes_ < each->bytes_)) {
                largest = each;
            }
            if (largest == nullptr && each->can_drop_newest() &&
                (newest == nullptr || newest->bytes_ < each->bytes_)) {
                newest = each;
            }
        }
        if (largest == nullptr) {
            if (newest == nullptr) {
                return;
            }
            newest->drop_oldest();
            continue;
        }
        const auto left = largest->bytes_ - largest->bytes_ / 4;
        while (largest->bytes_ > left && largest->can_drop()) {
            largest->drop_oldest();
        }
    }
}

void LogBudget::leave(RunLog& log) {
    if (logs_.erase(&log) > 0) {
        bytes_ -= log.bytes_;
    }
    log.budget_ = nullptr;
}

}  // namespace heddle::scheduler
