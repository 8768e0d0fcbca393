#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/graph/runner.hpp"

/// The events of a superstep lie in its journal row, behind the state: whoever takes the run over,
/// or joins it when it has ended, gives readers the very events that the first engine gave (or was
/// about to give). `values` costs nothing there: it is read off the state.
namespace heddle::graph {

/// JournalRow::data up to the events.
[[nodiscard]] std::string_view state_part(std::string_view data) noexcept;

/// One event of a row.
struct RowEvent {
    storage::Seq seq = 0;       ///< of its row
    std::uint32_t attempt = 0;  ///< 0: the step's own; else it happened while the step ran
    std::uint32_t number = 0;   ///< from 1: within the row, or within the attempt
    StreamEvent event;          ///< without data if it is lost
    /// What happened while the step ran was not kept: this is the last of its mode that was not.
    bool lost = false;
};

/// Puts the events behind the state in `data`.
/// @param live   what happened while the step ran: what is kept for stream_resumable, and of each
///               mode the last that is not; in the order of their numbers
/// @param events  the step's own; modes values, updates, checkpoints, debug
void append_row_events(std::string& data,
                       const std::vector<RowEvent>& live,
                       const std::vector<StreamEvent>& events);

/// The events of the rows that `run` made, in order. O(chain).
/// @param chain  as for restore()
/// @return internal if a row is broken
base::Result<std::vector<RowEvent>> read_row_events(const std::shared_ptr<const Channels>& channels,
                                                    const std::vector<storage::JournalRow>& chain,
                                                    const base::RunId& run);

struct RowEventsPage {
    std::vector<RowEvent> events;
    storage::Seq to = storage::kNoSeq;  ///< the last row that was read
};
/// The same of the rows from `from` on, until they weigh `bytes_max`: whole rows, at least one.
base::Result<RowEventsPage> read_row_events_page(const std::shared_ptr<const Channels>& channels,
                                                 const std::vector<storage::JournalRow>& chain,
                                                 const base::RunId& run,
                                                 storage::Seq from,
                                                 std::size_t bytes_max);

}  // namespace heddle::graph
