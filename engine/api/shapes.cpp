#include "engine/api/shapes.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "engine/base/json.hpp"

namespace heddle::api {
namespace {

using base::Json;

std::string literal(std::string_view text) {
    std::string out;
    base::append_json_string(out, text);
    return out;
}

std::string time_json(std::int64_t unix_us) {
    return literal(base::format_iso8601(unix_us));
}

// An object's members in order, only the wanted ones.
class ObjectText {
public:
    explicit ObjectText(const Select& select) : select_{select} {}

    ObjectText& add(std::string_view name, std::string_view value) {
        const bool wanted =
            select_.empty() || std::find(select_.begin(), select_.end(), name) != select_.end();
        if (!wanted) {
            return *this;
        }
        text_ += text_.empty() ? '{' : ',';
        base::append_json_string(text_, name);
        text_ += ':';
        text_ += value;
        return *this;
    }
    std::string finish() { return text_.empty() ? "{}" : std::move(text_) + "}"; }

private:
    const Select& select_;
    std::string text_;
};

const Select kAll;

std::string checkpoint_json(const base::ThreadId& thread, const base::CheckpointId& checkpoint) {
    return fmt::format(
        R"({{"thread_id":"{}","checkpoint_ns":"","checkpoint_id":"{}","checkpoint_map":null}})",
        thread.to_string(), checkpoint.to_string());
}

Json interrupts_of(const Json& tasks) {
    Json all = Json::array();
    for (const auto& task : tasks) {
        const auto at = task.find("interrupts");
        if (at == task.end() || !at->is_array()) {
            continue;
        }
        for (const auto& each : *at) {
            all.push_back(each);
        }
    }
    return all;
}

std::string ttl_json(const storage::ThreadRow& thread) {
    if (!thread.ttl) {
        return "null";
    }
    using Minutes = std::chrono::duration<double, std::ratio<60>>;
    const auto minutes = std::chrono::duration_cast<Minutes>(thread.ttl->after).count();
    const bool expires = thread.expires_at_us != 0;
    return fmt::format(R"({{"strategy":"{}","ttl_minutes":{},"expires_at":{}}})",
                       storage::to_string(thread.ttl->strategy), minutes,
                       expires ? time_json(thread.expires_at_us) : "null");
}

Json channel_schema(const graph::Channels& channels) {
    Json properties = Json::object();
    for (const auto& channel : channels) {
        properties[channel.name] = channel.reducer == graph::Reducer::last_value
                                       ? Json::object()
                                       : Json{{"type", "array"}, {"items", Json::object()}};
    }
    return {{"type", "object"}, {"properties", std::move(properties)}};
}

std::string_view failure_name(base::ErrorCode code) noexcept {
    switch (code) {
        case base::ErrorCode::recursion_limit:
            return "GraphRecursionError";
        case base::ErrorCode::graph_error:
            return "GraphError";
        case base::ErrorCode::model_error:
            return "ModelError";
        case base::ErrorCode::tool_error:
            return "ToolError";
        case base::ErrorCode::timeout:
            return "TimeoutError";
        case base::ErrorCode::cancelled:
        case base::ErrorCode::interrupted:
            return "UserInterrupt";
        case base::ErrorCode::internal:
            return "InternalError";
        default:
            return base::error_traits(code).wire_name;
    }
}

}  // namespace

std::string json_list(const std::vector<std::string>& items) {
    return fmt::format("[{}]", fmt::join(items, ","));
}

std::string assistant_json(const scheduler::Assistant& assistant, const Select& select) {
    const auto created_at = time_json(assistant.created_at_us);
    const auto& graph = *assistant.graph;
    return ObjectText{select}
        .add("assistant_id", literal(assistant.id.to_string()))
        .add("graph_id", literal(graph.name))
        .add("config", "{}")
        .add("context", "{}")
        .add("created_at", created_at)
        .add("updated_at", created_at)
        .add("metadata", R"({"created_by":"system"})")
        .add("version", "1")
        .add("name", literal(graph.name))
        .add("description",
             graph.description.empty() ? std::string{"null"} : literal(graph.description))
        .finish();
}

std::string assistant_graph_json(const graph::Graph& graph) {
    Json nodes = Json::array();
    nodes.push_back({{"id", graph::kStart}, {"type", "schema"}, {"data", graph::kStart}});
    for (const auto& node : graph.nodes) {
        nodes.push_back({{"id", node.name},
                         {"type", "runnable"},
                         {"data", {{"id", {"heddle", node.kind}}, {"name", node.name}}}});
    }
    nodes.push_back({{"id", graph::kEnd}, {"type", "schema"}, {"data", graph::kEnd}});
    Json edges = Json::array();
    for (const auto& edge : graph.edges) {
        Json drawn{{"source", edge.from}, {"target", edge.to}};
        if (edge.when != nullptr) {
            drawn["conditional"] = true;
        }
        edges.push_back(std::move(drawn));
    }
    return base::dump_json({{"nodes", std::move(nodes)}, {"edges", std::move(edges)}});
}

std::string assistant_schemas_json(const graph::Graph& graph) {
    const auto state = channel_schema(*graph.channels);
    const Json any_object{{"type", "object"}, {"properties", Json::object()}};
    return base::dump_json({{"graph_id", graph.name},
                            {"input_schema", state},
                            {"output_schema", state},
                            {"state_schema", state},
                            {"config_schema", any_object},
                            {"context_schema", any_object}});
}

std::string thread_json(const storage::ThreadRow& thread,
                        const std::optional<std::string>& values,
                        const Select& select,
                        bool with_ttl) {
    ObjectText object{select};
    object.add("thread_id", literal(thread.id.to_string()))
        .add("created_at", time_json(thread.created_at_us))
        .add("updated_at", time_json(thread.updated_at_us))
        .add("metadata", thread.metadata)
        .add("status", literal(storage::to_string(thread.status)))
        .add("config", "{}")
        .add("values", values ? std::string_view{*values} : std::string_view{"null"})
        .add("interrupts", thread.interrupts);
    if (with_ttl) {
        object.add("ttl", ttl_json(thread));
    }
    return object.finish();
}

std::string state_json(const base::ThreadId& thread,
                       const std::optional<scheduler::StateAt>& state) {
    if (!state) {
        return R"({"values":{},"next":[],"tasks":[],"metadata":{},"created_at":null,)"
               R"("checkpoint":null,"parent_checkpoint":null,"interrupts":[]})";
    }
    const auto& head = state->head;
    const auto parent = state->parent_checkpoint.is_nil()
                            ? std::string{"null"}
                            : checkpoint_json(thread, state->parent_checkpoint);
    return ObjectText{kAll}
        .add("values", state->values)
        .add("next", base::dump_json(Json(head.next)))
        .add("tasks", base::dump_json(head.tasks))
        .add("metadata", base::dump_json(head.metadata))
        .add("created_at", time_json(state->row.created_at_us))
        .add("checkpoint", checkpoint_json(thread, state->row.checkpoint_id))
        .add("parent_checkpoint", parent)
        .add("interrupts", base::dump_json(interrupts_of(head.tasks)))
        .finish();
}

std::string run_json(const storage::RunRow& run, const Select& select) {
    return ObjectText{select}
        .add("run_id", literal(run.id.to_string()))
        .add("thread_id", literal(run.thread_id.to_string()))
        .add("assistant_id", literal(run.assistant_id.to_string()))
        .add("created_at", time_json(run.created_at_us))
        .add("updated_at", time_json(run.updated_at_us))
        .add("status", literal(storage::to_string(run.status)))
        .add("metadata", run.metadata)
        .add("kwargs", run.kwargs)
        .add("multitask_strategy", literal(run.multitask_strategy))
        .finish();
}

std::string outcome_values(const scheduler::RunOutcome& outcome) {
    if (!outcome.interrupts.is_object() || outcome.interrupts.empty() ||
        outcome.values.size() < 2) {
        return outcome.values;
    }
    Json interrupts = Json::array();
    for (const auto& task : outcome.interrupts) {
        if (!task.is_array()) {
            continue;
        }
        for (const auto& each : task) {
            interrupts.push_back(each);
        }
    }
    auto text = outcome.values;
    text.pop_back();
    if (text.size() > 1) {
        text += ',';
    }
    return text + R"("__interrupt__":)" + base::dump_json(interrupts) + '}';
}

std::string stored_failure_json(const std::string& stored) {
    return failure_json(scheduler::parse_stored_error(stored));
}

std::string failure_json(const base::Error& error) {
    std::string text = R"({"error":)";
    base::append_json_string(text, failure_name(error.code));
    text += R"(,"message":)";
    base::append_json_string(text, error.message);
    return text + '}';
}

bool is_failure(const scheduler::RunOutcome& outcome) noexcept {
    return scheduler::has_failed(outcome);
}

}  // namespace heddle::api
