#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/storage/postgres/statements.hpp"

/// The statements that write batches: one for each set of things that a batch may do, since
/// Postgres sets up every part of a statement each time, also those that have nothing to do.
namespace heddle::storage::postgres {

enum class WritePart : std::uint8_t {
    threads = 1,
    new_threads = 2,
    journal = 4,
    new_runs = 8,
    run_updates = 16,
    deleted_runs = 32,
    tool_calls = 64,
    /// No part, but how they are put: one thread, one row at most of each kind of run, and few of
    /// its journal. A lone run on its way is such a batch, and its latency is what this saves.
    one_thread = 128,
};

struct WriteParts {
    static constexpr std::size_t kSets = 256;

    std::uint8_t bits = 0;

    void add(WritePart part) noexcept { bits |= static_cast<std::uint8_t>(part); }
    [[nodiscard]] bool has(WritePart part) const noexcept {
        return (bits & static_cast<std::uint8_t>(part)) != 0;
    }
};

/// Rows of the journal in a batch of one_thread, at most.
inline constexpr std::size_t kFewRows = 16;

/// Its parameters: the engine, the time, the number of the batch, then those of the parts in the
/// order of WritePart: arrays, but of one_thread the values of its thread and of its runs.
/// @param parts  at least threads or new_threads. @return valid as long as the process
const Statement& write_statement_of(WriteParts parts);

}  // namespace heddle::storage::postgres
