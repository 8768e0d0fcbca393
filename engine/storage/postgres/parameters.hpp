#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/uuid.hpp"

namespace heddle::storage::postgres {

/// The types we send; the values are Postgres' fixed object ids.
enum class ElementType : std::uint32_t {
    boolean = 16,
    bytea = 17,
    int8 = 20,
    int2 = 21,
    int4 = 23,
    text = 25,
    uuid = 2950,
};

/// One array in Postgres' binary format (src/backend/utils/adt/arrayfuncs.c, array_recv): no
/// escaping, no parsing of numbers on the other side.
class BinaryArray {
public:
    explicit BinaryArray(ElementType type) : type_{type} {}

    void add_bool(bool value);
    void add_int2(std::int16_t value);
    void add_int4(std::int32_t value);
    void add_int8(std::int64_t value);
    void add(const base::Uuid& uuid);
    template <class Tag>
    void add(const base::Id<Tag>& id) {
        add(id.uuid);
    }
    /// For text and bytea.
    void add_bytes(std::string_view bytes);
    void add_null();

private:
    friend class Parameters;
    template <std::size_t N>
    void add_element(const std::array<char, N>& length_and_bytes);
    [[nodiscard]] std::string take() &&;

    ElementType type_;
    std::string bytes_;  // the elements; a short one alone needs no memory of its own
    std::uint32_t count_ = 0;
    bool has_null_ = false;
};

/// The parameters of one execution, all in binary format, in the order of the statement.
class Parameters {
public:
    Parameters();
    Parameters& add(std::int64_t value);
    Parameters& add(const base::Uuid& uuid);
    template <class Tag>
    Parameters& add(const base::Id<Tag>& id) {
        return add(id.uuid);
    }
    Parameters& add_bool(bool value);
    /// For text and bytea.
    Parameters& add_bytes(std::string_view bytes);
    Parameters& add(BinaryArray&& array);
    /// The only element of an array of one.
    Parameters& add_only(BinaryArray&& array);

    [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
    /// Valid until the next is added. Nothing: null.
    [[nodiscard]] std::optional<std::string_view> operator[](std::size_t at) const noexcept;

private:
    struct Value {
        std::string bytes;
        std::size_t from = 0;  ///< where in `bytes` it begins
        bool is_null = false;
    };
    std::vector<Value> values_;
};

}  // namespace heddle::storage::postgres
