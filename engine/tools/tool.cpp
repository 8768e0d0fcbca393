#include "engine/tools/tool.hpp"

namespace heddle::tools {

std::optional<OnUnknown> parse_on_unknown(std::string_view text) noexcept {
    if (text == "retry") {
        return OnUnknown::retry;
    }
    if (text == "fail") {
        return OnUnknown::fail;
    }
    if (text == "ask") {
        return OnUnknown::ask;
    }
    return std::nullopt;
}

}  // namespace heddle::tools
