#include "engine/base/uuid.hpp"

#include <atomic>
#include <cstring>

#include "engine/base/clock.hpp"
#include "engine/base/machine.hpp"
#include "engine/base/sha1.hpp"

namespace heddle::base {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";
// 100 ns intervals between the Gregorian epoch of RFC 9562 and the Unix epoch.
constexpr std::uint64_t kGregorianOffset = 0x01B21DD213814000ULL;

int hex_value(char c) noexcept {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

void set_version(Uuid& uuid, unsigned version) noexcept {
    uuid.bytes[6] = static_cast<std::uint8_t>((uuid.bytes[6] & 0x0FU) | (version << 4U));
    uuid.bytes[8] = static_cast<std::uint8_t>((uuid.bytes[8] & 0x3FU) | 0x80U);
}

void store_big_endian(std::uint8_t* out, std::uint64_t value, unsigned count) noexcept {
    for (unsigned i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint8_t>(value >> (8U * (count - 1 - i)));
    }
}

// A tick no other call in this process has had: the clock's, or one past the last one given.
std::uint64_t next_tick(std::atomic<std::uint64_t>& last, std::uint64_t now) noexcept {
    std::uint64_t seen = last.load(std::memory_order_relaxed);
    std::uint64_t mine = 0;
    do {
        mine = now > seen ? now : seen + 1;
    } while (!last.compare_exchange_weak(seen, mine, std::memory_order_relaxed));
    return mine;
}

}  // namespace

std::optional<Uuid> Uuid::parse(std::string_view text) noexcept {
    if (text.size() != 36) {
        return std::nullopt;
    }
    Uuid uuid;
    std::size_t at = 0;
    for (auto& byte : uuid.bytes) {
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            if (text[at] != '-') {
                return std::nullopt;
            }
            ++at;
        }
        const int high = hex_value(text[at]);
        const int low = hex_value(text[at + 1]);
        if (high < 0 || low < 0) {
            return std::nullopt;
        }
        byte = static_cast<std::uint8_t>(high * 16 + low);
        at += 2;
    }
    return uuid;
}

std::string Uuid::to_string() const {
    std::string text(36, '-');
    std::size_t at = 0;
    for (const auto byte : bytes) {
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            ++at;
        }
        text[at++] = kHexDigits[byte >> 4U];
        text[at++] = kHexDigits[byte & 0x0FU];
    }
    return text;
}

bool Uuid::is_nil() const noexcept {
    return *this == Uuid{};
}

Uuid make_uuid_v7() {
    Uuid uuid;
    const auto high = machine::random_bits();
    const auto low = machine::random_bits();
    store_big_endian(uuid.bytes.data(), static_cast<std::uint64_t>(unix_milliseconds()), 6);
    store_big_endian(uuid.bytes.data() + 6, high, 2);
    store_big_endian(uuid.bytes.data() + 8, low, 8);
    set_version(uuid, 7);
    return uuid;
}

Uuid make_uuid_v6() {
    const auto now = static_cast<std::uint64_t>(unix_microseconds()) * 10 + kGregorianOffset;
    const auto tick = next_tick(machine::last_tick(), now);
    Uuid uuid;
    store_big_endian(uuid.bytes.data(), tick >> 12U, 6);
    store_big_endian(uuid.bytes.data() + 6, tick & 0x0FFFU, 2);
    store_big_endian(uuid.bytes.data() + 8, machine::random_bits(), 8);
    set_version(uuid, 6);
    return uuid;
}

Uuid make_uuid_v5(const Uuid& space, std::string_view name) {
    std::string input(reinterpret_cast<const char*>(space.bytes.data()), space.bytes.size());
    input += name;
    const auto digest = sha1(input);
    Uuid uuid;
    std::memcpy(uuid.bytes.data(), digest.data(), uuid.bytes.size());
    set_version(uuid, 5);
    return uuid;
}

Uuid assistant_namespace() noexcept {
    return *Uuid::parse("6ba7b821-9dad-11d1-80b4-00c04fd430c8");
}

std::uint64_t stable_hash(const Uuid& uuid) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const auto byte : uuid.bytes) {
        hash = (hash ^ byte) * 0x100000001b3ULL;
    }
    // FNV leaves the low bits of near-equal ids correlated; finish as in SplitMix64.
    hash = (hash ^ (hash >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    hash = (hash ^ (hash >> 27U)) * 0x94d049bb133111ebULL;
    return hash ^ (hash >> 31U);
}

}  // namespace heddle::base
