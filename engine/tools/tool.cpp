#include "engine/tools/tool.hpp"

#include <algorithm>
#include <utility>

namespace heddle::tools {
namespace {

class StaticSource final : public ToolSource {
public:
    explicit StaticSource(ToolSet tools)
        : tools_{std::make_shared<const ToolSet>(std::move(tools))} {}

    [[nodiscard]] const ToolSet* known() const noexcept override { return tools_.get(); }
    base::Task<base::Result<std::shared_ptr<const ToolSet>>> load(base::Instant,
                                                                  base::CancelSource&) override {
        co_return tools_;
    }

private:
    const std::shared_ptr<const ToolSet> tools_;
};

}  // namespace

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

bool is_tool_name(std::string_view name) noexcept {
    return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
}

std::shared_ptr<ToolSource> make_static_source(ToolSet tools) {  // NOLINT: see the header
    return std::make_shared<StaticSource>(std::move(tools));
}

}  // namespace heddle::tools
