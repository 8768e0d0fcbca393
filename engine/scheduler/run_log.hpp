#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "engine/base/signal.hpp"
#include "engine/graph/runner.hpp"

namespace heddle::scheduler {

/// One numbered event of a run's stream.
struct LoggedEvent {
    std::uint64_t id = 0;
    graph::StreamMode mode = graph::StreamMode::values;
    std::string data;  ///< compact JSON text
};

/// The events of one run, numbered from 1 in the order in which they happened (0 is the metadata
/// event that every stream begins with). Any number of readers, each with its own position; reading
/// takes nothing away. Bounded: past bytes_max the oldest events go. Belongs to the run's shard.
class RunLog {
public:
    explicit RunLog(std::size_t bytes_max) : bytes_max_{bytes_max} {}

    void append(graph::StreamEvent event);
    /// No event will follow. Wakes all readers.
    void close();
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] bool is_closed() const noexcept { return closed_; }
    /// Id of the newest event, 0 if there is none.
    [[nodiscard]] std::uint64_t last_id() const noexcept { return next_id_ - 1; }
    /// Id of the oldest event still held; last_id() + 1 if none is. A reader whose position is
    /// below first_id() - 1 has missed events for good.
    [[nodiscard]] std::uint64_t first_id() const noexcept { return next_id_ - events_.size(); }
    /// @return the first event with an id above `position`, or nullptr. Valid until the next
    ///         co_await.
    [[nodiscard]] const LoggedEvent* find_after(std::uint64_t position) const noexcept;
    /// Notified at every append and at close().
    [[nodiscard]] base::Signal& changed() noexcept { return changed_; }

private:
    std::size_t bytes_max_;
    std::size_t bytes_ = 0;
    std::uint64_t next_id_ = 1;
    bool closed_ = false;
    std::deque<LoggedEvent> events_;
    base::Signal changed_;
};

}  // namespace heddle::scheduler
