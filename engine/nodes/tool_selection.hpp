#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"
#include "engine/tools/tool.hpp"

namespace heddle::nodes {

/// The tools that one node may use: some are known when its agent is loaded, others only when their
/// source is asked. Constant, any shard.
class ToolSelection {
public:
    ToolSelection() = default;  ///< none
    explicit ToolSelection(tools::ToolSet known) : ToolSelection{std::move(known), {}, {}} {}
    /// @param known  of the sources that know theirs, chosen already; no two of one name
    /// @param open   the sources that have to be asked
    /// @param names  what is chosen of those, each of which must be there; nothing: all
    ToolSelection(tools::ToolSet known,
                  tools::ToolSources open,
                  std::optional<std::vector<std::string>> names);

    /// The tools now; asks the open sources, one after the other.
    /// @return graph_error  a name is offered twice, or a chosen one by nobody
    ///         or what a source says
    [[nodiscard]] base::Task<base::Result<std::shared_ptr<const tools::ToolSet>>> load(
        base::Instant deadline, base::CancelSource& cancel) const;

private:
    [[nodiscard]] bool is_chosen(const std::string& name) const;

    std::shared_ptr<const tools::ToolSet> known_ = std::make_shared<const tools::ToolSet>();
    tools::ToolSources open_;
    std::optional<std::vector<std::string>> names_;
};

}  // namespace heddle::nodes
