#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/api/announcer.hpp"
#include "engine/scheduler/scheduler.hpp"

namespace heddle::api {

/// No modes: all of them.
bool wants(const std::vector<graph::StreamMode>& modes,
           std::optional<graph::StreamMode> mode) noexcept;

/// Where a reader stands, and what it wants to know.
struct ReaderPosition {
    const std::vector<graph::StreamMode>& modes;
    scheduler::EventId after;
};

/// Of events from the store those that the reader gets, in their order. Where some that it wants
/// were not kept, the last place in which one is missing has an event that says so, once for all:
///
///     event: lost
///     data: {"code": "events_lost", "message": "...", "modes": ["messages-tuple"],
///            "after": "ID", "state": "/threads/ID/state", "checkpoint_id": "..."}
///
/// @param checkpoint  whose state has what the run had come to then; nil: not known
std::vector<scheduler::LoggedEvent> readable(std::vector<scheduler::LoggedEvent> events,
                                             const ReaderPosition& reader,
                                             const base::ThreadId& thread,
                                             const base::CheckpointId& checkpoint);

/// One reader's way through a run's log, and through the store where the log has dropped what the
/// reader did not have yet. On the run's shard; both arguments outlive it.
class LogReader {
public:
    LogReader(scheduler::ShardScheduler& shard,
              scheduler::Run& run,
              std::vector<graph::StreamMode> modes,
              std::optional<scheduler::EventId> after);

    /// Appends whole events only as long as `out` stays within `bytes_max`.
    void take_within(std::string& out, std::size_t bytes_max);
    /// Appends what is there: whole events, until there are some 32 KiB, or more from the store.
    /// One event may be longer.
    /// @return false if there was nothing to be read yet; the run's own failure, when this engine
    ///         has lost it and the rest is elsewhere; else as ShardScheduler
    base::Task<base::Result<bool>> read(std::string& out);
    [[nodiscard]] bool is_at_end() const noexcept;

private:
    /// What becomes of dropped events, as far as it is known now.
    struct Outlook {
        scheduler::EventId to;                     ///< the way through the store ends here
        bool waits = false;                        ///< some are not on disk yet
        std::vector<scheduler::LoggedEvent> made;  ///< announcements, and what is lost for good
    };

    /// The log has dropped events that this reader wants and has not had.
    [[nodiscard]] bool is_behind() const noexcept;
    /// Appends what is on disk of those, and says what is lost of them. Some may only get there
    /// with the run's next superstep: it is asked again whenever the log has changed.
    base::Task<base::Result<bool>> catch_up(std::string& out);
    [[nodiscard]] bool take_next(std::string& out, std::size_t bytes_max);
    [[nodiscard]] bool misses(const scheduler::RunLog::Dropped& dropped) const noexcept;
    [[nodiscard]] std::uint64_t rows_on_disk() const noexcept;
    [[nodiscard]] Outlook look() const;
    /// What was dropped and is not among `page` for good.
    void add_lost(scheduler::EventPage& page, const scheduler::EventId& to) const;

    scheduler::ShardScheduler& shard_;
    scheduler::Run& run_;
    scheduler::RunLog& log_;
    std::vector<graph::StreamMode> modes_;
    scheduler::EventId position_;
    Announcer announcer_;
};

}  // namespace heddle::api
