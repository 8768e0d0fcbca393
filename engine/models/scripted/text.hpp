#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace heddle::models {

/// How much of a message the rules look at.
inline constexpr std::size_t kMatchedBytesMax = 2048;

/// At most `bytes_max` bytes of `text`, never half a character.
std::string_view clip(std::string_view text, std::size_t bytes_max);
/// Lower case without Latin accents; what is neither letter nor digit nor "@._:-" becomes one
/// blank, with one before and one after all. Linear.
std::string fold(std::string_view text);
/// Whether `phrase` (folded) begins at the beginning of a word of `text` (folded).
bool has_phrase(std::string_view text, std::string_view phrase);
/// "es", "en" or "" if nothing shows.
std::string_view guess_language(std::string_view text);
/// Number of code points.
std::size_t characters(std::string_view text);

/// The first number, word, date (YYYY-MM-DD), time (HH:MM), code (5 to 16 capitals and digits with
/// at least one of each), email or name (capitalised words after "for", "para", "me llamo", "I
/// am"...) in `text`.
std::optional<std::string> find_thing(std::string_view kind, std::string_view text);
bool is_kind_of_thing(std::string_view kind);

}  // namespace heddle::models
