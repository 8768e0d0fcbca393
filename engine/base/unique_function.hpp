#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace heddle::base {

template <class Signature>
class UniqueFunction;

/// A callable that is moved, never copied (std::move_only_function is C++23). Calling an empty one
/// is undefined; test it first.
template <class R, class... Args>
class UniqueFunction<R(Args...)> {
public:
    UniqueFunction() = default;
    template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, UniqueFunction>>>
    UniqueFunction(F&& f)  // NOLINT: implicit, as std::function
        : body_{std::make_unique<Body<std::decay_t<F>>>(std::forward<F>(f))} {}

    explicit operator bool() const noexcept { return body_ != nullptr; }
    R operator()(Args... args) { return body_->call(std::forward<Args>(args)...); }

private:
    struct Callable {
        virtual ~Callable() = default;
        virtual R call(Args... args) = 0;
    };
    template <class F>
    struct Body final : Callable {
        template <class G>
        explicit Body(G&& g) : f{std::forward<G>(g)} {}
        R call(Args... args) override { return f(std::forward<Args>(args)...); }
        F f;
    };
    std::unique_ptr<Callable> body_;
};

}  // namespace heddle::base
