#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

/// The envelope of a frame and the numbers on the wire. Private to shared/wire and its tests;
/// shared/wire/README.md is normative for every number here.
namespace heddle::wire {

enum class Kind : std::uint8_t {
    // edge -> engine
    hello = 1,
    ping = 2,
    request = 3,
    body = 4,
    credit = 5,
    cancel = 6,
    // engine -> edge
    welcome = 33,
    pong = 34,
    hello_wanted = 35,
    accepted = 36,
    head = 37,
    data = 38,
    end = 39,
    moved = 40,
    refused = 41,
};

/// Reads MessagePack from bytes that nobody has checked. Every read_* returns false if the next
/// value is of another type or runs past the end, and the cursor is then of no more use. Never
/// allocates, never throws; views point into the input.
class Cursor {
public:
    explicit Cursor(std::string_view input) noexcept : input_{input} {}

    [[nodiscard]] bool at_end() const noexcept { return at_ == input_.size(); }

    bool read_uint(std::uint64_t& value) noexcept;
    bool read_bool(bool& value) noexcept;
    /// str or bin.
    bool read_bytes(std::string_view& value) noexcept;
    bool read_array(std::uint32_t& count) noexcept;
    bool read_map(std::uint32_t& count) noexcept;
    /// Steps over one whole value of any type, at most kSkipDepthMax levels deep.
    bool skip() noexcept;

    static constexpr std::size_t kSkipDepthMax = 32;

private:
    bool take(std::size_t count, std::string_view& bytes) noexcept;
    bool take_byte(std::uint8_t& value) noexcept;
    bool take_big_endian(std::size_t width, std::uint64_t& value) noexcept;
    bool skip_one(std::uint64_t& children) noexcept;

    std::string_view input_;
    std::size_t at_ = 0;
};

}  // namespace heddle::wire
