#include "shared/wire/frame.hpp"

#include <array>

namespace heddle::wire {

namespace {

// First bytes of the MessagePack format (github.com/msgpack/msgpack/blob/master/spec.md).
constexpr std::uint8_t kFixMap = 0x80;
constexpr std::uint8_t kFixArray = 0x90;
constexpr std::uint8_t kFixStr = 0xa0;
constexpr std::uint8_t kNil = 0xc0;
constexpr std::uint8_t kNeverUsed = 0xc1;
constexpr std::uint8_t kFalse = 0xc2;
constexpr std::uint8_t kTrue = 0xc3;
constexpr std::uint8_t kBin8 = 0xc4;
constexpr std::uint8_t kExt8 = 0xc7;
constexpr std::uint8_t kFloat32 = 0xca;
constexpr std::uint8_t kUint8 = 0xcc;
constexpr std::uint8_t kInt8 = 0xd0;
constexpr std::uint8_t kFixExt1 = 0xd4;
constexpr std::uint8_t kStr8 = 0xd9;
constexpr std::uint8_t kArray16 = 0xdc;
constexpr std::uint8_t kMap16 = 0xde;
constexpr std::uint8_t kNegativeFixInt = 0xe0;

}  // namespace

bool Cursor::take(std::size_t count, std::string_view& bytes) noexcept {
    if (count > input_.size() - at_) {
        return false;
    }
    bytes = std::string_view{input_.data() + at_, count};
    at_ += count;
    return true;
}

bool Cursor::take_byte(std::uint8_t& value) noexcept {
    if (at_end()) {
        return false;
    }
    value = static_cast<std::uint8_t>(input_[at_]);
    at_++;
    return true;
}

bool Cursor::take_big_endian(std::size_t width, std::uint64_t& value) noexcept {
    std::string_view bytes;
    if (!take(width, bytes)) {
        return false;
    }
    value = 0;
    for (const char byte : bytes) {
        value = (value << 8U) | static_cast<std::uint8_t>(byte);
    }
    return true;
}

bool Cursor::read_uint(std::uint64_t& value) noexcept {
    std::uint8_t first = 0;
    if (!take_byte(first)) {
        return false;
    }
    if (first < kFixMap) {
        value = first;
        return true;
    }
    if (first < kUint8 || first >= kInt8) {
        return false;
    }
    return take_big_endian(std::size_t{1} << (first - kUint8), value);
}

bool Cursor::read_bool(bool& value) noexcept {
    std::uint8_t first = 0;
    if (!take_byte(first) || (first != kFalse && first != kTrue)) {
        return false;
    }
    value = first == kTrue;
    return true;
}

bool Cursor::read_bytes(std::string_view& value) noexcept {
    std::uint8_t first = 0;
    if (!take_byte(first)) {
        return false;
    }
    if (first >= kFixStr && first < kNil) {
        return take(first & 0x1fU, value);
    }
    std::uint64_t length = 0;
    if (first >= kBin8 && first < kExt8) {
        return take_big_endian(std::size_t{1} << (first - kBin8), length) && take(length, value);
    }
    if (first >= kStr8 && first < kArray16) {
        return take_big_endian(std::size_t{1} << (first - kStr8), length) && take(length, value);
    }
    return false;
}

bool Cursor::read_array(std::uint32_t& count) noexcept {
    std::uint8_t first = 0;
    if (!take_byte(first)) {
        return false;
    }
    if (first >= kFixArray && first < kFixStr) {
        count = first & 0x0fU;
        return true;
    }
    std::uint64_t length = 0;
    if (first < kArray16 || first >= kMap16 ||
        !take_big_endian(std::size_t{2} << (first - kArray16), length)) {
        return false;
    }
    count = static_cast<std::uint32_t>(length);
    return true;
}

bool Cursor::read_map(std::uint32_t& count) noexcept {
    std::uint8_t first = 0;
    if (!take_byte(first)) {
        return false;
    }
    if (first >= kFixMap && first < kFixArray) {
        count = first & 0x0fU;
        return true;
    }
    std::uint64_t length = 0;
    if (first < kMap16 || first >= kNegativeFixInt ||
        !take_big_endian(std::size_t{2} << (first - kMap16), length)) {
        return false;
    }
    count = static_cast<std::uint32_t>(length);
    return true;
}

bool Cursor::skip_one(std::uint64_t& children) noexcept {
    children = 0;
    if (at_end()) {
        return false;
    }
    const auto first = static_cast<std::uint8_t>(input_[at_]);
    std::string_view bytes;
    std::uint64_t length = 0;
    std::uint32_t count = 0;
    if ((first >= kFixStr && first < kNil) || (first >= kBin8 && first < kExt8) ||
        (first >= kStr8 && first < kArray16)) {
        return read_bytes(bytes);
    }
    if ((first >= kFixArray && first < kFixStr) || (first >= kArray16 && first < kMap16)) {
        const bool ok = read_array(count);
        children = count;
        return ok;
    }
    if ((first >= kFixMap && first < kFixArray) || (first >= kMap16 && first < kNegativeFixInt)) {
        const bool ok = read_map(count);
        children = std::uint64_t{count} * 2;
        return ok;
    }
    at_++;
    if (first < kFixMap || first >= kNegativeFixInt || first == kNil || first == kFalse ||
        first == kTrue) {
        return true;
    }
    if (first == kNeverUsed) {
        return false;
    }
    if (first < kFloat32) {  // ext 8, 16, 32: a length, a type byte, the bytes
        return take_big_endian(std::size_t{1} << (first - kExt8), length) &&
               take(length + 1, bytes);
    }
    if (first < kUint8) {  // float 32, 64
        return take(std::size_t{4} << (first - kFloat32), bytes);
    }
    if (first < kFixExt1) {  // uint and int of 8 to 64 bits
        return take(std::size_t{1} << ((first - kUint8) & 3U), bytes);
    }
    return take((std::size_t{1} << (first - kFixExt1)) + 1, bytes);  // fixext: type byte too
}

bool Cursor::skip() noexcept {
    // How many values are still to be read on each open level. A count may lie, but each value
    // costs at least one input byte, so the loop ends with the input at the latest.
    std::array<std::uint64_t, kSkipDepthMax> left{};
    std::size_t depth = 0;
    left[0] = 1;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0) {
                return true;
            }
            depth--;
        }
        left[depth]--;
        std::uint64_t children = 0;
        if (!skip_one(children)) {
            return false;
        }
        if (children == 0) {
            continue;
        }
        if (++depth == kSkipDepthMax) {
            return false;
        }
        left[depth] = children;
    }
}

}  // namespace heddle::wire
