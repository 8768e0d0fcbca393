#include "engine/graph/row_events.hpp"

#include <utility>

namespace heddle::graph {
namespace {

// Compact JSON has no line feeds, so they part the state and each event: one letter for its mode,
// then its payload.
constexpr char kSeparator = '\n';

struct Letter {
    StreamMode mode;
    char letter;
};
constexpr Letter kLetters[] = {{StreamMode::values, 'v'},
                               {StreamMode::updates, 'u'},
                               {StreamMode::checkpoints, 'c'},
                               {StreamMode::debug, 'd'}};

base::Result<StreamMode> mode_of(char letter) {
    for (const auto& each : kLetters) {
        if (each.letter == letter) {
            return each.mode;
        }
    }
    return base::Error{base::ErrorCode::internal, "a journal row has an event of unknown mode"};
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

void append_row_events(std::string& data, const std::vector<StreamEvent>& events) {
    for (const auto& event : events) {
        for (const auto& each : kLetters) {
            if (each.mode == event.mode) {
                data += kSeparator;
                data += each.letter;
            }
        }
        if (event.mode != StreamMode::values) {
            data += event.data;
        }
    }
}

base::Result<std::vector<RowEvent>> read_row_events(const std::shared_ptr<const Channels>& channels,
                                                    const std::vector<storage::JournalRow>& chain,
                                                    const base::RunId& run) {
    std::vector<RowEvent> found;
    State state{channels};
    for (const auto& row : chain) {
        auto status = state.replay(row.data);
        if (!status) {
            return std::move(status).error();
        }
        std::string_view rest = row.data;
        (void)take_line(rest);
        std::uint32_t number = 0;
        while (row.run_id == run && !rest.empty()) {
            const auto line = take_line(rest);
            const auto mode = mode_of(line.empty() ? ' ' : line.front());
            if (!mode) {
                return mode.error();
            }
            StreamEvent event{
                *mode, *mode == StreamMode::values ? state.to_text() : std::string{line.substr(1)}};
            found.push_back({row.seq, ++number, std::move(event)});
        }
    }
    return found;
}

}  // namespace heddle::graph
