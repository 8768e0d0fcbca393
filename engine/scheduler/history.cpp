#include "engine/scheduler/history.hpp"

#include <algorithm>

namespace heddle::scheduler {
namespace {

using Rows = std::vector<storage::JournalRow>;

base::Task<base::Result<Rows>> load_rows(storage::Store& store,
                                         base::ThreadId thread,
                                         std::optional<base::CheckpointId> checkpoint) {
    co_return co_await base::from_callback<base::Result<Rows>>([&](auto done) {
        if (checkpoint) {
            store.load_chain_of(thread, *checkpoint, std::move(done));
        } else {
            store.load_chain(thread, storage::kNoSeq, std::move(done));
        }
    });
}

base::Task<base::Result<Rows>> list_rows(storage::Store& store,
                                         base::ThreadId thread,
                                         storage::Seq before,
                                         std::int32_t limit) {
    co_return co_await base::from_callback<base::Result<Rows>>(
        [&](auto done) { store.list_journal(thread, before, limit, std::move(done)); });
}

// The channels through which a thread's data is read: those of the graph that wrote it.
base::Result<std::shared_ptr<const graph::Channels>> channels_of(const graph::CheckpointHead& head,
                                                                 const Catalog& catalog) {
    const auto name = head.metadata.value("graph_id", std::string{});
    const auto* assistant = catalog.find(name);
    if (assistant == nullptr) {
        return base::Error{base::ErrorCode::conflict,
                           "the thread's graph \"" + name + "\" is not served here", "graph_id"};
    }
    return assistant->graph->channels;
}

base::Result<StateAt> describe(storage::JournalRow row) {
    auto head = graph::parse_head(row);
    if (!head) {
        return std::move(head).error();
    }
    row.data.clear();
    StateAt at;
    at.row = std::move(row);
    at.head = std::move(*head);
    return at;
}

// Replays one chain and gives every wanted row of it its values.
base::Status fill_values(const Rows& chain, const Catalog& catalog, std::vector<StateAt>& wanted) {
    const auto head = graph::parse_head(chain.back());
    if (!head) {
        return head.error();
    }
    const auto channels = channels_of(*head, catalog);
    if (!channels) {
        return channels.error();
    }
    graph::State state{*channels};
    for (const auto& row : chain) {
        const auto replayed = state.replay(row.data);
        if (!replayed) {
            return replayed;
        }
        const auto at = std::find_if(wanted.begin(), wanted.end(),
                                     [&](const StateAt& each) { return each.row.seq == row.seq; });
        if (at != wanted.end()) {
            at->values = state.to_text();
        }
    }
    return base::ok();
}

}  // namespace

base::Task<base::Result<std::optional<StateAt>>> read_state(
    storage::Store& store,
    const Catalog& catalog,
    base::ThreadId thread,
    std::optional<base::CheckpointId> checkpoint) {
    auto chain = co_await load_rows(store, thread, checkpoint);
    if (!chain) {
        co_return std::move(chain).error();
    }
    if (chain->empty()) {
        co_return std::optional<StateAt>{};
    }
    auto at = describe(chain->back());
    if (!at) {
        co_return std::move(at).error();
    }
    std::vector<StateAt> wanted;
    wanted.push_back(std::move(*at));
    const auto filled = fill_values(*chain, catalog, wanted);
    if (!filled) {
        co_return filled.error();
    }
    auto& state = wanted.front();
    const auto parent = state.row.parent;
    if (parent != storage::kNoSeq) {
        if (parent >= chain->front().seq) {
            const auto index = static_cast<std::size_t>(parent - chain->front().seq);
            state.parent_checkpoint = (*chain)[index].checkpoint_id;
        } else {
            auto rows = co_await list_rows(store, thread, parent + 1, 1);
            if (!rows) {
                co_return std::move(rows).error();
            }
            if (!rows->empty()) {
                state.parent_checkpoint = rows->front().checkpoint_id;
            }
        }
    }
    co_return std::optional<StateAt>{std::move(state)};
}

base::Task<base::Result<std::vector<StateAt>>> read_history(
    storage::Store& store,
    const Catalog& catalog,
    base::ThreadId thread,
    std::optional<base::CheckpointId> before,
    std::int32_t limit) {
    constexpr std::int32_t kRowsMax = 1000;
    storage::Seq before_seq = storage::kNoSeq;
    if (before) {
        auto chain = co_await load_rows(store, thread, before);
        if (!chain) {
            co_return std::move(chain).error();
        }
        before_seq = chain->back().seq;
        if (before_seq == 0) {
            co_return std::vector<StateAt>{};
        }
    }
    // One more than asked for: it names the last one's parent.
    auto rows = co_await list_rows(store, thread, before_seq, std::min(limit + 1, kRowsMax));
    if (!rows) {
        co_return std::move(rows).error();
    }
    std::vector<StateAt> history;
    for (const auto& row : *rows) {
        for (auto& newer : history) {
            if (newer.row.parent == row.seq) {
                newer.parent_checkpoint = row.checkpoint_id;
            }
        }
        if (history.size() == static_cast<std::size_t>(limit)) {
            break;
        }
        auto at = describe(row);
        if (!at) {
            co_return std::move(at).error();
        }
        history.push_back(std::move(*at));
    }
    storage::Seq filled_from = storage::kNoSeq;
    for (const auto& at : history) {
        if (filled_from != storage::kNoSeq && at.row.seq >= filled_from) {
            continue;
        }
        auto chain = co_await base::from_callback<base::Result<Rows>>(
            [&](auto done) { store.load_chain(thread, at.row.seq, std::move(done)); });
        if (!chain) {
            co_return std::move(chain).error();
        }
        if (chain->empty()) {
            break;
        }
        filled_from = chain->front().seq;
        const auto filled = fill_values(*chain, catalog, history);
        if (!filled) {
            co_return filled.error();
        }
    }
    co_return history;
}

}  // namespace heddle::scheduler
