#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include <pthread.h>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"

namespace heddle::storage::sqlite {

/// Lets the writers of several processes take turns (ADR 0006). SQLite's own lock is what keeps the
/// file whole; this one makes waiting for it fair and short, which SQLite's busy handler does not.
/// A robust process-shared mutex in a mapped side file: a holder that was killed is found out at
/// once, one that was stopped makes the others time out. Used by one OS thread at a time.
class Turn {
public:
    /// @return unavailable if the side file cannot be made or mapped
    static base::Result<std::unique_ptr<Turn>> open(const std::string& path);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    /// Waits for the turn. Whoever had the last turn lets the others that wait go first.
    /// @return whether the turn is ours; false at the deadline
    [[nodiscard]] bool lock(base::Instant deadline);
    void unlock();

private:
    struct Shared;
    Turn(int file, Shared* shared) : file_{file}, shared_{shared} {}
    void let_others_go_first(base::Instant deadline);

    int file_;
    Shared* shared_;
    bool owes_turn_ = false;       // others waited when we had our last turn
    std::uint32_t last_turn_ = 0;  // the number of that turn
};

}  // namespace heddle::storage::sqlite
