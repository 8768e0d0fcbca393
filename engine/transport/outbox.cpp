#include "engine/transport/outbox.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/assert.hpp"

namespace heddle::transport {

Outbox::Outbox(std::size_t frames_max)
    : frames_max_{frames_max}, wake_fd_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)} {
    HEDDLE_ASSERT(wake_fd_ >= 0);
}

Outbox::~Outbox() {
    std::vector<OutFrame> rest;
    take(rest);
    ::close(wake_fd_);
}

void Outbox::push(OutFrame frame) {
    frames_.fetch_add(1, std::memory_order_relaxed);
    auto node = std::make_unique<Node>(Node{std::move(frame), nullptr});
    node->next = newest_.load(std::memory_order_relaxed);
    auto* raw = node.release();  // owned by the list from the exchange on
    while (!newest_.compare_exchange_weak(raw->next, raw, std::memory_order_seq_cst,
                                          std::memory_order_relaxed)) {
    }
    if (asleep_.load(std::memory_order_seq_cst) &&
        asleep_.exchange(false, std::memory_order_seq_cst)) {
        wake();
    }
}

bool Outbox::is_full() noexcept {
    if (frames_.load(std::memory_order_relaxed) < frames_max_) {
        return false;
    }
    full_seen_.store(true, std::memory_order_relaxed);
    return true;
}

void Outbox::wake() noexcept {
    // A full counter is readable too, so a failed write loses no wake-up.
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
}

void Outbox::take(std::vector<OutFrame>& out) {
    const auto first = out.size();
    auto* node = newest_.exchange(nullptr, std::memory_order_acquire);
    while (node != nullptr) {
        const std::unique_ptr<Node> owned{node};
        node = owned->next;
        out.push_back(std::move(owned->frame));
    }
    std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

bool Outbox::take_full_seen() noexcept {
    return full_seen_.load(std::memory_order_relaxed) &&
           full_seen_.exchange(false, std::memory_order_relaxed);
}

bool Outbox::prepare_sleep() noexcept {
    asleep_.store(true, std::memory_order_seq_cst);
    if (newest_.load(std::memory_order_seq_cst) == nullptr) {
        return true;
    }
    asleep_.store(false, std::memory_order_relaxed);
    return false;
}

void Outbox::woken(bool descriptor_is_readable) noexcept {
    asleep_.store(false, std::memory_order_relaxed);
    if (!descriptor_is_readable) {
        return;
    }
    std::uint64_t count = 0;
    [[maybe_unused]] const auto read = ::read(wake_fd_, &count, sizeof count);
}

}  // namespace heddle::transport
