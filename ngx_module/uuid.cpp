#include "ngx_module/uuid.hpp"

#include <cstdint>

#include <sys/random.h>

#include "ngx_module/ngx.hpp"

namespace heddle::ngx {

UuidText make_uuid_v7() noexcept {
    std::array<std::uint8_t, 16> bytes{};
    // Never short and never interrupted for so few bytes, once the kernel is seeded; before that,
    // nginx's own random numbers are better than none.
    if (getrandom(bytes.data(), bytes.size(), GRND_NONBLOCK) !=
        static_cast<ssize_t>(bytes.size())) {
        for (auto& byte : bytes) {
            byte = static_cast<std::uint8_t>(ngx_random());
        }
    }
    const ngx_time_t* now = ngx_timeofday();
    const std::uint64_t ms = static_cast<std::uint64_t>(now->sec) * 1'000 + now->msec;
    for (unsigned i = 0; i < 6; i++) {
        bytes[i] = static_cast<std::uint8_t>(ms >> (40 - 8 * i));
    }
    bytes[6] = static_cast<std::uint8_t>(0x70U | (bytes[6] & 0x0fU));
    bytes[8] = static_cast<std::uint8_t>(0x80U | (bytes[8] & 0x3fU));

    constexpr std::string_view kDigits = "0123456789abcdef";
    UuidText text{};
    std::size_t at = 0;
    for (std::size_t i = 0; i < bytes.size(); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            text.characters[at++] = '-';
        }
        text.characters[at++] = kDigits[bytes[i] >> 4U];
        text.characters[at++] = kDigits[bytes[i] & 0x0fU];
    }
    return text;
}

}  // namespace heddle::ngx
