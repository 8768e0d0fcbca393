#pragma once

#include <cstddef>
#include <mutex>
#include <unordered_map>

#include "engine/base/uuid.hpp"

namespace heddle::storage::postgres {

/// Which threads have writes that are not answered yet. Any OS thread.
class PendingWrites {
public:
    void add(const base::ThreadId& thread) {
        const std::lock_guard lock{mutex_};
        count_[thread] += 1;
    }
    /// Before the write's completion is called: what that starts must find the thread at rest.
    void remove(const base::ThreadId& thread) {
        const std::lock_guard lock{mutex_};
        const auto at = count_.find(thread);
        if (--at->second == 0) {
            count_.erase(at);
        }
    }
    [[nodiscard]] bool contains(const base::ThreadId& thread) const {
        const std::lock_guard lock{mutex_};
        return count_.contains(thread);
    }

private:
    mutable std::mutex mutex_;
    std::unordered_map<base::ThreadId, std::size_t> count_;
};

}  // namespace heddle::storage::postgres
