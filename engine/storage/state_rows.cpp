#include "engine/storage/state_rows.hpp"

#include <functional>
#include <numeric>

namespace heddle::storage {

StateRows gather(const std::vector<JournalRow>& chain) {
    const auto& newest = chain.back();
    StateRows rows;
    rows.newest.seq = newest.seq;
    rows.newest.parent = newest.parent;
    rows.newest.base = newest.base;
    rows.newest.checkpoint_id = newest.checkpoint_id;
    rows.newest.run_id = newest.run_id;
    rows.newest.step = newest.step;
    rows.newest.head = newest.head;
    rows.newest.created_at_us = newest.created_at_us;
    rows.first = chain.front().seq;
    const auto at = newest.parent - rows.first;
    if (at >= 0 && at < static_cast<Seq>(chain.size())) {
        rows.parent = chain[static_cast<std::size_t>(at)].checkpoint_id;
    }
    rows.data.reserve(std::transform_reduce(chain.begin(), chain.end(), std::size_t{0}, std::plus{},
                                            [](const auto& row) { return row.data.size(); }));
    for (const auto& row : chain) {
        rows.data += row.data;
        rows.ends.push_back(rows.data.size());
    }
    return rows;
}

Result<std::optional<StateRows>> gather(const Result<std::vector<JournalRow>>& chain) {
    if (!chain) {
        return chain.error();
    }
    if (chain->empty()) {
        return std::optional<StateRows>{};
    }
    return std::optional<StateRows>{gather(*chain)};
}

}  // namespace heddle::storage
