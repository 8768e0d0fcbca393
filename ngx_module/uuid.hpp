#pragma once

#include <array>
#include <string>
#include <string_view>

namespace heddle::ngx {

/// 36 characters, lower case.
struct UuidText {
    std::array<char, 36> characters;
    [[nodiscard]] std::string_view view() const noexcept {
        return {characters.data(), characters.size()};
    }
    [[nodiscard]] std::string text() const { return std::string{view()}; }
};

/// A UUID of version 7 (RFC 9562): milliseconds, then random bits of the kernel's.
UuidText make_uuid_v7() noexcept;

}  // namespace heddle::ngx
