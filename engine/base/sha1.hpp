#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace heddle::base {

/// SHA-1 (RFC 3174), only for version 5 UUIDs; not a security measure.
std::array<std::uint8_t, 20> sha1(std::string_view input);

}  // namespace heddle::base
