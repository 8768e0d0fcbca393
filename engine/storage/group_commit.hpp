#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/base/wakeup.hpp"
#include "engine/storage/store.hpp"

namespace heddle::storage {

enum class Pushed : std::uint8_t { taken, full, closed };

/// How a turn alone ended.
enum class Alone : std::uint8_t {
    done,          ///< nothing is left of it
    caller_waits,  ///< something was begun; its caller means to finish it in another turn alone
    writer_waits,  ///< something was begun that the writer has to finish
};

/// The waiting room of one writer: many OS threads push, one takes. There is no timer: the writer
/// takes whatever waits when it comes back from its last commit, so batches grow with the load and
/// a lone write waits for nobody (ADR 0003).
template <class T>
class GroupCommitQueue {
public:
    /// @param limits  batch_rows_max and batch_bytes_max bound a batch, waiting_max the queue
    explicit GroupCommitQueue(const StoreLimits& limits)
        : rows_max_{limits.batch_rows_max},
          bytes_max_{limits.batch_bytes_max},
          waiting_max_{limits.waiting_max} {}

    /// `value` is moved from only if the answer is `taken`. Any OS thread.
    /// @param urgent  goes before everything else and past the bound: for the few operations that
    ///                keep the engine alive (leases), at most a handful at a time
    [[nodiscard]] Pushed try_push(T& value,
                                  std::size_t rows,
                                  std::size_t bytes,
                                  bool urgent = false) {
        bool wakes = false;
        {
            const std::lock_guard lock{mutex_};
            if (closed_) {
                return Pushed::closed;
            }
            if (!urgent && waiting_.size() >= waiting_max_) {
                return Pushed::full;
            }
            Entry entry{std::move(value), rows, bytes};
            if (urgent) {
                waiting_.push_front(std::move(entry));
            } else {
                waiting_.push_back(std::move(entry));
            }
            is_for_writer_ = begun_alone_;  // the caller's next turn would come too late for us
            wakes = !is_alone_ && std::exchange(sleeps_, false);
        }
        if (wakes) {
            wakeup_.notify();
        }
        return Pushed::taken;
    }

    /// Waits until something is there and takes up to one batch, oldest first. Writer only.
    /// @return empty only when the queue is closed and drained, or when the writer has to finish
    ///         what was begun alone
    [[nodiscard]] std::vector<T> take() {
        std::unique_lock lock{mutex_};
        while (is_alone_ || (!closed_ && !is_for_writer_ && waiting_.empty())) {
            sleeps_ = true;
            lock.unlock();
            const bool is_woken = wakeup_.wait(kCallerMax);
            lock.lock();
            // Nobody hears from a caller that is stopped, or from a server that is.
            is_for_writer_ = is_for_writer_ || (!is_woken && begun_alone_);
        }
        sleeps_ = false;
        is_for_writer_ = false;
        std::vector<T> batch;
        if (std::exchange(begun_alone_, false)) {
            return batch;
        }
        std::size_t rows = 0;
        std::size_t bytes = 0;
        while (!waiting_.empty()) {
            Entry& next = waiting_.front();
            // The first one always goes, however large it is.
            if (!batch.empty() &&
                (rows + next.rows > rows_max_ || bytes + next.bytes > bytes_max_)) {
                break;
            }
            rows += next.rows;
            bytes += next.bytes;
            batch.push_back(std::move(next.value));
            waiting_.pop_front();
        }
        latest_batch_ = batch.size();
        return batch;
    }

    /// For what need not wait for the writer to awake: whether it sleeps with nothing to do,
    /// and had hardly anything to gather lately (the first of many had better wait for the others).
    /// Then it goes on sleeping until end_alone(), and the caller may do its work: a turn alone.
    /// Any OS thread.
    [[nodiscard]] bool begin_alone() {
        const std::lock_guard lock{mutex_};
        if (!sleeps_ || is_alone_ || begun_alone_ || closed_ || !waiting_.empty() ||
            latest_batch_ > kLonelyMax) {
            return false;
        }
        is_alone_ = true;
        return true;
    }
    /// Another turn alone, to finish what was begun in one and left with `caller_waits`. Any OS
    /// thread.
    /// @return false if the writer has that already: something came meanwhile, or a second or two
    ///         have passed
    [[nodiscard]] bool resume_alone() {
        const std::lock_guard lock{mutex_};
        if (!begun_alone_ || is_for_writer_ || is_alone_ || closed_) {
            return false;
        }
        begun_alone_ = false;
        is_alone_ = true;
        return true;
    }
    /// What the writer has to finish it finishes before all that came meanwhile.
    void end_alone(Alone how) {
        bool wakes = false;
        {
            const std::lock_guard lock{mutex_};
            is_alone_ = false;
            begun_alone_ = how != Alone::done;
            is_for_writer_ =
                begun_alone_ && (how == Alone::writer_waits || closed_ || !waiting_.empty());
            latest_batch_ = begun_alone_ ? 1 : latest_batch_;
            wakes =
                (is_for_writer_ || closed_ || !waiting_.empty()) && std::exchange(sleeps_, false);
        }
        if (wakes) {
            wakeup_.notify();
        }
    }

    /// Refuses everything from now on; take() still hands out what waits.
    void close() {
        {
            const std::lock_guard lock{mutex_};
            closed_ = true;
        }
        wakeup_.notify();
    }
    [[nodiscard]] bool is_closed() const {
        const std::lock_guard lock{mutex_};
        return closed_;
    }

private:
    static constexpr std::size_t kLonelyMax = 2;
    static constexpr std::chrono::milliseconds kCallerMax{1000};
    struct Entry {
        T value;
        std::size_t rows;
        std::size_t bytes;
    };

    const std::size_t rows_max_;
    const std::size_t bytes_max_;
    const std::size_t waiting_max_;
    mutable std::mutex mutex_;
    base::Wakeup wakeup_;
    bool sleeps_ = false;         // in take(), and is to be woken
    bool is_alone_ = false;       // in a turn alone
    bool begun_alone_ = false;    // in one, and not finished
    bool is_for_writer_ = false;  // what was begun
    std::size_t latest_batch_ = 0;
    std::deque<Entry> waiting_;
    bool closed_ = false;
};

/// The answer to an operation that the queue did not take.
inline base::Error refusal(Pushed pushed) {
    if (pushed == Pushed::full) {
        return base::Error{base::ErrorCode::overloaded, "too many operations wait for the store"};
    }
    return base::Error{base::ErrorCode::unavailable, "the store is shutting down"};
}

}  // namespace heddle::storage
