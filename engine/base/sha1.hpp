#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace heddle::base {

/// SHA-1 (RFC 3174), for version 5 UUIDs and for telling requests apart; not a security measure.
/// Asserts that libcrypto provides it. Any OS thread.
std::array<std::uint8_t, 20> sha1(std::string_view input);

}  // namespace heddle::base
