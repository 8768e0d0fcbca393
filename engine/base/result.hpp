#pragma once

#include <optional>
#include <utility>
#include <variant>

#include "engine/base/assert.hpp"
#include "engine/base/error.hpp"

namespace heddle::base {

/// A T or the Error that kept it from being made. Check before use: value() on an error is a bug of
/// ours and asserts.
template <class T>
class [[nodiscard]] Result {
public:
    using Value = T;
    // Implicit on purpose: `return value;` and `return Error{...};` are the whole vocabulary.
    Result(T value) : state_{std::in_place_index<0>, std::move(value)} {}      // NOLINT
    Result(Error error) : state_{std::in_place_index<1>, std::move(error)} {}  // NOLINT

    [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    [[nodiscard]] T& value() & {
        HEDDLE_ASSERT(has_value());
        return std::get<0>(state_);
    }
    [[nodiscard]] const T& value() const& {
        HEDDLE_ASSERT(has_value());
        return std::get<0>(state_);
    }
    [[nodiscard]] T&& value() && {
        HEDDLE_ASSERT(has_value());
        return std::get<0>(std::move(state_));
    }
    [[nodiscard]] T& operator*() & { return value(); }
    [[nodiscard]] const T& operator*() const& { return value(); }
    [[nodiscard]] T&& operator*() && { return std::move(*this).value(); }
    [[nodiscard]] T* operator->() { return &value(); }
    [[nodiscard]] const T* operator->() const { return &value(); }

    [[nodiscard]] const Error& error() const& {
        HEDDLE_ASSERT(!has_value());
        return std::get<1>(state_);
    }
    [[nodiscard]] Error&& error() && {
        HEDDLE_ASSERT(!has_value());
        return std::get<1>(std::move(state_));
    }

private:
    std::variant<T, Error> state_;
};

/// Success without a value, or an Error.
class [[nodiscard]] Status {
public:
    Status() = default;
    Status(Error error) : error_{std::move(error)} {}  // NOLINT: see Result

    [[nodiscard]] bool has_value() const noexcept { return !error_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }
    [[nodiscard]] const Error& error() const& {
        HEDDLE_ASSERT(error_.has_value());
        return *error_;
    }
    [[nodiscard]] Error&& error() && {
        HEDDLE_ASSERT(error_.has_value());
        return *std::move(error_);
    }

private:
    std::optional<Error> error_;
};

inline Status ok() {
    return {};
}

}  // namespace heddle::base
