#pragma once

#include <optional>
#include <string_view>

/// Finds its way in compact JSON text that we made ourselves, without building values: the answer
/// of a chat is the last item of a state that may be megabytes long. Not a validator; text that is
/// not well-formed gives nullopt, never a read outside it.
namespace heddle::api {

/// @param object  text of a JSON object @return the text of the member's value
std::optional<std::string_view> find_member(std::string_view object, std::string_view name);
/// @param array  text of a JSON array @return the text of its last element; nullopt if empty
std::optional<std::string_view> find_last_element(std::string_view array);

}  // namespace heddle::api
