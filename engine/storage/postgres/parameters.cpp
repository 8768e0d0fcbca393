#include "engine/storage/postgres/parameters.hpp"

#include <algorithm>
#include <utility>

#include "engine/base/assert.hpp"

namespace heddle::storage::postgres {
namespace {

// The most significant byte first; returns where it ends.
template <class Unsigned>
char* put_big_endian(char* to, Unsigned value) {
    for (std::size_t i = 0; i < sizeof value; ++i) {
        *to++ = static_cast<char>((value >> (8 * (sizeof value - 1 - i))) & 0xffU);
    }
    return to;
}

template <class Unsigned>
std::array<char, sizeof(Unsigned)> big_endian(Unsigned value) {
    std::array<char, sizeof(Unsigned)> bytes;
    put_big_endian(bytes.data(), value);
    return bytes;
}

// Its length comes before each element.
constexpr std::size_t kLengthBytes = 4;

template <class Unsigned>
std::array<char, kLengthBytes + sizeof(Unsigned)> element(Unsigned value) {
    std::array<char, kLengthBytes + sizeof(Unsigned)> bytes;
    put_big_endian(put_big_endian(bytes.data(), std::uint32_t{sizeof value}), value);
    return bytes;
}

}  // namespace

template <std::size_t N>
void BinaryArray::add_element(const std::array<char, N>& length_and_bytes) {
    bytes_.append(length_and_bytes.data(), N);
    ++count_;
}

void BinaryArray::add_bool(bool value) {
    add_element(element<std::uint8_t>(value ? 1 : 0));
}

void BinaryArray::add_int2(std::int16_t value) {
    add_element(element(static_cast<std::uint16_t>(value)));
}

void BinaryArray::add_int4(std::int32_t value) {
    add_element(element(static_cast<std::uint32_t>(value)));
}

void BinaryArray::add_int8(std::int64_t value) {
    add_element(element(static_cast<std::uint64_t>(value)));
}

void BinaryArray::add(const base::Uuid& uuid) {
    add_bytes({reinterpret_cast<const char*>(uuid.bytes.data()), uuid.bytes.size()});
}

void BinaryArray::add_bytes(std::string_view bytes) {
    const auto needed = bytes_.size() + kLengthBytes + bytes.size();
    if (needed > bytes_.capacity()) {
        bytes_.reserve(std::max(needed, 2 * bytes_.size()));
    }
    add_element(big_endian(static_cast<std::uint32_t>(bytes.size())));
    bytes_.append(bytes);
}

void BinaryArray::add_null() {
    add_element(big_endian(std::uint32_t{0xffffffffU}));
    has_null_ = true;
}

// Dimensions, null flag, element type, length and lower bound come before the elements.
std::string BinaryArray::take() && {
    std::array<char, 20> header;
    char* end = put_big_endian(header.data(), std::uint32_t{count_ == 0 ? 0U : 1U});
    end = put_big_endian(end, std::uint32_t{has_null_ ? 1U : 0U});
    end = put_big_endian(end, static_cast<std::uint32_t>(type_));
    if (count_ != 0) {
        end = put_big_endian(end, count_);
        end = put_big_endian(end, std::uint32_t{1});
    }
    std::string array;
    array.reserve(header.size() + bytes_.size());
    array.append(header.data(), end);
    return array.append(bytes_);
}

Parameters::Parameters() {
    constexpr std::size_t kUsual = 40;  // of a lone run's write
    values_.reserve(kUsual);
}

std::optional<std::string_view> Parameters::operator[](std::size_t at) const noexcept {
    const auto& value = values_[at];
    return value.is_null ? std::nullopt
                         : std::optional{std::string_view{value.bytes}.substr(value.from)};
}

Parameters& Parameters::add(std::int64_t value) {
    const auto bytes = big_endian(static_cast<std::uint64_t>(value));
    return add_bytes({bytes.data(), bytes.size()});
}

Parameters& Parameters::add(const base::Uuid& uuid) {
    return add_bytes({reinterpret_cast<const char*>(uuid.bytes.data()), uuid.bytes.size()});
}

Parameters& Parameters::add_bool(bool value) {
    return add_bytes(value ? std::string_view{"\1", 1} : std::string_view{"\0", 1});
}

Parameters& Parameters::add_bytes(std::string_view bytes) {
    values_.push_back({std::string{bytes}});
    return *this;
}

Parameters& Parameters::add_only(BinaryArray&& array) {
    HEDDLE_ASSERT(array.count_ == 1);
    values_.push_back({std::move(array.bytes_), kLengthBytes, array.has_null_});
    return *this;
}

Parameters& Parameters::add(BinaryArray&& array) {
    values_.push_back({std::move(array).take()});
    return *this;
}

}  // namespace heddle::storage::postgres
