#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/base/uuid.hpp"
#include "engine/scheduler/run_log.hpp"

namespace heddle::api {

/// An event as readers get it; one that is lost is named so. Appends to `out`.
void append_logged(std::string& out, const scheduler::LoggedEvent& event);

/// Sees to it that nobody reads tokens of an attempt that was not announced: not even who has read
/// past the announcement in another engine's memory, or what has made it through without it. One
/// for each response; on the shard of its run.
class Announcer {
public:
    /// @param after  what the reader had before, if it comes back: it knows of that attempt
    Announcer(const base::RunId& run, const std::optional<scheduler::EventId>& after);

    /// Appends the event, and before it, if it is the first that the reader gets of its attempt, a
    /// `metadata` event of the attempt with an id that goes before.
    void append(std::string& out, const scheduler::LoggedEvent& event);
    /// The reader has been told of that attempt.
    [[nodiscard]] bool knows(std::uint32_t attempt) const noexcept { return attempt <= known_; }

private:
    base::RunId run_;
    std::uint32_t known_;
};

}  // namespace heddle::api
