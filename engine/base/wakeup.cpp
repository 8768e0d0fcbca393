#include "engine/base/wakeup.hpp"

#include <array>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "engine/base/assert.hpp"

namespace heddle::base {

Wakeup::Wakeup() {
    [[maybe_unused]] const int failed = ::pipe2(ends_, O_NONBLOCK | O_CLOEXEC);
    HEDDLE_ASSERT(failed == 0);
}

Wakeup::~Wakeup() {
    ::close(ends_[0]);
    ::close(ends_[1]);
}

void Wakeup::notify() noexcept {
    // A full pipe is readable too, so a failed write loses no wake-up.
    const char one = 1;
    [[maybe_unused]] const auto written = ::write(ends_[1], &one, sizeof one);
}

void Wakeup::clear() noexcept {
    std::array<char, 64> notices;
    while (::read(ends_[0], notices.data(), notices.size()) ==
           static_cast<ssize_t>(notices.size())) {
    }
}

void Wakeup::wait() noexcept {
    pollfd watched{ends_[0], POLLIN, 0};
    while (::poll(&watched, 1, -1) < 1) {
    }
    clear();
}

}  // namespace heddle::base
