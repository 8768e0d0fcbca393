#include "engine/api/run_body.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/api/fields.hpp"
#include "engine/nodes/call_decision.hpp"
#include "engine/scheduler/resume.hpp"
#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr std::int64_t kRecursionLimitMax = 10'000;
constexpr std::size_t kNamesMax = 256;

// Fields of the API that change what a run does and that we do not obey. Absent, null, false, zero
// and empty mean the same as for LangGraph: the default.
void refuse_what_is_not_obeyed(Fields& fields) {
    for (const auto* name : {"webhook", "feedback_keys", "langsmith_tracer", "strict_resume"}) {
        const auto* value = fields.find(name);
        const bool is_default = value == nullptr || (value->is_boolean() && !value->get<bool>()) ||
                                ((value->is_array() || value->is_object()) && value->empty());
        if (!is_default) {
            fields.refuse_unsupported(name);
        }
    }
    if (fields.flag("stream_subgraphs").value_or(false)) {
        fields.refuse_unsupported("stream_subgraphs",
                                  "true is not supported: no graph has subgraphs");
    }
    if (const auto seconds = fields.number("after_seconds"); seconds) {
        if (*seconds < 0) {
            fields.refuse("after_seconds", "must not be negative");
        }
        if (*seconds > 0) {
            fields.refuse_unsupported("after_seconds", "above 0 is not supported");
        }
    }
}

// One answer, or a map of answers by interrupt id. The tool ledger alone asks questions so far, so
// each answer must be one of its decisions.
void check_resume(Fields& body, const Json& resume) {
    constexpr auto kField = "command.resume";
    if (!scheduler::is_resume_map(resume)) {
        body.keep(nodes::check_call_decision(resume, kField));
        return;
    }
    for (const auto& [id, answer] : resume.get_ref<const Json::object_t&>()) {
        body.keep(nodes::check_call_decision(answer, fmt::format("{}.{}", kField, id)));
    }
}

void read_command(Fields& body, bool stateless, scheduler::RunRequest& run) {
    const auto* object = body.object("command");
    if (object == nullptr) {
        return;
    }
    Fields command{*object, "command"};
    for (const auto* name : {"update", "goto"}) {
        const auto* value = command.find(name);
        if (value != nullptr && !(value->is_structured() && value->empty())) {
            command.refuse_unsupported(name);
        }
    }
    const auto* resume = command.find("resume");
    body.keep(command.finish());
    if (resume == nullptr) {
        return;
    }
    check_resume(body, *resume);
    if (run.input) {
        body.refuse("command", "cannot be given together with input");
    }
    if (stateless) {
        body.refuse("command", "needs a thread");
    }
    run.resume = *resume;
}

void read_checkpoint(Fields& body, bool stateless, scheduler::RunRequest& run) {
    run.from_checkpoint = body.id<base::CheckpointId>("checkpoint_id");
    run.checkpoint_field = "checkpoint_id";
    if (const auto* object = body.object("checkpoint")) {
        Fields checkpoint{*object, "checkpoint"};
        if (const auto id = checkpoint.id<base::CheckpointId>("checkpoint_id")) {
            run.from_checkpoint = id;
            run.checkpoint_field = "checkpoint";
        }
        (void)checkpoint.id<base::ThreadId>("thread_id");
        if (!checkpoint.text("checkpoint_ns").value_or("").empty()) {
            checkpoint.refuse_unsupported("checkpoint_ns",
                                          "is not supported: no graph has subgraphs");
        }
        (void)checkpoint.object("checkpoint_map");
        body.keep(checkpoint.finish());
    }
    if (stateless && run.from_checkpoint) {
        body.refuse(run.checkpoint_field, "needs a thread", ErrorCode::unsupported);
    }
}

void read_config(Fields& body, scheduler::RunRequest& run) {
    const auto* config_json = body.object("config");
    if (config_json != nullptr) {
        Fields config{*config_json, "config"};
        if (const auto tags = config.texts("tags", kNamesMax); tags && !tags->empty()) {
            config.refuse_unsupported("tags");
        }
        if (const auto limit = config.integer("recursion_limit", 1, kRecursionLimitMax)) {
            run.recursion_limit = static_cast<std::int32_t>(*limit);
        }
        if (const auto* configurable = config.object("configurable")) {
            for (const auto* name : {"checkpoint_id", "checkpoint_ns"}) {
                const auto at = configurable->find(name);
                if (at != configurable->end() && !at->is_null() && *at != "") {
                    config.refuse_unsupported(fmt::format("configurable.{}", name));
                }
            }
            run.configurable = *configurable;
        }
        body.keep(config.finish());
    }
    const auto* context = body.object("context");
    if (context == nullptr || context->empty()) {
        return;
    }
    if (!run.configurable.empty()) {
        body.refuse("context", "cannot be given together with config.configurable");
    }
    run.configurable = *context;
}

std::vector<std::string> read_breakpoints(Fields& body,
                                          std::string_view name,
                                          const graph::Graph& graph) {
    const auto* value = body.find(name);
    if (value == nullptr) {
        return {};
    }
    if (value->is_string()) {
        if (*value == "*") {
            return {"*"};
        }
        body.refuse(name, "must be \"*\" or a list of node names");
        return {};
    }
    auto nodes = body.texts(name, kNamesMax).value_or(std::vector<std::string>{});
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        if (nodes[i] != "*" && graph.find_node(nodes[i]) == nullptr) {
            body.refuse(fmt::format("{}[{}]", name, i),
                        fmt::format("names no node of {}", graph.name));
        }
    }
    return nodes;
}

void read_modes(Fields& body, RunBody& to) {
    const auto* value = body.find("stream_mode");
    if (value == nullptr) {
        to.run.stream_modes = {graph::StreamMode::values};
        return;
    }
    std::vector<std::string> names;
    if (value->is_string()) {
        names.push_back(value->get<std::string>());
    } else {
        names = body.texts("stream_mode", kNamesMax).value_or(std::vector<std::string>{});
    }
    auto modes = read_stream_modes(names, "stream_mode");
    if (!modes) {
        body.keep(std::move(modes).error());
        return;
    }
    to.names_modes = true;
    to.run.stream_modes = std::move(*modes);
}

void read_policies(Fields& body, bool stateless, RunBody& to) {
    auto& run = to.run;
    if (const auto at =
            body.choice("multitask_strategy", {"reject", "enqueue", "interrupt", "rollback"})) {
        run.strategy = static_cast<scheduler::MultitaskStrategy>(*at);
    }
    // The deprecated field goes first, so that durability wins where both are given.
    if (const auto during = body.flag("checkpoint_during")) {
        run.durability = *during ? scheduler::Durability::async : scheduler::Durability::exit;
    }
    if (const auto at = body.choice("durability", {"sync", "async", "exit"})) {
        run.durability = static_cast<scheduler::Durability>(*at);
    }
    if (const auto at = body.choice("if_not_exists", {"reject", "create"})) {
        run.create_thread = *at == 1;
    }
    if (const auto at = body.choice("on_disconnect", {"continue", "cancel"})) {
        to.cancel_on_disconnect = *at == 1;
    }
    const auto completion = body.choice("on_completion", {"keep", "delete"});
    if (stateless) {
        run.create_thread = true;
        run.temporary_thread = completion.value_or(1) == 1;
    } else if (completion == 1U) {
        body.refuse_unsupported("on_completion", "delete is only for runs without a thread");
    }
}

}  // namespace

base::Result<std::vector<graph::StreamMode>> read_stream_modes(
    const std::vector<std::string>& names, std::string_view field) {
    std::vector<graph::StreamMode> modes;
    for (const auto& name : names) {
        const auto mode = scheduler::parse_stream_mode(name);
        if (!mode) {
            constexpr std::size_t kShownMax = 64;
            return Error{
                ErrorCode::invalid_argument,
                fmt::format("{}: \"{}\" is not a stream mode", field, name.substr(0, kShownMax)),
                std::string{field}};
        }
        if (!graph::is_supported(*mode)) {
            return Error{ErrorCode::unsupported,
                         fmt::format("{}: {} is not supported", field, name), std::string{field}};
        }
        if (std::find(modes.begin(), modes.end(), *mode) == modes.end()) {
            modes.push_back(*mode);
        }
    }
    return modes;
}

base::Result<RunBody> read_run_body(std::string_view text,
                                    bool stateless,
                                    const base::RunId& run,
                                    const scheduler::Catalog& catalog) {
    auto json = parse_body(text);
    if (!json) {
        return std::move(json).error();
    }
    Fields body{*json};
    const auto assistant_id = body.text("assistant_id");
    if (!assistant_id) {
        body.refuse("assistant_id", "is required");
        return body.finish().error();
    }
    const auto* assistant = catalog.find(*assistant_id);
    if (assistant == nullptr) {
        constexpr std::size_t kShownMax = 64;
        return Error{ErrorCode::not_found,
                     fmt::format("Assistant not found: {}", assistant_id->substr(0, kShownMax)),
                     "assistant_id"};
    }
    RunBody read;
    read.run.run_id = run;
    read.run.assistant = *assistant;
    read.run.recursion_limit = assistant->graph->recursion_limit;
    if (const auto* input = body.object("input")) {
        auto prepared = graph::prepare_input(*assistant->graph->channels, *input, run);
        if (prepared) {
            read.run.prepared_input = std::move(*prepared);
        } else {
            body.keep(std::move(prepared).error());
        }
        read.run.input = std::move((*json)["input"]);  // nothing looks there again
    }
    if (const auto* metadata = body.object("metadata")) {
        read.run.metadata = *metadata;
    }
    refuse_what_is_not_obeyed(body);
    read_command(body, stateless, read.run);
    read_checkpoint(body, stateless, read.run);
    read_config(body, read.run);
    read.run.stream_resumable = body.flag("stream_resumable").value_or(false);
    read.run.interrupt_before = read_breakpoints(body, "interrupt_before", *assistant->graph);
    read.run.interrupt_after = read_breakpoints(body, "interrupt_after", *assistant->graph);
    read_modes(body, read);
    read_policies(body, stateless, read);
    if (auto status = body.finish(); !status) {
        return std::move(status).error();
    }
    return read;
}

}  // namespace heddle::api
