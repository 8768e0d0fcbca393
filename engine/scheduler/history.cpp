#include "engine/scheduler/history.hpp"

#include <algorithm>
#include <iterator>

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

base::Task<base::Result<std::optional<storage::JournalRow>>> find_newest_row(storage::Store& store,
                                                                             base::ThreadId thread,
                                                                             base::RunId run) {
    constexpr std::int32_t kPage = 1000;
    constexpr int kPagesMax = 20;
    auto before = storage::kNoSeq;
    for (int page = 0; page < kPagesMax; ++page) {
        // A run that has just ended is nearly always the first row.
        auto rows = co_await list_rows(store, thread, before, page == 0 ? 1 : kPage);
        if (!rows) {
            co_return std::move(rows).error();
        }
        for (auto& row : *rows) {
            before = row.seq;
            if (row.run_id == run) {
                co_return std::optional<storage::JournalRow>{std::move(row)};
            }
        }
        if (rows->empty() || before == 0) {
            break;
        }
    }
    co_return std::optional<storage::JournalRow>{};
}

base::Task<base::Result<storage::Seq>> find_seq_before(storage::Store& store,
                                                       base::ThreadId thread,
                                                       base::RunId run) {
    constexpr std::int32_t kPage = 1000;
    auto before = storage::kNoSeq;
    while (true) {
        const auto rows = co_await list_rows(store, thread, before, kPage);
        if (!rows) {
            co_return rows.error();
        }
        for (const auto& row : *rows) {
            if (row.run_id != run) {
                co_return row.seq;
            }
            before = row.seq;
        }
        if (rows->size() < static_cast<std::size_t>(kPage)) {
            co_return storage::kNoSeq;
        }
    }
}

base::Task<base::Result<std::vector<graph::RowEvent>>> read_run_events(storage::Store& store,
                                                                       const Catalog& catalog,
                                                                       base::ThreadId thread,
                                                                       base::RunId run) {
    std::vector<graph::RowEvent> all;
    auto newest = co_await find_newest_row(store, thread, run);
    if (!newest) {
        co_return std::move(newest).error();
    }
    if (!*newest) {
        co_return all;
    }
    const auto head = graph::parse_head(**newest);
    const auto channels = head ? channels_of(*head, catalog) : head.error();
    if (!channels) {
        co_return channels.error();
    }
    // A run's rows may lie in several chains, when snapshots were made meanwhile.
    auto at = (*newest)->seq;
    while (true) {
        auto chain = co_await base::from_callback<base::Result<Rows>>(
            [&](auto done) { store.load_chain(thread, at, std::move(done)); });
        if (!chain) {
            co_return std::move(chain).error();
        }
        auto events = graph::read_row_events(*channels, *chain, run);
        if (!events) {
            co_return std::move(events).error();
        }
        all.insert(all.begin(), std::make_move_iterator(events->begin()),
                   std::make_move_iterator(events->end()));
        const bool more = !chain->empty() && chain->front().run_id == run &&
                          chain->front().parent != storage::kNoSeq;
        if (!more) {
            co_return all;
        }
        at = chain->front().parent;
    }
}

}  // namespace heddle::scheduler
