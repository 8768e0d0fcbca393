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

bool Wakeup::wait(std::chrono::milliseconds longest) noexcept {
    pollfd watched{ends_[0], POLLIN, 0};
    if (::poll(&watched, 1, static_cast<int>(longest.count())) < 1) {
        return false;
    }
    clear();
    return true;
}

}  // namespace heddle::base
