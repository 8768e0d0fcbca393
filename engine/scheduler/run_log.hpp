#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "engine/base/signal.hpp"
#include "engine/base/uuid.hpp"
#include "engine/graph/row_events.hpp"
#include "engine/scheduler/event_id.hpp"

namespace heddle::scheduler {

class LogBudget;

/// One numbered event of a run's stream.
struct LoggedEvent {
    EventId id;
    std::optional<graph::StreamMode> mode;  ///< none: the metadata event of a further attempt
    std::string data;                       ///< compact JSON text
    bool lost = false;  ///< it, and perhaps others of its mode before it, was not kept; no data
};

/// What an event takes in memory, in bytes.
[[nodiscard]] std::size_t cost_of(const LoggedEvent& event) noexcept;

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
/// superstep that is not on disk, and no reader sees it. Bounded, by itself and with the others of
/// its shard: past that the oldest events go, and dropped() tells readers what they have to look
/// for in the store. Belongs to the run's shard.
class RunLog {
public:
    /// What was dropped, by kind.
    struct Dropped {
        std::optional<graph::StreamMode> mode;
        bool of_step = false;  ///< its events belong to rows, not to what happened in between
        EventId newest;
        std::uint64_t at = 0;  ///< count of events before it
    };

    /// @param budget  of its shard, or nullptr: bounded by itself alone
    explicit RunLog(std::size_t bytes_max, LogBudget* budget = nullptr)
        : bytes_max_{bytes_max}, budget_{budget} {}
    ~RunLog();
    RunLog(const RunLog&) = delete;
    RunLog& operator=(const RunLog&) = delete;

    /// @param event  its id is above all before it
    void append(LoggedEvent event);
    /// What is appended from now on waits until as many gates have been opened as were added.
    /// @param rows  how many of the thread's rows are on disk when this one is opened; 0: not known
    void add_gate(std::uint64_t rows = 0);
    void open_gate();
    /// So many rows of the thread are on disk.
    void mark_stored(std::uint64_t rows) noexcept { stored_rows_ = rows; }
    /// What no reader sees yet, none ever will: the run is taken back.
    void cut();
    /// No event will follow. Wakes all readers.
    void close();
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] bool is_closed() const noexcept { return closed_; }
    [[nodiscard]] bool is_cut() const noexcept { return cut_at_.has_value(); }
    [[nodiscard]] bool is_empty() const noexcept { return last_ == EventId{}; }
    /// Id of the newest event, {0, 0, 0} if there is none.
    [[nodiscard]] EventId last_id() const noexcept { return last_; }
    /// The thread's rows that are known to be on disk, as a count.
    [[nodiscard]] std::uint64_t stored_rows() const noexcept { return stored_rows_; }
    /// What was given up for the bound, or was never kept: a reader whose position is below
    /// `newest` has missed some of it here.
    [[nodiscard]] const std::vector<Dropped>& dropped() const noexcept { return kinds_; }
    /// Whether readers may hear of it: it stands behind no closed gate.
    [[nodiscard]] bool is_shown(const Dropped& dropped) const noexcept {
        return gates_.empty() || dropped.at < gates_.front().at;
    }
    /// @return the first event with an id above `position`, or nullptr. Valid until the next
    ///         co_await.
    [[nodiscard]] const LoggedEvent* find_after(const EventId& position) const noexcept;
    /// Notified at every append that readers see, and at close().
    [[nodiscard]] base::Signal& changed() noexcept { return changed_; }

private:
    friend class LogBudget;
    struct Gate {
        std::uint64_t at;  ///< count of events before it, dropped ones included
        std::uint64_t rows;
    };

    [[nodiscard]] std::size_t visible() const noexcept;
    [[nodiscard]] bool can_drop() const noexcept;
    /// The only event left is in the store, or will be before anybody sees it.
    [[nodiscard]] bool can_drop_newest() const noexcept;
    void drop_oldest();
    void note_dropped(const LoggedEvent& event, std::uint64_t at);

    std::size_t bytes_max_;
    std::size_t bytes_ = 0;
    LogBudget* budget_;  ///< nullptr also when it counts there no more
    bool closed_ = false;
    EventId last_;
    std::uint64_t stored_rows_ = 0;
    std::uint64_t dropped_ = 0;  ///< events
    std::vector<Dropped> kinds_;
    std::deque<LoggedEvent> events_;
    std::deque<Gate> gates_;
    std::optional<std::uint64_t> cut_at_;  ///< counted as Gate::at
    base::Signal changed_;
};

/// The logs of a shard's unfinished runs, bounded together: past bytes_max the largest gives up its
/// oldest events, so that runs that say little keep what they said. The newest event of a log goes
/// last, and only if its row has it too. O(logs) for each quarter of a log that goes, or for each
/// newest event. Belongs to its shard.
class LogBudget {
public:
    explicit LogBudget(std::size_t bytes_max) : bytes_max_{bytes_max} {}
    ~LogBudget();
    LogBudget(const LogBudget&) = delete;
    LogBudget& operator=(const LogBudget&) = delete;

    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

private:
    friend class RunLog;
    void grew(RunLog& log, std::size_t bytes);
    void shrank(std::size_t bytes) noexcept { bytes_ -= bytes; }
    void leave(RunLog& log);

    std::size_t bytes_max_;
    std::size_t bytes_ = 0;
    std::unordered_set<RunLog*> logs_;
};

}  // namespace heddle::scheduler
