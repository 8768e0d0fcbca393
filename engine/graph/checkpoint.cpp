#include "engine/graph/checkpoint.hpp"

#include <algorithm>
#include <utility>

#include "engine/base/clock.hpp"
#include "engine/graph/row_events.hpp"
#include "engine/graph/superstep.hpp"
#include "engine/storage/state_rows.hpp"

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;

constexpr storage::Seq kRowsMin = 64;
constexpr storage::Seq kRowsMany = 4096;
constexpr std::size_t kBytesMin = 1U << 20U;
// What a row costs besides its data: keys, ids and the head.
constexpr std::size_t kRowOverhead = 512;
constexpr std::size_t kSnapshotFactor = 8;

// A snapshot pays where deltas rewrite what is there: the chain has become much heavier than the
// state it makes. Where a thread only grows, as conversations do, the deltas are the state, nothing
// would be won by writing it again, and every snapshot would be a step that costs as much as the
// thread is long; so there it waits until the chain has very many rows.
bool wants_snapshot(const Position& position) {
    if (position.seq == storage::kNoSeq || position.tip != position.seq) {
        return true;
    }
    const auto rows = position.seq - position.base + 1;
    if (rows < kRowsMin && position.bytes_since_base < kBytesMin) {
        return false;
    }
    const auto weight = position.bytes_since_base + static_cast<std::size_t>(rows) * kRowOverhead;
    if (weight >= kSnapshotFactor * position.state.bytes()) {
        return true;
    }
    return rows >= kRowsMany && weight >= kSnapshotFactor * position.base_bytes;
}

// Source, step, run and tasks are left out where the row's own columns or the ids give them: a head
// is written with every superstep.
std::string make_head(const std::string& common, const CheckpointInfo& info) {
    std::string head = R"({"source":)";
    base::append_json_string(head, info.source);
    if (info.paused) {
        head += R"(,"paused":true)";
    }
    head += R"(,"next":[)";
    for (const auto& node : info.next) {
        if (head.back() != '[') {
            head += ',';
        }
        base::append_json_string(head, node);
    }
    head += R"(],"metadata":)";
    head += common;
    head += '}';
    return head;
}

}  // namespace

std::string common_metadata(const Graph& graph, const RunSpec& spec) {
    if (!spec.metadata.is_object() || spec.metadata.empty()) {  // the usual case, without a map
        std::string text = R"({"assistant_id":")" + spec.assistant_id.to_string();
        text += R"(","graph_id":)";
        base::append_json_string(text, graph.name);
        return text + R"(,"thread_id":")" + spec.thread_id.to_string() + R"("})";
    }
    Json metadata = spec.metadata;
    metadata["thread_id"] = spec.thread_id.to_string();
    metadata["graph_id"] = graph.name;
    metadata["assistant_id"] = spec.assistant_id.to_string();
    return base::dump_json(metadata);
}

storage::JournalRow advance(Position& position,
                            const base::RunId& run,
                            const std::string& common,
                            CheckpointInfo info) {
    const bool snapshot = wants_snapshot(position);
    storage::JournalRow row;
    row.seq = std::max(position.tip, position.seq) + 1;
    row.parent = position.seq;
    row.base = snapshot ? row.seq : position.base;
    row.checkpoint_id = base::CheckpointId{base::make_uuid_v6()};
    row.run_id = run;
    row.step = position.step + 1;
    row.head = make_head(common, info);
    row.data = snapshot ? position.state.to_snapshot() : std::move(info.delta);
    row.created_at_us = base::unix_microseconds();

    position.seq = row.seq;
    position.tip = row.seq;
    position.base = row.base;
    if (snapshot) {
        position.base_bytes = row.data.size();
        position.bytes_since_base = 0;
    } else {
        position.bytes_since_base += row.data.size();
    }
    position.checkpoint_id = row.checkpoint_id;
    position.run_id = run;
    position.step = row.step;
    position.next = std::move(info.next);
    position.paused = info.paused;
    return row;
}

Json breakpoint_interrupts(const base::CheckpointId& checkpoint,
                           const std::vector<std::string>& next) {
    Json interrupts = Json::object();
    for (const auto& node : next) {
        interrupts[task_id_of(checkpoint, node).to_string()] = Json::array();
    }
    return interrupts;
}

Json waiting_tasks(const base::CheckpointId& checkpoint, const std::vector<std::string>& next) {
    Json tasks = Json::array();
    for (const auto& node : next) {
        tasks.push_back(Json{{"id", task_id_of(checkpoint, node).to_string()},
                             {"name", node},
                             {"path", Json::array({"__pregel_pull", node})},
                             {"error", nullptr},
                             {"interrupts", Json::array()},
                             {"checkpoint", nullptr},
                             {"state", nullptr},
                             {"result", nullptr}});
    }
    return tasks;
}

Result<CheckpointHead> parse_head(const storage::JournalRow& row) {
    auto parsed = base::parse_stored_json(row.head);
    if (!parsed) {
        return std::move(parsed).error();
    }
    const Error broken{ErrorCode::internal, "the head of a journal row is broken"};
    const Json& stored = *parsed;
    if (!stored.is_object() || !stored.contains("source") || !stored["source"].is_string() ||
        !stored.contains("next") || !stored["next"].is_array()) {
        return broken;
    }
    CheckpointHead head;
    head.source = stored["source"].get<std::string>();
    head.step = row.step;
    head.paused = stored.value("paused", false);
    for (const auto& node : stored["next"]) {
        if (!node.is_string()) {
            return broken;
        }
        head.next.push_back(node.get<std::string>());
    }
    head.tasks =
        stored.contains("tasks") ? stored["tasks"] : waiting_tasks(row.checkpoint_id, head.next);
    head.metadata = stored.value("metadata", Json::object());
    if (!head.metadata.is_object() || !head.tasks.is_array()) {
        return broken;
    }
    head.metadata["source"] = head.source;
    head.metadata["step"] = head.step;
    head.metadata["parents"] = Json::object();
    if (!row.run_id.is_nil()) {
        head.metadata["run_id"] = row.run_id.to_string();
    }
    return head;
}

Result<Position> restore(std::shared_ptr<const Channels> channels,
                         const std::vector<storage::JournalRow>& chain) {
    if (chain.empty()) {
        return Position{std::move(channels)};
    }
    if (chain.front().base != chain.front().seq) {
        return Error{ErrorCode::internal, "a checkpoint's chain does not begin with its snapshot"};
    }
    for (std::size_t i = 0; i < chain.size(); ++i) {
        if (chain[i].seq != chain.front().seq + static_cast<storage::Seq>(i)) {
            return Error{ErrorCode::internal, "a checkpoint's chain has a gap"};
        }
    }
    return restore_newest(std::move(channels), storage::gather(chain));
}

Result<State> restore_state(std::shared_ptr<const Channels> channels,
                            const storage::StateRows& rows) {
    if (rows.newest.base != rows.first) {
        return Error{ErrorCode::internal, "a checkpoint's chain does not begin with its snapshot"};
    }
    if (rows.newest.seq - rows.first + 1 != static_cast<storage::Seq>(rows.ends.size())) {
        return Error{ErrorCode::internal, "a checkpoint's chain has a gap"};
    }
    State state{std::move(channels)};
    std::size_t from = 0;
    for (const auto end : rows.ends) {
        auto status = state.replay(std::string_view{rows.data}.substr(from, end - from));
        if (!status) {
            return std::move(status).error();
        }
        from = end;
    }
    return state;
}

Result<Position> restore_newest(std::shared_ptr<const Channels> channels,
                                const storage::StateRows& rows) {
    auto state = restore_state(channels, rows);
    if (!state) {
        return std::move(state).error();
    }
    Position position{std::move(channels)};
    position.state = std::move(*state);
    std::size_t from = 0;
    for (const auto end : rows.ends) {
        const auto bytes = state_part(std::string_view{rows.data}.substr(from, end - from)).size();
        (from == 0 ? position.base_bytes : position.bytes_since_base) += bytes;
        from = end;
    }
    const auto& last = rows.newest;
    auto head = parse_head(last);
    if (!head) {
        return std::move(head).error();
    }
    position.seq = last.seq;
    position.tip = last.seq;
    position.base = last.base;
    position.checkpoint_id = last.checkpoint_id;
    position.run_id = last.run_id;
    position.step = last.step;
    position.next = std::move(head->next);
    position.paused = head->paused;
    return position;
}

}  // namespace heddle::graph
