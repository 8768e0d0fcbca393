#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/uuid.hpp"
#include "engine/graph/graph.hpp"

namespace heddle::scheduler {

/// One assistant: a graph under the id that LangGraph would give it (UUIDv5 of the graph's name).
struct Assistant {
    base::AssistantId id;
    std::shared_ptr<const graph::Graph> graph;
    std::int64_t created_at_us = 0;
};

/// The agents this engine serves, loaded at start. Immutable afterwards; any OS thread.
class Catalog {
public:
    explicit Catalog(std::vector<std::shared_ptr<const graph::Graph>> graphs);

    [[nodiscard]] const std::vector<Assistant>& assistants() const noexcept { return assistants_; }
    /// By assistant id or by graph name. @return nullptr if there is none
    [[nodiscard]] const Assistant* find(std::string_view id_or_name) const noexcept;
    [[nodiscard]] const Assistant* find(const base::AssistantId& id) const noexcept;

private:
    std::vector<Assistant> assistants_;
};

}  // namespace heddle::scheduler
