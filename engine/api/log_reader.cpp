#include "engine/api/log_reader.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using graph::StreamMode;
using scheduler::EventId;
using scheduler::LoggedEvent;

// Events that wait in the log go out together up to here: one frame instead of many.
constexpr std::size_t kBatchBytes = 32U << 10U;
// The same of events that are read back: each batch costs a read of the run's rows.
constexpr std::size_t kPageBytes = 1U << 20U;
// More than an event's field names, its mode's name and its id come to, with the announcement of an
// attempt before it.
constexpr std::size_t kFramingBytes = 256;

std::string lost_json(const std::vector<StreamMode>& modes,
                      const EventId& after,
                      const base::ThreadId& thread,
                      const base::CheckpointId& checkpoint) {
    auto names = base::Json::array();
    for (const auto mode : modes) {
        names.push_back(scheduler::to_string(mode));
    }
    const auto state = fmt::format("/threads/{}/state", thread.to_string());
    base::Json data{{"code", "events_lost"},
                    {"message",
                     "events of these modes between `after` and this one were not kept; "
                     "GET " +
                         state + " has what came of them"},
                    {"modes", std::move(names)},
                    {"after", after.to_string()},
                    {"state", state}};
    if (checkpoint != base::CheckpointId{}) {
        data["checkpoint_id"] = checkpoint.to_string();
    }
    return base::dump_json(data);
}

// So many rows hold the event: what happened while a superstep ran lies in the one that it made.
std::uint64_t rows_with(const EventId& id, bool of_step) noexcept {
    return id.rows + (of_step ? 0 : 1);
}

void sort_by_id(std::vector<LoggedEvent>& events) {
    std::stable_sort(events.begin(), events.end(),
                     [](const auto& left, const auto& right) { return left.id < right.id; });
}

}  // namespace

bool wants(const std::vector<StreamMode>& modes, std::optional<StreamMode> mode) noexcept {
    return modes.empty() || !mode || std::find(modes.begin(), modes.end(), *mode) != modes.end();
}

std::vector<LoggedEvent> readable(std::vector<LoggedEvent> events,
                                  const ReaderPosition& reader,
                                  const base::ThreadId& thread,
                                  const base::CheckpointId& checkpoint) {
    std::erase_if(events, [&](const auto& each) {
        return each.id <= reader.after || !wants(reader.modes, each.mode);
    });
    std::vector<StreamMode> modes;
    LoggedEvent* last = nullptr;
    for (auto& each : events) {
        if (!each.lost) {
            continue;
        }
        last = &each;
        if (std::find(modes.begin(), modes.end(), *each.mode) == modes.end()) {
            modes.push_back(*each.mode);
        }
    }
    if (last == nullptr) {
        return events;
    }
    last->data = lost_json(modes, reader.after, thread, checkpoint);
    std::vector<LoggedEvent> left;
    for (auto& each : events) {
        if (!each.lost || &each == last) {
            left.push_back(std::move(each));
        }
    }
    return left;
}

LogReader::LogReader(scheduler::ShardScheduler& shard,
                     scheduler::Run& run,
                     std::vector<StreamMode> modes,
                     std::optional<EventId> after)
    : shard_{shard},
      run_{run},
      log_{run.log()},
      modes_{std::move(modes)},
      position_{after.value_or(EventId{})},
      announcer_{run.row().id, after} {}

void LogReader::take_within(std::string& out, std::size_t bytes_max) {
    while (take_next(out, bytes_max)) {
    }
}

base::Task<base::Result<bool>> LogReader::read(std::string& out) {
    if (is_behind()) {
        if (run_.failure()) {
            co_return *run_.failure();
        }
        co_return co_await catch_up(out);
    }
    while (out.size() < kBatchBytes && take_next(out, std::string::npos)) {
    }
    co_return !out.empty();
}

bool LogReader::take_next(std::string& out, std::size_t bytes_max) {
    const auto* event = is_behind() ? nullptr : log_.find_after(position_);
    if (event == nullptr) {
        return false;
    }
    const bool wanted = wants(modes_, event->mode);
    if (wanted && event->data.size() + kFramingBytes + out.size() > bytes_max) {
        return false;
    }
    position_ = event->id;
    if (wanted) {
        announcer_.append(out, *event);
    }
    return true;
}

bool LogReader::misses(const scheduler::RunLog::Dropped& dropped) const noexcept {
    return position_ < dropped.newest && wants(modes_, dropped.mode);
}

bool LogReader::is_behind() const noexcept {
    const auto& dropped = log_.dropped();
    return std::any_of(dropped.begin(), dropped.end(),
                       [this](const auto& each) { return misses(each); });
}

bool LogReader::is_at_end() const noexcept {
    if (!log_.is_closed()) {
        return false;
    }
    return is_behind() ? log_.is_cut() : log_.find_after(position_) == nullptr;
}

std::uint64_t LogReader::rows_on_disk() const noexcept {
    // A log closes when all that the run did is there.
    return log_.is_closed() ? UINT64_MAX : log_.stored_rows();
}

LogReader::Outlook LogReader::look() const {
    const auto& request = run_.request();
    const auto on_disk = rows_on_disk();
    const bool gated = request.durability != scheduler::Durability::exit;
    Outlook outlook;
    for (const auto& each : log_.dropped()) {
        if (!misses(each)) {
            continue;
        }
        outlook.to = std::max(outlook.to, each.newest);
        if (!each.mode) {
            outlook.made.push_back(
                {each.newest, std::nullopt,
                 scheduler::run_metadata(run_.row().id,
                                         static_cast<std::int32_t>(each.newest.attempt))});
            outlook.waits = outlook.waits || !log_.is_shown(each);
            continue;
        }
        if (rows_with(each.newest, each.of_step) <= on_disk) {
            continue;
        }
        const bool will_be = gated && (each.of_step || request.stream_resumable);
        if (will_be || !log_.is_shown(each)) {
            outlook.waits = true;
        } else {
            outlook.made.push_back({each.newest, each.mode, {}, true});
        }
    }
    if (outlook.waits) {
        outlook.to = std::min(outlook.to, EventId{on_disk, 0, EventId::kNumberMax});
    }
    return outlook;
}

base::Task<base::Result<bool>> LogReader::catch_up(std::string& out) {
    if (log_.is_cut()) {
        co_return false;  // its rows are being taken back; if that fails, they are read elsewhere
    }
    auto outlook = look();
    if (outlook.to <= position_ || (outlook.waits && rows_on_disk() == 0)) {
        co_return false;
    }
    const auto& row = run_.row();
    base::Result<scheduler::EventPage> page = scheduler::EventPage{};
    if (rows_on_disk() > 0) {
        page = co_await shard_.load_events_after(row.thread_id, row.id, position_, kPageBytes);
    }
    if (log_.is_cut()) {
        co_return false;  // meanwhile
    }
    if (!page) {
        co_return std::move(page).error();
    }
    const auto to = page->to ? std::min(outlook.to, *page->to) : outlook.to;
    add_lost(*page, to);
    // Some may have got there while it was read: what became of them is in their rows.
    std::erase_if(outlook.made, [&](const auto& each) {
        return each.lost && rows_with(each.id, each.id.attempt == 0) <= page->rows;
    });
    auto events = std::move(page->events);
    std::move(outlook.made.begin(), outlook.made.end(), std::back_inserter(events));
    // What is beyond is in the log as well.
    std::erase_if(events, [&](const auto& each) { return to < each.id; });
    sort_by_id(events);
    for (const auto& each :
         readable(std::move(events), {modes_, position_}, row.thread_id, page->checkpoint)) {
        if (each.mode || !announcer_.knows(each.id.attempt)) {
            announcer_.append(out, each);
        }
    }
    position_ = to;
    co_return true;
}

void LogReader::add_lost(scheduler::EventPage& page, const EventId& to) const {
    const bool is_cut = page.cut_at && position_ < *page.cut_at;
    for (const auto& each : log_.dropped()) {
        if (!each.mode || !misses(each)) {
            continue;
        }
        if (is_cut) {
            page.events.push_back({std::min(*page.cut_at, to), each.mode, {}, true});
        } else if (log_.is_closed() && !each.of_step && each.newest.rows >= page.rows) {
            // The superstep in which it happened has failed, and made no row.
            page.events.push_back({each.newest, each.mode, {}, true});
        }
    }
}

}  // namespace heddle::api
