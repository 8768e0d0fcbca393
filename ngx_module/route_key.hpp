#pragma once

#include <cstdint>
#include <string_view>

/// What the edge reads from a request to route it: pure functions of bytes from outside.
namespace heddle::ngx {

enum class Starts : std::uint8_t { nothing, thread, run };

struct PathKey {
    std::string_view thread_id;       ///< from /threads/ID…, or empty
    Starts starts = Starts::nothing;  ///< what a POST to that path starts
    bool repeats_safely = false;      ///< a POST to that path only reads
};

/// @param path  without the location's prefix
[[nodiscard]] PathKey read_path(std::string_view path) noexcept;

/// The string that is the value of the top-level "thread_id" of a JSON object, or empty: if there
/// is none within `json`, if it holds an escape, if the text is no JSON object up to there. Reads
/// each byte at most once and keeps nothing, so depth does not matter.
[[nodiscard]] std::string_view find_thread_id(std::string_view json) noexcept;

/// 1 to 256 visible ASCII characters: what the wire calls a name.
[[nodiscard]] bool is_name(std::string_view text) noexcept;

/// The same in every worker, build and machine: rendezvous hashing rests on it.
[[nodiscard]] std::uint64_t hash_of(std::string_view text) noexcept;

}  // namespace heddle::ngx
