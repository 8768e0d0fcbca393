#pragma once

#include <list>
#include <memory>
#include <utility>

#include "engine/base/error.hpp"
#include "engine/base/unique_function.hpp"

namespace heddle::base {

/// Tells the operations of one run or request that they are no longer wanted. Belongs to one shard:
/// every member is called there and nowhere else. Outlives whatever holds a Registration from it.
class CancelSource {
public:
    /// Takes the callback back when destroyed.
    class Registration {
    public:
        Registration() = default;
        Registration(CancelSource& source, UniqueFunction<void()> callback)
            : source_{&source},
              at_{source.callbacks_.insert(source.callbacks_.end(), std::move(callback))} {}
        Registration(Registration&& other) noexcept
            : source_{std::exchange(other.source_, nullptr)}, at_{other.at_} {}
        Registration& operator=(Registration&&) = delete;
        ~Registration() {
            if (source_ != nullptr) {
                source_->callbacks_.erase(at_);
            }
        }

    private:
        CancelSource* source_ = nullptr;
        std::list<UniqueFunction<void()>>::iterator at_{};
    };

    CancelSource() = default;
    CancelSource(const CancelSource&) = delete;
    CancelSource& operator=(const CancelSource&) = delete;

    [[nodiscard]] bool is_cancelled() const noexcept { return cancelled_; }
    /// Why: `cancelled`, `timeout` or `interrupted`, with the message for the client.
    [[nodiscard]] const Error& reason() const noexcept { return reason_; }

    /// First call wins. Callbacks run now, in the order of registration; a callback may destroy its
    /// own operation but not this source.
    void cancel(Error reason) {
        if (cancelled_) {
            return;
        }
        cancelled_ = true;
        reason_ = std::move(reason);
        for (auto at = callbacks_.begin(); at != callbacks_.end();) {
            (*at++)();
        }
    }
    /// @return a registration; `callback` runs at once if it was cancelled already
    [[nodiscard]] Registration on_cancel(UniqueFunction<void()> callback) {
        if (cancelled_) {
            callback();
            return {};
        }
        return {*this, std::move(callback)};
    }

private:
    bool cancelled_ = false;
    Error reason_;
    std::list<UniqueFunction<void()>> callbacks_;
};

}  // namespace heddle::base
