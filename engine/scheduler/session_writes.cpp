// The write pipeline of a ThreadSession: what is pending, what is on its way, who waits for it.
#include <algorithm>
#include <utility>

#include "engine/observe/log.hpp"
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {
namespace {

// What the clients of a lost session's runs are told. Where the run itself is not at fault it goes
// on, here or at another engine, and they with it: they must be told to look for it again.
base::Error told_to_clients(const base::Error& error) {
    switch (error.code) {
        case base::ErrorCode::stale_epoch:
        case base::ErrorCode::in_doubt:
        case base::ErrorCode::timeout:
        case base::ErrorCode::overloaded:
        case base::ErrorCode::conflict:  // of one of the write's runs, which is there already
            return {base::ErrorCode::unavailable, error.message};
        default:
            return error;
    }
}

}  // namespace

void ThreadSession::write_soon(Written done) {
    if (lost_) {
        if (done) {
            done(*lost_);
        }
        return;
    }
    dirty_ = true;
    if (done) {
        on_written_.push_back(std::move(done));
    }
    post_flush();
}

void ThreadSession::append_row(storage::JournalRow row) {
    if (tool_calls_seq_ && *tool_calls_seq_ < row.seq) {
        pending_.tool_calls_done = row.seq - 1;
        pending_.tool_calls.clear();
        tool_calls_seq_.reset();
    }
    pending_.journal.push_back(std::move(row));
}

void ThreadSession::post_flush() {
    if (writing_ || flush_posted_) {
        return;
    }
    flush_posted_ = true;
    context_.shard.post([self = shared_from_this()] {
        self->flush_posted_ = false;
        self->flush();
    });
}

base::Task<base::Status> ThreadSession::roll_back_now(storage::Seq to,
                                                      base::RunId run,
                                                      storage::ThreadStatus left) {
    if (lost_) {
        co_return *lost_;
    }
    // What has not left yet never will.
    const auto is_its = [&run](const auto& each) { return each.run_id == run; };
    const auto is_it = [&run](const auto& each) { return each.id == run; };
    std::erase_if(pending_.journal, is_its);
    std::erase_if(pending_.new_runs, is_it);
    std::erase_if(pending_.run_updates, is_it);
    std::erase_if(pending_.tool_calls, [to](const auto& call) { return call.seq > to; });
    pending_.tool_calls_done =
        std::clamp(pending_.tool_calls_done, storage::kNoSeq, std::max(to - 1, storage::kNoSeq));
    if (dirty_) {
        // The row that it goes back to may still wait among these.
        auto written = co_await write_now();
        if (!written) {
            co_return written;
        }
    }
    storage::ThreadWrite write;
    write.rollback_to = to;
    write.status = left;
    write.deleted_runs.push_back(run);
    co_return co_await write_alone(std::move(write));
}

base::Task<base::Status> ThreadSession::write_alone(storage::ThreadWrite write,
                                                    base::UniqueFunction<void()> then) {
    if (lost_) {
        co_return *lost_;
    }
    co_return co_await base::from_callback<base::Status>([&](auto done) {
        alone_.push_back({std::move(write), [done = std::move(done), then = std::move(then)](
                                                const base::Status& written) mutable {
                              if (written && then) {
                                  then();
                              }
                              done(written);
                          }});
        post_flush();
    });
}

base::Task<base::Status> ThreadSession::delete_now(std::int64_t if_expires_at_us,
                                                   base::Error told) {
    storage::ThreadWrite write;
    write.delete_thread = true;
    write.if_expires_at_us = if_expires_at_us;
    // At once: what came in between must find that the thread is gone, not be written to it.
    base::UniqueFunction<void()> then = [self = shared_from_this(), told = std::move(told)] {
        self->lose(told, false);
    };
    co_return co_await write_alone(std::move(write), std::move(then));
}

base::Task<base::Status> ThreadSession::write_now() {
    co_return co_await base::from_callback<base::Status>([this](auto done) {
        write_soon(
            [done = std::move(done)](const base::Status& written) mutable { done(written); });
    });
}

void ThreadSession::flush() {
    if (writing_ || lost_ || (!dirty_ && alone_.empty())) {
        return;
    }
    writing_ = true;
    storage::ThreadWrite write;
    if (!alone_.empty() && !fresh_) {
        write = std::move(alone_.front().write);
        in_flight_.push_back(std::move(alone_.front().done));
        alone_.pop_front();
    } else {
        dirty_ = false;
        write = std::exchange(pending_, {});
        in_flight_ = std::exchange(on_written_, {});
    }
    write.key = thread_.key;
    write.thread_id = thread_.id;
    write.epoch = epoch_;
    if (fresh_) {
        context_.store.create(
            *fresh_, std::move(write),
            [self = shared_from_this()](base::Result<storage::ThreadKey> key) mutable {
                auto& shard = self->context_.shard;
                shard.post([self = std::move(self), key = std::move(key)] { self->on_made(key); });
            });
        return;
    }
    context_.store.write(std::move(write),
                         [self = shared_from_this()](base::Status written) mutable {
                             auto& shard = self->context_.shard;
                             shard.post([self = std::move(self), written = std::move(written)] {
                                 self->on_flushed(written);
                             });
                         });
}

void ThreadSession::on_made(const base::Result<storage::ThreadKey>& key) {
    if (key) {
        thread_.key = *key;
        fresh_.reset();
        made_.notify_all();
        on_flushed(base::ok());
        return;
    }
    not_made_ = key.error();
    // Who asked for the thread looks for the one that is there; all others may ask again.
    on_flushed(base::Error{not_made_->code == base::ErrorCode::conflict
                               ? base::ErrorCode::stale_epoch
                               : not_made_->code,
                           not_made_->message});
}

void ThreadSession::on_flushed(const base::Status& status) {
    writing_ = false;
    auto done = std::exchange(in_flight_, {});
    if (!status) {
        const auto code = status.error().code;
        // in_doubt and unavailable leave work of ours behind that nobody else will look for while
        // this engine lives. A stale epoch is somebody else's, or that of an own claim which was in
        // doubt and came late; where the thread was there before us, whoever asked looks at once.
        const bool ours = code != base::ErrorCode::not_found && !is_refused_thread();
        const bool spared = ours && code != base::ErrorCode::stale_epoch;
        // That a thread is there already is found out like this, and no news to anybody.
        const auto level = is_refused_thread() ? observe::LogLevel::debug : observe::LogLevel::warn;
        observe::log(level, "scheduler", "thread {} lost: {}", thread_.id.to_string(),
                     status.error().message);
        lose(told_to_clients(status.error()), ours, spared);
    }
    for (auto& each : done) {
        each(status);
    }
    flush();
    weigh();
    if (!writing_) {
        idle_changed_.notify_all();
    }
}

void ThreadSession::drop_waiters() {
    // Each may hold the last reference: out of the members first.
    const auto written = std::exchange(on_written_, {});
    const auto in_flight = std::exchange(in_flight_, {});
    const auto alone = std::exchange(alone_, {});
}

}  // namespace heddle::scheduler
