#pragma once

namespace heddle::base {

/// Prints where and what to stderr and aborts: the supervisor restarts the engine and its runs
/// resume from their checkpoints.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace heddle::base

/// For what cannot happen in a correct program, also in release builds. Never on bytes from
/// outside.
#define HEDDLE_ASSERT(condition)  \
    (static_cast<bool>(condition) \
         ? static_cast<void>(0)   \
         : ::heddle::base::assertion_failed(#condition, __FILE__, __LINE__))
