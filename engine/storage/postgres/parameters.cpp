#include "engine/storage/postgres/parameters.hpp"

#include <array>

#include "engine/base/assert.hpp"

namespace heddle::storage::postgres {
namespace {

template <class Unsigned>
void append_big_endian(std::string& out, Unsigned value) {
    std::array<char, sizeof(Unsigned)> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<char>((value >> (8 * (bytes.size() - 1 - i))) & 0xffU);
    }
    out.append(bytes.data(), bytes.size());
}

// Dimensions, null flag, element type, length and lower bound come before the elements.
constexpr std::size_t kHeaderBytes = 20;
// Its length comes before each element.
constexpr std::size_t kLengthBytes = 4;

}  // namespace

void BinaryArray::add_bool(bool value) {
    append_big_endian<std::uint32_t>(bytes_, 1);
    bytes_.push_back(value ? '\1' : '\0');
    ++count_;
}

void BinaryArray::add_int2(std::int16_t value) {
    append_big_endian<std::uint32_t>(bytes_, sizeof value);
    append_big_endian(bytes_, static_cast<std::uint16_t>(value));
    ++count_;
}

void BinaryArray::add_int4(std::int32_t value) {
    append_big_endian<std::uint32_t>(bytes_, sizeof value);
    append_big_endian(bytes_, static_cast<std::uint32_t>(value));
    ++count_;
}

void BinaryArray::add_int8(std::int64_t value) {
    append_big_endian<std::uint32_t>(bytes_, sizeof value);
    append_big_endian(bytes_, static_cast<std::uint64_t>(value));
    ++count_;
}

void BinaryArray::add(const base::Uuid& uuid) {
    add_bytes({reinterpret_cast<const char*>(uuid.bytes.data()), uuid.bytes.size()});
}

void BinaryArray::add_bytes(std::string_view bytes) {
    append_big_endian(bytes_, static_cast<std::uint32_t>(bytes.size()));
    bytes_.append(bytes);
    ++count_;
}

void BinaryArray::add_null() {
    append_big_endian<std::uint32_t>(bytes_, 0xffffffffU);
    has_null_ = true;
    ++count_;
}

std::string BinaryArray::take() && {
    std::string array;
    array.reserve(kHeaderBytes + bytes_.size());
    append_big_endian<std::uint32_t>(array, count_ == 0 ? 0 : 1);
    append_big_endian<std::uint32_t>(array, has_null_ ? 1 : 0);
    append_big_endian(array, static_cast<std::uint32_t>(type_));
    if (count_ != 0) {
        append_big_endian(array, count_);
        append_big_endian<std::uint32_t>(array, 1);
    }
    return array.append(bytes_);
}

std::optional<std::string> BinaryArray::take_only() && {
    HEDDLE_ASSERT(count_ == 1);
    if (has_null_) {
        return std::nullopt;
    }
    bytes_.erase(0, kLengthBytes);
    return std::move(bytes_);
}

Parameters& Parameters::add(std::int64_t value) {
    std::string bytes;
    append_big_endian(bytes, static_cast<std::uint64_t>(value));
    values_.emplace_back(std::move(bytes));
    return *this;
}

Parameters& Parameters::add(const base::Uuid& uuid) {
    values_.emplace_back(std::in_place, reinterpret_cast<const char*>(uuid.bytes.data()),
                         uuid.bytes.size());
    return *this;
}

Parameters& Parameters::add_bool(bool value) {
    values_.emplace_back(std::in_place, 1, value ? '\1' : '\0');
    return *this;
}

Parameters& Parameters::add_bytes(std::string_view bytes) {
    values_.emplace_back(std::in_place, bytes);
    return *this;
}

Parameters& Parameters::add_only(BinaryArray&& array) {
    values_.push_back(std::move(array).take_only());
    return *this;
}

Parameters& Parameters::add(BinaryArray&& array) {
    values_.emplace_back(std::move(array).take());
    return *this;
}

}  // namespace heddle::storage::postgres
