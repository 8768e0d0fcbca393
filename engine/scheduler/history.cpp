#include "engine/scheduler/history.hpp"

#include <algorithm>
#include <iterator>

#include "engine/storage/state_rows.hpp"

namespace heddle::scheduler {
namespace {

constexpr std::int32_t kRowsMax = 1000;  // of one listing

using Rows = std::vector<storage::JournalRow>;

using NewestRows = base::Result<std::optional<storage::StateRows>>;

base::Task<base::Result<Rows>> load_rows(storage::Store& store,
                                         base::ThreadId thread,
                                         base::CheckpointId checkpoint) {
    co_return co_await base::from_callback<base::Result<Rows>>(
        [&](auto done) { store.load_chain_of(thread, checkpoint, std::move(done)); });
}

base::Task<base::Result<Rows>> load_chain(storage::Store& store,
                                          base::ThreadId thread,
                                          storage::Seq at) {
    co_return co_await base::from_callback<base::Result<Rows>>(
        [&](auto done) { store.load_chain(thread, at, std::move(done)); });
}

base::Task<NewestRows> load_state_rows(storage::Store& store,
                                       base::ThreadId thread,
                                       std::optional<base::CheckpointId> checkpoint) {
    if (checkpoint) {
        const auto chain = co_await load_rows(store, thread, *checkpoint);
        co_return storage::gather(chain);
    }
    co_return co_await base::from_callback<NewestRows>(
        [&](auto done) { store.load_newest(thread, std::move(done)); });
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

// What the tasks of a thread ask is in the thread's row: a task's id tells to which checkpoint it
// belongs, so only the one that the thread stands at finds its own.
void show_interrupts(std::vector<StateAt>& states, std::string_view interrupts) {
    const auto asked = base::parse_stored_json(interrupts);
    if (!asked || !asked->is_object() || asked->empty()) {
        return;
    }
    for (auto& state : states) {
        for (auto& task : state.head.tasks) {
            const auto at = asked->find(task.value("id", std::string{}));
            if (at != asked->end()) {
                task["interrupts"] = *at;
            }
        }
    }
}

base::Task<base::Status> load_interrupts(storage::Store& store,
                                         base::ThreadId thread,
                                         std::vector<StateAt>& states) {
    const bool waits = std::any_of(states.begin(), states.end(),
                                   [](const StateAt& state) { return !state.head.tasks.empty(); });
    if (!waits) {
        co_return base::ok();
    }
    const auto row = co_await base::from_callback<base::Result<storage::ThreadRow>>(
        [&](auto done) { store.load_thread(thread, std::move(done)); });
    if (!row) {
        co_return row.error();
    }
    show_interrupts(states, row->interrupts);
    co_return base::ok();
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

// What a state shows beside its row and its values.
base::Task<base::Result<std::optional<StateAt>>> complete(storage::Store& store,
                                                          base::ThreadId thread,
                                                          StateAt at) {
    std::vector<StateAt> wanted;
    wanted.push_back(std::move(at));
    const auto shown = co_await load_interrupts(store, thread, wanted);
    if (!shown) {
        co_return shown.error();
    }
    auto& state = wanted.front();
    const auto parent = state.row.parent;
    if (parent != storage::kNoSeq && state.parent_checkpoint.is_nil()) {
        auto found = co_await list_rows(store, thread, parent + 1, 1);
        if (!found) {
            co_return std::move(found).error();
        }
        if (!found->empty()) {
            state.parent_checkpoint = found->front().checkpoint_id;
        }
    }
    co_return std::optional<StateAt>{std::move(state)};
}

}  // namespace

base::Task<base::Result<std::optional<StateAt>>> read_state(
    storage::Store& store,
    const Catalog& catalog,
    base::ThreadId thread,
    std::optional<base::CheckpointId> checkpoint) {
    auto rows = co_await load_state_rows(store, thread, checkpoint);
    if (!rows) {
        co_return std::move(rows).error();
    }
    if (!*rows) {
        co_return std::optional<StateAt>{};
    }
    auto at = describe((*rows)->newest);
    if (!at) {
        co_return std::move(at).error();
    }
    const auto channels = channels_of(at->head, catalog);
    if (!channels) {
        co_return channels.error();
    }
    const auto values = graph::restore_state(*channels, **rows);
    if (!values) {
        co_return values.error();
    }
    at->values = values->to_text();
    at->parent_checkpoint = (*rows)->parent;
    co_return co_await complete(store, thread, std::move(*at));
}

base::Task<base::Result<std::optional<StateAt>>> read_newest_state(storage::Store& store,
                                                                   const Catalog& catalog,
                                                                   base::ThreadId thread,
                                                                   KnownValues known) {
    auto rows = co_await list_rows(store, thread, storage::kNoSeq, 2);
    if (!rows) {
        co_return std::move(rows).error();
    }
    if (rows->empty()) {
        co_return std::optional<StateAt>{};
    }
    auto at = describe(std::move(rows->front()));
    if (!at) {
        co_return std::move(at).error();
    }
    const auto channels = channels_of(at->head, catalog);
    if (!channels) {
        co_return channels.error();
    }
    auto values = known(at->row.checkpoint_id, **channels);
    if (!values) {
        co_return co_await read_state(store, catalog, thread, std::nullopt);
    }
    at->values = std::move(*values);
    if (rows->size() > 1 && rows->back().seq == at->row.parent) {
        at->parent_checkpoint = rows->back().checkpoint_id;
    }
    co_return co_await complete(store, thread, std::move(*at));
}

base::Task<base::Result<std::vector<StateAt>>> read_history(
    storage::Store& store,
    const Catalog& catalog,
    base::ThreadId thread,
    std::optional<base::CheckpointId> before,
    std::int32_t limit) {
    storage::Seq before_seq = storage::kNoSeq;
    if (before) {
        auto chain = co_await load_rows(store, thread, *before);
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
    const auto shown = co_await load_interrupts(store, thread, history);
    if (!shown) {
        co_return shown.error();
    }
    storage::Seq filled_from = storage::kNoSeq;
    for (const auto& at : history) {
        if (filled_from != storage::kNoSeq && at.row.seq >= filled_from) {
            continue;
        }
        auto chain = co_await base::from_callback<base::Result<Rows>>(
            [&](auto done) { store.load_chain(thread, at.row.seq, std::move(done)); });
        const auto place = static_cast<std::size_t>(&at - history.data());
        if (!chain && chain.error().code == base::ErrorCode::not_found && place > 0) {
            // Pruned since it was listed, with all that is older.
            history.erase(history.begin() + static_cast<std::ptrdiff_t>(place), history.end());
            history.back().parent_checkpoint = {};
            break;
        }
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

namespace {

std::string graph_of(const storage::JournalRow& row) {
    const auto head = graph::parse_head(row);
    return head ? head->metadata.value("graph_id", std::string{}) : std::string{};
}

}  // namespace

base::Task<base::Result<std::string>> make_snapshot(storage::Store& store,
                                                    const Catalog& catalog,
                                                    base::ThreadId thread,
                                                    storage::Seq at) {
    const base::Error mixed{base::ErrorCode::conflict,
                            "more than one graph has written to the thread", "graph_id"};
    const auto newest = co_await list_rows(store, thread, storage::kNoSeq, 1);
    if (!newest) {
        co_return newest.error();
    }
    const auto chain = co_await base::from_callback<base::Result<Rows>>(
        [&](auto done) { store.load_chain(thread, at, std::move(done)); });
    if (!chain) {
        co_return chain.error();
    }
    if (chain->size() == 1) {
        co_return std::string{};
    }
    const auto head = graph::parse_head(chain->back());
    const auto channels = head ? channels_of(*head, catalog) : head.error();
    if (!channels) {
        co_return channels.error();
    }
    const auto graph = graph_of(chain->back());
    if (newest->empty() || graph_of(newest->front()) != graph) {
        co_return mixed;
    }
    graph::State state{*channels};
    for (const auto& row : *chain) {
        if (graph_of(row) != graph) {
            co_return mixed;
        }
        const auto replayed = state.replay(row.data);
        if (!replayed) {
            co_return replayed.error();
        }
    }
    // The events of the row itself stay behind the state.
    const std::string_view data = chain->back().data;
    auto snapshot = state.to_snapshot();
    snapshot += data.substr(graph::state_part(data).size());
    co_return snapshot;
}

base::Task<base::Result<storage::Seq>> find_last_before(storage::Store& store,
                                                        base::ThreadId thread,
                                                        storage::Seq from,
                                                        storage::Seq to,
                                                        std::int64_t until_us) {
    auto found = storage::kNoSeq;
    // The usual answers first: all are old enough, or none is.
    auto at = to;
    while (from <= to) {
        const auto rows = co_await list_rows(store, thread, at + 1, 1);
        if (!rows) {
            co_return rows.error();
        }
        const bool is_old =
            !rows->empty() && rows->front().seq == at && rows->front().created_at_us <= until_us;
        if (is_old) {
            found = at;
            from = at + 1;
        } else {
            to = at - 1;
        }
        at = from + (to - from) / 2;
    }
    co_return found;
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

base::Task<base::Result<storage::Seq>> find_seq_of(storage::Store& store,
                                                   base::ThreadId thread,
                                                   base::CheckpointId checkpoint) {
    const auto chain = co_await load_rows(store, thread, checkpoint);
    if (!chain) {
        co_return chain.error();
    }
    co_return chain->back().seq;
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

base::Task<base::Result<RunEvents>> read_run_events(storage::Store& store,
                                                    const Catalog& catalog,
                                                    base::ThreadId thread,
                                                    base::RunId run,
                                                    RowRange range) {
    RunEvents read;
    auto& all = read.events;
    auto newest = co_await find_newest_row(store, thread, run);
    if (!newest) {
        co_return std::move(newest).error();
    }
    if (!*newest) {
        const auto found = co_await base::from_callback<base::Result<storage::ThreadRow>>(
            [&](auto done) { store.load_thread(thread, std::move(done)); });
        if (!found) {
            co_return found.error();
        }
        if (found->first > 0) {
            read.cut_at = found->head + 1;
        }
        co_return read;
    }
    const auto head = graph::parse_head(**newest);
    const auto channels = head ? channels_of(*head, catalog) : head.error();
    if (!channels) {
        co_return channels.error();
    }
    read.newest = (*newest)->seq;
    read.has_next = !head->next.empty();
    read.checkpoint = (*newest)->checkpoint_id;
    // A run's rows may lie in several chains, when snapshots were made meanwhile.
    auto at = (*newest)->seq;
    Rows oldest;
    for (bool more = true; more;) {
        auto chain = co_await load_chain(store, thread, at);
        if (!chain && !oldest.empty() && chain.error().code == base::ErrorCode::not_found) {
            // What comes before its input is not its own.
            const auto first = graph::parse_head(oldest.front());
            if (!first || first->source != "input") {
                read.cut_at = oldest.front().seq;
            }
            break;
        }
        if (!chain) {
            co_return std::move(chain).error();
        }
        if (range.bytes_max == 0) {
            auto events = graph::read_row_events(*channels, *chain, run);
            if (!events) {
                co_return std::move(events).error();
            }
            all.insert(all.begin(), std::make_move_iterator(events->begin()),
                       std::make_move_iterator(events->end()));
        }
        more = !chain->empty() && chain->front().run_id == run &&
               chain->front().parent != storage::kNoSeq && chain->front().seq > range.from;
        at = chain->empty() ? at : chain->front().parent;
        oldest = std::move(*chain);
    }
    if (range.bytes_max > 0) {
        auto part =
            graph::read_row_events_page(*channels, oldest, run, range.from, range.bytes_max);
        if (!part) {
            co_return std::move(part).error();
        }
        all = std::move(part->events);
        read.to = part->to;
    }
    co_return read;
}

}  // namespace heddle::scheduler
