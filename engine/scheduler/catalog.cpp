#include "engine/scheduler/catalog.hpp"

#include <algorithm>

namespace heddle::scheduler {

Catalog::Catalog(std::vector<std::shared_ptr<const graph::Graph>> graphs) {
    // The same from every engine and after every restart; the files themselves carry no date.
    constexpr std::int64_t kCreatedAtUs = 1'767'225'600'000'000;  // 2026-01-01
    for (auto& graph : graphs) {
        const auto id = base::make_uuid_v5(base::assistant_namespace(), graph->name);
        assistants_.push_back({base::AssistantId{id}, std::move(graph), kCreatedAtUs});
    }
}

const Assistant* Catalog::find(std::string_view id_or_name) const noexcept {
    const auto by_name =
        std::find_if(assistants_.begin(), assistants_.end(),
                     [&](const Assistant& each) { return each.graph->name == id_or_name; });
    if (by_name != assistants_.end()) {
        return &*by_name;
    }
    const auto id = base::AssistantId::parse(id_or_name);
    return id ? find(*id) : nullptr;
}

const Assistant* Catalog::find(const base::AssistantId& id) const noexcept {
    const auto at = std::find_if(assistants_.begin(), assistants_.end(),
                                 [&](const Assistant& each) { return each.id == id; });
    return at == assistants_.end() ? nullptr : &*at;
}

}  // namespace heddle::scheduler
