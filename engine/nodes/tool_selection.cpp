#include "engine/nodes/tool_selection.hpp"

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

namespace heddle::nodes {

using base::Error;
using base::ErrorCode;
using tools::ToolSet;

ToolSelection::ToolSelection(ToolSet known,
                             tools::ToolSources open,
                             std::optional<std::vector<std::string>> names)
    : known_{std::make_shared<const ToolSet>(std::move(known))},
      open_{std::move(open)},
      names_{std::move(names)} {}

bool ToolSelection::is_chosen(const std::string& name) const {
    return !names_ || std::find(names_->begin(), names_->end(), name) != names_->end();
}

base::Task<base::Result<std::shared_ptr<const ToolSet>>> ToolSelection::load(
    base::Instant deadline, base::CancelSource& cancel) const {
    if (open_.empty()) {
        co_return known_;
    }
    ToolSet all{*known_};
    std::unordered_set<std::string_view> names;
    for (const auto& tool : *known_) {
        names.insert(tool->spec().name);
    }
    for (const auto& source : open_) {
        const auto loaded = co_await source->load(deadline, cancel);
        if (!loaded) {
            co_return loaded.error();
        }
        if (open_.size() == 1 && known_->empty() && !names_) {
            co_return *loaded;
        }
        for (const auto& tool : **loaded) {
            const auto& name = tool->spec().name;
            if (!is_chosen(name)) {
                continue;
            }
            all.push_back(tool);  // first: the name must live as long as the set of names
            if (!names.insert(name).second) {
                co_return Error{ErrorCode::graph_error,
                                fmt::format("two of the agent's tool sources offer a tool \"{}\"; "
                                            "leave it out of one of them with \"only\"",
                                            name)};
            }
        }
    }
    for (const auto& name : names_.value_or(std::vector<std::string>{})) {
        if (!names.contains(name)) {
            co_return Error{
                ErrorCode::graph_error,
                fmt::format("there is no tool \"{}\": no server of the agent offers it", name)};
        }
    }
    co_return std::make_shared<const ToolSet>(std::move(all));
}

}  // namespace heddle::nodes
