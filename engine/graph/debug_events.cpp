#include "engine/graph/debug_events.hpp"

#include <fmt/format.h>

#include "engine/base/clock.hpp"

namespace heddle::graph {
namespace {

using base::Json;

// `payload` in its own mode and, wrapped, in mode debug.
std::vector<StreamEvent> both(const RunHost& host,
                              StreamMode mode,
                              std::string_view type,
                              std::int32_t step,
                              std::string payload) {
    std::vector<StreamEvent> events;
    if (host.wants(StreamMode::debug)) {
        events.push_back(
            {StreamMode::debug,
             fmt::format(R"({{"step":{},"timestamp":"{}","type":"{}","payload":{}}})", step,
                         base::format_iso8601(base::unix_microseconds()), type, payload)});
    }
    if (host.wants(mode)) {
        events.insert(events.begin(), StreamEvent{mode, std::move(payload)});
    }
    return events;
}

void emit_both(
    RunHost& host, StreamMode mode, std::string_view type, std::int32_t step, std::string payload) {
    for (auto& event : both(host, mode, type, step, std::move(payload))) {
        host.emit(std::move(event));
    }
}

bool wants_any(const RunHost& host, StreamMode mode) {
    return host.wants(mode) || host.wants(StreamMode::debug);
}

Json config_of(const RunSpec& spec, const base::CheckpointId& checkpoint) {
    return Json{{"configurable",
                 {{"thread_id", spec.thread_id.to_string()},
                  {"checkpoint_ns", ""},
                  {"checkpoint_id", checkpoint.to_string()}}}};
}

}  // namespace

void emit_task_start(StepScope& scope, const PlannedTask& task) {
    if (!wants_any(scope.host, StreamMode::tasks)) {
        return;
    }
    std::string payload = R"({"id":")" + task.id_text + R"(","name":)";
    base::append_json_string(payload, task.node->name);
    payload += R"(,"input":)" + scope.position.state.to_text() + R"(,"triggers":[)";
    base::append_json_string(payload, "branch:to:" + task.node->name);
    payload += R"(],"interrupts":[]})";
    emit_both(scope.host, StreamMode::tasks, "task", scope.step, payload);
}

void emit_task_end(StepScope& scope, const PlannedTask& task, const TaskOutcome& outcome) {
    if (!wants_any(scope.host, StreamMode::tasks)) {
        return;
    }
    std::string payload = R"({"id":")" + task.id_text + R"(","name":)";
    base::append_json_string(payload, task.node->name);
    payload += R"(,"error":)";
    if (outcome.error) {
        base::append_json_string(payload, outcome.error->message);
    } else {
        payload += "null";
    }
    // updates_text is {"node": result}: what lies between the first colon after the name and the
    // last brace.
    std::string name;
    base::append_json_string(name, task.node->name);
    const auto update = updates_text(*scope.graph.channels, task.node->name, outcome.writes);
    payload += R"(,"result":)" + update.substr(name.size() + 2, update.size() - name.size() - 3);
    payload += R"(,"interrupts":)" + base::dump_json(to_json(outcome.interrupts)) + '}';
    emit_both(scope.host, StreamMode::tasks, "task_result", scope.step, payload);
}

void add_checkpoint_events(std::vector<StreamEvent>& events,
                           const RunHost& host,
                           const RunSpec& spec,
                           const Position& position,
                           const storage::JournalRow& row,
                           const base::CheckpointId& parent) {
    if (!wants_any(host, StreamMode::checkpoints)) {
        return;
    }
    const auto head = parse_head(row);
    if (!head) {
        return;
    }
    const Json parent_config = parent.is_nil() ? Json{} : config_of(spec, parent);
    std::string payload = R"({"config":)" + base::dump_json(config_of(spec, row.checkpoint_id));
    payload += R"(,"parent_config":)" + base::dump_json(parent_config);
    payload += R"(,"values":)" + position.state.to_text();
    payload += R"(,"metadata":)" + base::dump_json(head->metadata);
    payload += R"(,"next":)" + base::dump_json(Json(head->next));
    payload += R"(,"tasks":)" + base::dump_json(head->tasks) + "}";
    for (auto& event :
         both(host, StreamMode::checkpoints, "checkpoint", row.step, std::move(payload))) {
        events.push_back(std::move(event));
    }
}

}  // namespace heddle::graph
