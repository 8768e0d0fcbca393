#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>

/// Finds its way in compact JSON text that we made ourselves, without building values: a state may
/// be megabytes long, and of a chat only its last item is wanted. Not a validator; text that is
/// not well-formed gives nullopt or false, never a read outside it.
namespace heddle::base {

/// Steps through the text from its beginning; each step that fails leaves the place as it was.
class JsonScan {
public:
    explicit JsonScan(std::string_view text) noexcept : text_{text} {}

    /// @return whether exactly this stands here
    [[nodiscard]] bool take(std::string_view literal) noexcept;
    /// The text of a whole value; a ',' or closing bracket must follow it.
    [[nodiscard]] std::optional<std::string_view> take_value() noexcept;
    /// A member's key as it is written, without quotes; its ':' is taken too.
    [[nodiscard]] std::optional<std::string_view> take_key() noexcept;
    [[nodiscard]] bool at_end() const noexcept { return at_ == text_.size(); }

private:
    std::string_view text_;
    std::size_t at_ = 0;
};

/// @param object  text of a JSON object @return the text of the member's value
std::optional<std::string_view> find_member(std::string_view object, std::string_view name);
/// @param array  text of a JSON array @return the text of its last element; nullopt if empty
std::optional<std::string_view> find_last_element(std::string_view array);

/// Calls `visit(element)` with the text of each element, in order.
/// @return whether `array` is an array, and `visit` never returned false
bool each_element(std::string_view array, const std::function<bool(std::string_view)>& visit);

}  // namespace heddle::base
