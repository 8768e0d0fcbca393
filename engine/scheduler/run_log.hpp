#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/signal.hpp"
#include "engine/base/uuid.hpp"
#include "engine/graph/row_events.hpp"
#include "engine/scheduler/event_id.hpp"

namespace heddle::scheduler {

/// One numbered event of a run's stream.
struct LoggedEvent {
    EventId id;
    std::optional<graph::StreamMode> mode;  ///< none: the metadata event of a further attempt
    std::string data;                       ///< compact JSON text
};

/// The id of an event that was read from its row.
EventId event_id_of(const graph::RowEvent& event) noexcept;

/// The events of a run's rows as readers get them: each attempt that some of them were made in is
/// announced before the first of it.
std::vector<LoggedEvent> logged_events(const base::RunId& run, std::vector<graph::RowEvent> events);

/// What a run's stream says of its having stopped, in those of `modes` that say it.
/// @param rows  of the thread, where it stopped
/// @param stop  as graph::RunResult
std::vector<LoggedEvent> stop_events(std::uint64_t rows,
                                     const std::vector<graph::StreamMode>& modes,
                                     const base::Json& stop);

/// Payload of a metadata event: {"run_id", "attempt"}.
std::string run_metadata(const base::RunId& run, std::int32_t attempt);

/// The events of one run in the order of their ids. Any number of readers, each with its own
/// position; reading takes nothing away. What stands behind a gate that is not open yet rests on a
/// superstep that is not on disk, and no reader sees it. Bounded: past bytes_max the oldest events
/// go. Belongs to the run's shard.
class RunLog {
public:
    explicit RunLog(std::size_t bytes_max) : bytes_max_{bytes_max} {}

    /// @param event  its id is above all before it
    void append(LoggedEvent event);
    /// What is appended from now on waits until as many gates have been opened as were added.
    void add_gate();
    void open_gate();
    /// What no reader sees yet, none ever will: the run is taken back.
    void cut();
    /// No event will follow. Wakes all readers.
    void close();
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] bool is_closed() const noexcept { return closed_; }
    [[nodiscard]] bool is_empty() const noexcept { return last_ == EventId{}; }
    /// Id of the newest event, {0, 0, 0} if there is none.
    [[nodiscard]] EventId last_id() const noexcept { return last_; }
    /// Id of the newest event that was given up for the bound: a reader whose position is below it
    /// has missed events for good.
    [[nodiscard]] EventId dropped_to() const noexcept { return dropped_to_; }
    /// @return the first event with an id above `position`, or nullptr. Valid until the next
    ///         co_await.
    [[nodiscard]] const LoggedEvent* find_after(const EventId& position) const noexcept;
    /// Notified at every append that readers see, and at close().
    [[nodiscard]] base::Signal& changed() noexcept { return changed_; }

private:
    [[nodiscard]] std::size_t visible() const noexcept;

    std::size_t bytes_max_;
    std::size_t bytes_ = 0;
    bool closed_ = false;
    EventId last_;
    EventId dropped_to_;
    std::uint64_t dropped_ = 0;  ///< events
    std::deque<LoggedEvent> events_;
    std::deque<std::uint64_t> gates_;      ///< counts of events before each, dropped ones included
    std::optional<std::uint64_t> cut_at_;  ///< counted likewise
    base::Signal changed_;
};

}  // namespace heddle::scheduler
