#include "engine/graph/row_events.hpp"

#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace heddle::graph {
namespace {

// Compact JSON has no line feeds, so they part the state and each event. A line is a letter for the
// mode, then the payload; what happened while the step ran has `l`, the letter, attempt and number
// before it, each number with a space behind it. `o` instead of `l`, and no payload: events of that
// mode up to this one were not kept.
constexpr char kSeparator = '\n';
constexpr char kLive = 'l';
constexpr char kOmitted = 'o';

struct Letter {
    StreamMode mode;
    char letter;
};
constexpr Letter kLetters[] = {
    {StreamMode::values, 'v'},         {StreamMode::updates, 'u'}, {StreamMode::checkpoints, 'c'},
    {StreamMode::debug, 'd'},          {StreamMode::tasks, 't'},   {StreamMode::custom, 'x'},
    {StreamMode::messages_tuple, 'm'},
};

char letter_of(StreamMode mode) {
    for (const auto& each : kLetters) {
        if (each.mode == mode) {
            return each.letter;
        }
    }
    return '?';  // no event of such a mode is ever made
}

std::optional<StreamMode> take_mode(std::string_view& line) {
    const char letter = line.empty() ? '?' : line.front();
    for (const auto& each : kLetters) {
        if (each.letter == letter) {
            line.remove_prefix(1);
            return each.mode;
        }
    }
    return std::nullopt;
}

bool take_number(std::string_view& line, std::uint32_t& number) {
    const auto read = std::from_chars(line.data(), line.data() + line.size(), number);
    if (read.ec != std::errc{} || read.ptr == line.data() + line.size() || *read.ptr != ' ') {
        return false;
    }
    line.remove_prefix(static_cast<std::size_t>(read.ptr - line.data()) + 1);
    return true;
}

// @param own  events of the row itself so far
std::optional<RowEvent> read_line(std::string_view line, const State& state, std::uint32_t& own) {
    RowEvent read;
    read.lost = line.starts_with(kOmitted);
    const bool live = read.lost || line.starts_with(kLive);
    line.remove_prefix(live ? 1 : 0);
    const auto mode = take_mode(line);
    if (!mode || (live && !(take_number(line, read.attempt) && take_number(line, read.number)))) {
        return std::nullopt;
    }
    read.event.mode = *mode;
    const bool is_derived = !live && *mode == StreamMode::values;
    read.event.data = is_derived ? state.to_text() : std::string{line};
    if (!live) {
        read.number = ++own;
    }
    return read;
}

std::string_view take_line(std::string_view& rest) {
    const auto end = rest.find(kSeparator);
    const auto line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return line;
}

}  // namespace

std::string_view state_part(std::string_view data) noexcept {
    return data.substr(0, data.find(kSeparator));
}

void append_row_events(std::string& data,
                       const std::vector<RowEvent>& live,
                       const std::vector<StreamEvent>& events) {
    for (const auto& each : live) {
        data += kSeparator;
        data += each.lost ? kOmitted : kLive;
        data += letter_of(each.event.mode);
        data += fmt::format("{} {} ", each.attempt, each.number);
        data += each.event.data;
    }
    for (const auto& event : events) {
        data += kSeparator;
        data += letter_of(event.mode);
        if (event.mode != StreamMode::values) {
            data += event.data;
        }
    }
}

base::Result<std::vector<RowEvent>> read_row_events(const std::shared_ptr<const Channels>& channels,
                                                    const std::vector<storage::JournalRow>& chain,
                                                    const base::RunId& run) {
    auto all = read_row_events_page(channels, chain, run, 0, SIZE_MAX);
    if (!all) {
        return std::move(all).error();
    }
    return std::move(all->events);
}

base::Result<RowEventsPage> read_row_events_page(const std::shared_ptr<const Channels>& channels,
                                                 const std::vector<storage::JournalRow>& chain,
                                                 const base::RunId& run,
                                                 storage::Seq from,
                                                 std::size_t bytes_max) {
    RowEventsPage page;
    State state{channels};
    std::size_t bytes = 0;
    for (const auto& row : chain) {
        if (bytes >= bytes_max) {
            break;
        }
        auto status = state.replay(row.data);
        if (!status) {
            return std::move(status).error();
        }
        page.to = row.seq;
        std::string_view rest = row.data;
        (void)take_line(rest);
        std::uint32_t own = 0;
        while (row.run_id == run && row.seq >= from && !rest.empty()) {
            auto event = read_line(take_line(rest), state, own);
            if (!event) {
                return base::Error{base::ErrorCode::internal,
                                   "a journal row has an event that cannot be read"};
            }
            event->seq = row.seq;
            bytes += sizeof(RowEvent) + event->event.data.size();
            page.events.push_back(std::move(*event));
        }
    }
    return page;
}

}  // namespace heddle::graph
