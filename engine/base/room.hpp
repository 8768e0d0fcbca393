#pragma once

#include <cstddef>

namespace heddle::base {

/// Whether `bytes` more may be taken where `held` of at most `most` are in use. What is taken
/// leaves as much again free, so that large ones, however many come, leave room for smaller ones.
/// Where nothing is held anything is taken: what is too large for that has a bound of its own.
[[nodiscard]] constexpr bool has_room(std::size_t bytes,
                                      std::size_t held,
                                      std::size_t most) noexcept {
    return bytes == 0 || held == 0 || (held <= most && bytes <= (most - held) / 2);
}

}  // namespace heddle::base
