#include "engine/transport/outbox.hpp"

#include <utility>

namespace heddle::transport {

void Outbox::push(OutFrame frame) {
    count_.fetch_add(1, std::memory_order_relaxed);
    frames_.push(std::move(frame));
    if (asleep_.load(std::memory_order_seq_cst) &&
        asleep_.exchange(false, std::memory_order_seq_cst) && !(stand_in_ && stand_in_())) {
        wake();
    }
}

bool Outbox::is_full() noexcept {
    if (count_.load(std::memory_order_relaxed) < frames_max_) {
        return false;
    }
    full_seen_.store(true, std::memory_order_relaxed);
    return true;
}

bool Outbox::take_full_seen() noexcept {
    return full_seen_.load(std::memory_order_relaxed) &&
           full_seen_.exchange(false, std::memory_order_relaxed);
}

bool Outbox::prepare_sleep() noexcept {
    asleep_.store(true, std::memory_order_seq_cst);
    if (frames_.empty()) {
        return true;
    }
    asleep_.store(false, std::memory_order_relaxed);
    return false;
}

void Outbox::woken(bool descriptor_is_readable) noexcept {
    asleep_.store(false, std::memory_order_relaxed);
    if (descriptor_is_readable) {
        wakeup_.clear();
    }
}

}  // namespace heddle::transport
