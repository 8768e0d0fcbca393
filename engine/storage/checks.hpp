#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/storage/store.hpp"

/// What every driver refuses and counts in the same way. Pure functions, any thread.
namespace heddle::storage {

inline constexpr std::int32_t kPageMax = 1000;
inline constexpr std::size_t kRequestHashBytesMax = 64;
inline constexpr std::size_t kKeyBytesMax = 64;

/// @return invalid_argument naming the field if a text in `write` could not be stored by every
///         driver: metadata that is no JSON object or holds U+0000, a request_hash that is too
///         long; or if it contradicts itself: a rollback that does not stand alone, a tool call of
///         a superstep that it says is over
Status check_write(const ThreadWrite& write);
Status check_claim(const ThreadClaim& claim);
/// What Store::create() takes. @return also if `first` holds what stands alone
Status check_create(const ThreadClaim& claim, const ThreadWrite& first);
Status check_key(const KeyClaim& claim);
/// @return invalid_argument unless 1 <= limit <= kPageMax and offset >= 0
Status check_page(std::int32_t limit, std::int32_t offset);
Status check_filter(const ThreadFilter& filter);

/// Rows that the write adds or changes besides the thread's own; at least 1.
std::size_t rows_of(const ThreadWrite& write) noexcept;
/// Approximate size of the write on its way to the database.
std::size_t bytes_of(const ThreadWrite& write) noexcept;

}  // namespace heddle::storage
