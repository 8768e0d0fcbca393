#include "engine/base/sha1.hpp"

#include <bit>
#include <string>

namespace heddle::base {
namespace {

using State = std::array<std::uint32_t, 5>;

void compress(State& state, const unsigned char* block) noexcept {
    std::array<std::uint32_t, 80> w{};
    for (unsigned i = 0; i < 16; ++i) {
        w[i] = (std::uint32_t{block[4 * i]} << 24U) | (std::uint32_t{block[4 * i + 1]} << 16U) |
               (std::uint32_t{block[4 * i + 2]} << 8U) | std::uint32_t{block[4 * i + 3]};
    }
    for (unsigned i = 16; i < 80; ++i) {
        w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    auto [a, b, c, d, e] = state;
    for (unsigned i = 0; i < 80; ++i) {
        std::uint32_t f = b ^ c ^ d;
        std::uint32_t k = i < 40 ? 0x6ED9EBA1U : 0xCA62C1D6U;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5A827999U;
        } else if (i >= 40 && i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8F1BBCDCU;
        }
        const std::uint32_t next = std::rotl(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = std::rotl(b, 30);
        b = a;
        a = next;
    }
    state = {state[0] + a, state[1] + b, state[2] + c, state[3] + d, state[4] + e};
}

}  // namespace

std::array<std::uint8_t, 20> sha1(std::string_view input) {
    std::string padded{input};
    padded += static_cast<char>(0x80);
    while (padded.size() % 64 != 56) {
        padded += '\0';
    }
    const std::uint64_t bits = std::uint64_t{input.size()} * 8;
    for (unsigned i = 0; i < 8; ++i) {
        padded += static_cast<char>(bits >> (56U - 8U * i));
    }

    State state{0x67452301U, 0xEFCDAB89U, 0x98BADCFEU, 0x10325476U, 0xC3D2E1F0U};
    for (std::size_t at = 0; at < padded.size(); at += 64) {
        compress(state, reinterpret_cast<const unsigned char*>(padded.data()) + at);
    }
    std::array<std::uint8_t, 20> digest{};
    for (unsigned i = 0; i < 20; ++i) {
        digest[i] = static_cast<std::uint8_t>(state[i / 4] >> (24U - 8U * (i % 4)));
    }
    return digest;
}

}  // namespace heddle::base
