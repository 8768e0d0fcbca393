#include "engine/storage/sqlite/turn.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <new>

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/clock.hpp"
#include "engine/observe/log.hpp"

namespace heddle::storage::sqlite {
namespace {

using std::chrono::milliseconds;

// How long we let others go first before we conclude that who waited is gone or stopped.
constexpr milliseconds kYieldMax{10};
// A waiter that was killed or stopped may have swallowed the wake-up meant for us; looking again
// this often bounds what that costs.
constexpr milliseconds kSlice{20};
constexpr std::uint64_t kLayout = 0x48444c5455524e01;  // "HDLTURN" 1

timespec to_timespec(base::Duration duration) {
    const auto ns = std::max<std::int64_t>(0, duration.count());
    return {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
}

long futex(std::atomic<std::uint32_t>& word,
           int operation,
           std::uint32_t value,
           const timespec* timeout) {
    static_assert(sizeof word == sizeof(std::uint32_t));
    return syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

void pause(base::Duration duration) {
    std::atomic<std::uint32_t> nobody{0};
    const auto timeout = to_timespec(duration);
    (void)futex(nobody, FUTEX_WAIT_PRIVATE, 0, &timeout);
}

// ETIMEDOUT only says that it may be tried again.
int lock_within(pthread_mutex_t& mutex, base::Duration duration) {
#ifdef __SANITIZE_THREAD__
    // g++ 12's ThreadSanitizer does not know pthread_mutex_clocklock and would see only the unlock.
    const int code = pthread_mutex_trylock(&mutex);
    if (code != EBUSY) {
        return code;
    }
    pause(std::min<base::Duration>(duration, milliseconds{1}));
    return ETIMEDOUT;
#else
    const auto now = base::system_clock().now().time_since_epoch();
    const auto until = to_timespec(now + duration);
    return pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &until);
#endif
}

base::Error unavailable(const std::string& path, const char* what) {
    observe::log(observe::LogLevel::error, "sqlite", "{}: {}: {}", path, what,
                 std::strerror(errno));
    return base::Error{base::ErrorCode::unavailable, "the database cannot be opened"};
}

// Waits for the shared lock on the side file; only its first user holds it exclusively, for the
// moment in which it makes the mutex.
bool lock_shared(int file) {
    for (int i = 0; i < 1000; ++i) {
        if (flock(file, LOCK_SH | LOCK_NB) == 0) {
            return true;
        }
        pause(milliseconds{2});
    }
    return false;
}

}  // namespace

struct Turn::Shared {
    std::uint64_t layout;
    pthread_mutex_t mutex;
    std::atomic<std::uint32_t> turns;  // how often the turn was taken; a futex
    // Upper half: generation, lower half: how many wait. A waiter that died would be counted for
    // ever; whoever waited for it in vain starts a new generation, in which nobody waits.
    std::atomic<std::uint64_t> waiting;
};

base::Result<std::unique_ptr<Turn>> Turn::open(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) {
        return unavailable(path, "open");
    }
    // Alone here: nobody uses the mutex, and what it says may come from before a reboot.
    const bool is_first = flock(file, LOCK_EX | LOCK_NB) == 0;
    if ((!is_first && !lock_shared(file)) || ftruncate(file, sizeof(Shared)) != 0) {
        auto error = unavailable(path, "lock");
        close(file);
        return error;
    }
    void* mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
        auto error = unavailable(path, "mmap");
        close(file);
        return error;
    }
    auto* shared = static_cast<Shared*>(mapped);
    if (is_first) {
        std::memset(mapped, 0, sizeof(Shared));
        shared = new (mapped) Shared{};  // NOLINT: lives in the file
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&shared->mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
        shared->layout = kLayout;
    }
    std::unique_ptr<Turn> turn{new Turn{file, shared}};  // NOLINT: private constructor
    if (is_first && !lock_shared(file)) {
        return unavailable(path, "lock");
    }
    if (shared->layout != kLayout) {
        errno = EINVAL;
        return unavailable(path, "another layout; stop all engines of this file");
    }
    return turn;
}

Turn::~Turn() {
    munmap(shared_, sizeof(Shared));
    close(file_);
}

void Turn::let_others_go_first(base::Instant deadline) {
    if (!owes_turn_) {
        return;
    }
    owes_turn_ = false;
    const auto until = std::min(deadline, base::system_clock().now() + kYieldMax);
    while (shared_->turns.load() == last_turn_) {
        const auto left = until - base::system_clock().now();
        if (left <= base::Duration::zero()) {
            auto seen = shared_->waiting.load();
            shared_->waiting.compare_exchange_strong(seen, ((seen >> 32U) + 1) << 32U);
            return;
        }
        const auto timeout = to_timespec(left);
        (void)futex(shared_->turns, FUTEX_WAIT, last_turn_, &timeout);
    }
}

bool Turn::lock(base::Instant deadline) {
    let_others_go_first(deadline);
    const auto generation = shared_->waiting.fetch_add(1) >> 32U;
    int code = ETIMEDOUT;
    while (code == ETIMEDOUT) {
        const auto now = base::system_clock().now();
        if (now >= deadline) {
            break;
        }
        code = lock_within(shared_->mutex, std::min<base::Duration>(deadline - now, kSlice));
    }
    auto waiting = shared_->waiting.load();
    while (waiting >> 32U == generation &&
           !shared_->waiting.compare_exchange_weak(waiting, waiting - 1)) {
    }
    if (code == EOWNERDEAD) {
        // It died in its transaction, which SQLite rolls back: nothing of ours needs mending.
        observe::log(observe::LogLevel::warn, "sqlite", "a writer died while it had the turn");
        pthread_mutex_consistent(&shared_->mutex);
        code = 0;
    }
    if (code != 0) {
        return false;
    }
    last_turn_ = shared_->turns.fetch_add(1) + 1;
    (void)futex(shared_->turns, FUTEX_WAKE, INT_MAX, nullptr);
    return true;
}

void Turn::unlock() {
    owes_turn_ = (shared_->waiting.load() & 0xffffffffU) != 0;
    pthread_mutex_unlock(&shared_->mutex);
}

}  // namespace heddle::storage::sqlite
