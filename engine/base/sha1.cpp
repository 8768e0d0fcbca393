#include "engine/base/sha1.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace heddle::base {
namespace {

using State = std::array<std::uint32_t, 5>;

std::uint32_t load_big_endian(const unsigned char* bytes) noexcept {
    return (std::uint32_t{bytes[0]} << 24U) | (std::uint32_t{bytes[1]} << 16U) |
           (std::uint32_t{bytes[2]} << 8U) | std::uint32_t{bytes[3]};
}

// Twenty rounds, which share a function and a constant. Unrolled by five, so that the compiler
// renames the five words instead of moving them.
template <class Mix>
void rounds(State& state, const std::uint32_t* w, std::uint32_t k, Mix mix) noexcept {
    auto [a, b, c, d, e] = state;
#pragma GCC unroll 5
    for (unsigned i = 0; i < 20; ++i) {
        const std::uint32_t next = std::rotl(a, 5) + mix(b, c, d) + e + k + w[i];
        e = d;
        d = c;
        c = std::rotl(b, 30);
        b = a;
        a = next;
    }
    state = {a, b, c, d, e};
}

void compress(State& state, const unsigned char* block) noexcept {
    std::array<std::uint32_t, 80> w;
    for (unsigned i = 0; i < 16; ++i) {
        w[i] = load_big_endian(block + std::size_t{4} * i);
    }
    for (unsigned i = 16; i < 80; ++i) {
        w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    }
    const auto choose = [](auto b, auto c, auto d) { return d ^ (b & (c ^ d)); };
    const auto parity = [](auto b, auto c, auto d) { return b ^ c ^ d; };
    const auto majority = [](auto b, auto c, auto d) { return (b & c) | (d & (b | c)); };
    State mixed = state;
    rounds(mixed, w.data(), 0x5A827999U, choose);
    rounds(mixed, w.data() + 20, 0x6ED9EBA1U, parity);
    rounds(mixed, w.data() + 40, 0x8F1BBCDCU, majority);
    rounds(mixed, w.data() + 60, 0xCA62C1D6U, parity);
    for (std::size_t i = 0; i < state.size(); ++i) {
        state[i] += mixed[i];
    }
}

}  // namespace

std::array<std::uint8_t, 20> sha1(std::string_view input) {
    constexpr std::size_t kBlock = 64;
    State state{0x67452301U, 0xEFCDAB89U, 0x98BADCFEU, 0x10325476U, 0xC3D2E1F0U};
    const auto* bytes = reinterpret_cast<const unsigned char*>(input.data());
    const std::size_t whole = input.size() - input.size() % kBlock;
    for (std::size_t at = 0; at < whole; at += kBlock) {
        compress(state, bytes + at);
    }
    // The rest, a bit, zeros, and the length in bits: one block or two.
    std::array<unsigned char, 2 * kBlock> tail{};
    const std::size_t rest = input.size() - whole;
    std::copy_n(bytes + whole, rest, tail.begin());
    tail[rest] = 0x80;
    const std::size_t end = rest + 9 <= kBlock ? kBlock : 2 * kBlock;
    const std::uint64_t bits = std::uint64_t{input.size()} * 8;
    for (unsigned i = 0; i < 8; ++i) {
        tail[end - 8 + i] = static_cast<unsigned char>(bits >> (56U - 8U * i));
    }
    for (std::size_t at = 0; at < end; at += kBlock) {
        compress(state, tail.data() + at);
    }

    std::array<std::uint8_t, 20> digest{};
    for (unsigned i = 0; i < 20; ++i) {
        digest[i] = static_cast<std::uint8_t>(state[i / 4] >> (24U - 8U * (i % 4)));
    }
    return digest;
}

}  // namespace heddle::base
