#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/unique_function.hpp"
#include "engine/storage/group_commit.hpp"

namespace heddle::storage {

/// A few OS threads with one connection each, for operations that need no order among themselves.
/// The constructor starts the OS threads; the destructor answers what waits with `unavailable`,
/// lets what runs end and joins.
///
/// @tparam Connection  opened and used on one pool thread; `is_usable()` false means it is replaced
template <class Connection>
class ReaderPool {
public:
    /// Gets a connection, or why there is none (timeout, unavailable, overloaded), and answers its
    /// caller. @return false if the connection broke before anything was answered: the job is
    ///         called again with another connection or, past its deadline, with an error
    using Job = base::UniqueFunction<bool(base::Result<Connection*>)>;
    /// Called on any pool thread, several at once, with the deadline of the job that waits for it.
    using Open = std::function<base::Result<std::unique_ptr<Connection>>(base::Instant)>;

    ReaderPool(std::size_t count, const StoreLimits& limits, Open open)
        : limits_{limits}, open_{std::move(open)} {
        for (std::size_t i = 0; i < count; ++i) {
            os_threads_.emplace_back([this] { serve(); });
        }
    }
    ~ReaderPool() {
        {
            const std::lock_guard lock{mutex_};
            closed_ = true;
        }
        something_.notify_all();
        for (auto& os_thread : os_threads_) {
            os_thread.join();
        }
        for (auto& entry : waiting_) {
            (void)entry.job(refusal(Pushed::closed));
        }
    }
    ReaderPool(const ReaderPool&) = delete;
    ReaderPool& operator=(const ReaderPool&) = delete;

    /// The deadline of a job, from its submission.
    [[nodiscard]] base::Duration wait_max() const noexcept { return limits_.wait_max; }

    /// Any OS thread. A refused job is called before this returns.
    void submit(Job job) {
        Pushed pushed = Pushed::taken;
        {
            const std::lock_guard lock{mutex_};
            if (closed_) {
                pushed = Pushed::closed;
            } else if (waiting_.size() >= limits_.waiting_max) {
                pushed = Pushed::full;
            } else {
                waiting_.push_back(
                    Entry{std::move(job), base::system_clock().now() + limits_.wait_max});
            }
        }
        if (pushed != Pushed::taken) {
            (void)job(refusal(pushed));
            return;
        }
        something_.notify_one();
    }

private:
    struct Entry {
        Job job;
        base::Instant deadline;
    };

    void serve() {
        std::unique_ptr<Connection> connection;
        std::unique_lock lock{mutex_};
        for (;;) {
            something_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
            if (closed_) {
                return;
            }
            Entry entry = std::move(waiting_.front());
            waiting_.pop_front();
            lock.unlock();
            run(entry, connection);
            lock.lock();
        }
    }
    void run(Entry& entry, std::unique_ptr<Connection>& connection) {
        for (;;) {
            if (base::system_clock().now() >= entry.deadline) {
                (void)entry.job(
                    base::Error{base::ErrorCode::timeout, "the store did not answer in time"});
                return;
            }
            if (connection == nullptr || !connection->is_usable()) {
                connection.reset();
                auto opened = open_(entry.deadline);
                if (!opened) {
                    (void)entry.job(std::move(opened).error());
                    return;
                }
                connection = std::move(opened).value();
            }
            if (entry.job(connection.get())) {
                return;
            }
        }
    }

    const StoreLimits limits_;
    const Open open_;
    std::mutex mutex_;
    std::condition_variable something_;
    std::deque<Entry> waiting_;
    bool closed_ = false;
    std::vector<std::thread> os_threads_;
};

}  // namespace heddle::storage
