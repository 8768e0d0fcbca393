#pragma once

#include <exception>
#include <type_traits>
#include <utility>

#include "ngx_module/ngx.hpp"

namespace heddle::ngx {

/// Runs `body`; an exception becomes `on_failure` and one error-log line. Every function whose
/// address is given to nginx goes through here, because C++ must not unwind through nginx's C
/// frames.
template <class Result, class Body>
Result guarded(ngx_log_t* log, const char* doing, Result on_failure, Body&& body) noexcept {
    try {
        return std::forward<Body>(body)();
    } catch (const std::exception& e) {
        ngx_log_error(NGX_LOG_ALERT, log, 0, "heddle: %s: %s", doing, e.what());
    } catch (...) {
        ngx_log_error(NGX_LOG_ALERT, log, 0, "heddle: %s: unknown exception", doing);
    }
    return on_failure;
}

/// For callbacks that return nothing. @return whether `body` came to its end
template <class Body>
bool guarded(ngx_log_t* log, const char* doing, Body&& body) noexcept {
    return guarded(log, doing, false, [&] {
        std::forward<Body>(body)();
        return true;
    });
}

}  // namespace heddle::ngx
