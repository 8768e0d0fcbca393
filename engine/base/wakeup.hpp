#pragma once

#include <chrono>

namespace heddle::base {

/// Wakes one OS thread that sleeps. A pipe, because the kernel takes a write to one as a sign that
/// the writer is about to sleep itself, and lets the other run where it is: waking a processor that
/// is idle takes longer than what most of our wake-ups are for (bench/README.md). An eventfd or a
/// condition variable promises no such thing.
class Wakeup {
public:
    Wakeup();
    ~Wakeup();
    Wakeup(const Wakeup&) = delete;
    Wakeup& operator=(const Wakeup&) = delete;

    /// Becomes readable with notify().
    [[nodiscard]] int descriptor() const noexcept { return ends_[0]; }
    /// Any OS thread. Several before one clear() are as one.
    void notify() noexcept;
    /// Makes the descriptor quiet again.
    void clear() noexcept;
    /// Waits for notify(), `longest` at most, and clears.
    /// @return false if nobody has notified
    bool wait(std::chrono::milliseconds longest) noexcept;

private:
    int ends_[2] = {-1, -1};  // NOLINT: what pipe2() fills
};

}  // namespace heddle::base
