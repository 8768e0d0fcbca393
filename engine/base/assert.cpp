#include "engine/base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace heddle::base {

void assertion_failed(const char* condition, const char* file, int line) noexcept {
    std::fprintf(stderr, "heddle: assertion failed: %s at %s:%d\n", condition, file, line);
    std::abort();
}

}  // namespace heddle::base
