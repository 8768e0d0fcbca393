#include "engine/base/machine.hpp"

#include <chrono>
#include <random>

#include <pthread.h>

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

LoopThread::LoopThread(asio::io_context& loop, const std::string& name)
    : loop_{loop}, os_thread_{[this, name] {
          pthread_setname_np(pthread_self(), name.c_str());
          loop_.run();
      }} {}

LoopThread::~LoopThread() {
    join();
}

bool LoopThread::is_current() const noexcept {
    return os_thread_.get_id() == std::this_thread::get_id();
}

void LoopThread::join() {
    if (os_thread_.joinable()) {
        os_thread_.join();
    }
}

}  // namespace heddle::base::machine
