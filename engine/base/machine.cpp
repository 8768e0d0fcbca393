#include "engine/base/machine.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

#include <asio/error.hpp>
#include <asio/execution_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <pthread.h>

#include "engine/base/mailbox.hpp"
#include "engine/base/wakeup.hpp"

namespace heddle::base::machine {

Instant now() noexcept {
    return std::chrono::steady_clock::now();
}

std::int64_t unix_us() noexcept {
    const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::microseconds>(since_epoch).count();
}

Duration wait_of(Duration rest) noexcept {
    return rest;
}

std::uint64_t random_bits() {
    thread_local std::mt19937_64 generator = [] {
        std::random_device device;
        std::seed_seq seed{device(), device(), device(), device(), device(), device()};
        return std::mt19937_64{seed};
    }();
    return generator();
}

std::atomic<std::uint64_t>& last_tick() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return last;
}

namespace {

thread_local const LoopThread* current = nullptr;

// What other OS threads post to the loop of a LoopThread. Asio's own post() wakes a loop under its
// lock and in a way that sends it to an idle processor (wakeup.hpp).
class Inbox final : public asio::execution_context::service {
public:
    static asio::execution_context::id id;  // NOLINT: Asio's name for it

    explicit Inbox(asio::execution_context& loop)
        : service{loop}, readable_{static_cast<asio::io_context&>(loop), wakeup_.descriptor()} {
        listen();
    }

    void push(UniqueFunction<void()> body) {
        posted_.push(std::move(body));
        if (together == nullptr) {
            signal();
        } else if (std::find(together->begin(), together->end(), this) == together->end()) {
            together->push_back(this);
        }
    }
    void signal() {
        if (!is_signalled_.exchange(true, std::memory_order_seq_cst)) {
            wakeup_.notify();
        }
    }
    // Only on the loop's own OS thread.
    bool watch(int descriptor, UniqueFunction<void()>& body) {
        const auto at = std::find_if(watched_.begin(), watched_.end(), [&](const auto& watched) {
            return watched->descriptor.native_handle() == descriptor;
        });
        if (at != watched_.end()) {
            (*at)->body = std::move(body);
            return true;
        }
        auto watched = std::make_unique<Watched>(
            Watched{asio::posix::stream_descriptor{readable_.get_executor()}, {}});
        std::error_code refused;
        watched->descriptor.assign(descriptor, refused);
        if (refused) {
            return false;
        }
        watched->body = std::move(body);
        watched->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                       [this, watched = watched.get()](const auto& error) {
                                           if (error != asio::error::operation_aborted) {
                                               run_watched(watched);
                                           }
                                       });
        watched_.push_back(std::move(watched));
        return true;
    }
    // Whom the calling OS thread has still to signal, while it posts together.
    static thread_local std::vector<Inbox*>* together;
    // Of the loop that the calling OS thread runs.
    static thread_local Inbox* own;

private:
    struct Watched {
        asio::posix::stream_descriptor descriptor;  // not ours to close
        UniqueFunction<void()> body;
    };

    void shutdown() override {
        readable_.release();
        for (auto& watched : watched_) {
            watched->descriptor.release();
        }
        watched_.clear();
        posted_.take(taken_);
        taken_.clear();
    }
    void listen() {
        readable_.async_wait(asio::posix::stream_descriptor::wait_read,
                             [this](const std::error_code& error) {
                                 if (!error) {
                                     run_all();
                                     listen();
                                 }
                             });
    }
    void run_all() {
        wakeup_.clear();
        is_signalled_.exchange(false, std::memory_order_seq_cst);
        posted_.take(taken_);
        for (auto& body : taken_) {
            body();
        }
        taken_.clear();
    }
    void run_watched(Watched* watched) {
        watched->descriptor.release();
        auto body = std::move(watched->body);
        std::erase_if(watched_, [&](const auto& other) { return other.get() == watched; });
        if (!posted_.empty()) {
            run_all();
        }
        body();
    }

    Wakeup wakeup_;
    asio::posix::stream_descriptor readable_;
    Mailbox<UniqueFunction<void()>> posted_;
    std::atomic<bool> is_signalled_{false};
    std::vector<UniqueFunction<void()>> taken_;
    std::vector<std::unique_ptr<Watched>> watched_;
};

asio::execution_context::id Inbox::id;
thread_local std::vector<Inbox*>* Inbox::together = nullptr;
thread_local Inbox* Inbox::own = nullptr;

// Kept, so that a batch allocates nothing.
std::vector<Inbox*>& to_signal() {
    thread_local std::vector<Inbox*> inboxes;
    return inboxes;
}

}  // namespace

void post(asio::io_context& loop, UniqueFunction<void()> body) {
    if (!loop.get_executor().running_in_this_thread() && asio::has_service<Inbox>(loop)) {
        asio::use_service<Inbox>(loop).push(std::move(body));
    } else {
        asio::post(loop, [body = std::move(body)]() mutable { body(); });
    }
}

bool call_when_readable(int descriptor, UniqueFunction<void()>& body) {
    return Inbox::own != nullptr && Inbox::own->watch(descriptor, body);
}

PostTogether::PostTogether() noexcept {
    Inbox::together = &to_signal();
}

PostTogether::~PostTogether() {
    Inbox::together = nullptr;
    for (auto* inbox : to_signal()) {
        inbox->signal();
    }
    to_signal().clear();
}

LoopThread::LoopThread(asio::io_context& loop, const std::string& name) : loop_{loop} {
    auto& inbox = asio::use_service<Inbox>(loop);
    os_thread_ = std::thread{[this, name, &inbox] {
        pthread_setname_np(pthread_self(), name.c_str());
        current = this;
        Inbox::own = &inbox;
        loop_.run();
    }};
}

LoopThread::~LoopThread() {
    join();
}

bool LoopThread::is_current() const noexcept {
    return current == this;
}

void LoopThread::join() {
    if (os_thread_.joinable()) {
        os_thread_.join();
    }
}

}  // namespace heddle::base::machine
