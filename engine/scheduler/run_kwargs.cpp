#include "engine/scheduler/run_kwargs.hpp"

#include <array>
#include <utility>

#include <fmt/format.h>

namespace heddle::scheduler {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

template <class E, std::size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<graph::StreamMode, 9> kModes{{
    {graph::StreamMode::values, "values"},
    {graph::StreamMode::updates, "updates"},
    {graph::StreamMode::messages, "messages"},
    {graph::StreamMode::messages_tuple, "messages-tuple"},
    {graph::StreamMode::custom, "custom"},
    {graph::StreamMode::debug, "debug"},
    {graph::StreamMode::tasks, "tasks"},
    {graph::StreamMode::checkpoints, "checkpoints"},
    {graph::StreamMode::events, "events"},
}};
constexpr Names<MultitaskStrategy, 4> kStrategies{{
    {MultitaskStrategy::reject, "reject"},
    {MultitaskStrategy::enqueue, "enqueue"},
    {MultitaskStrategy::interrupt, "interrupt"},
    {MultitaskStrategy::rollback, "rollback"},
}};
constexpr Names<Durability, 3> kDurabilities{{
    {Durability::sync, "sync"},
    {Durability::async, "async"},
    {Durability::exit, "exit"},
}};

template <class E, std::size_t N>
std::string_view name_of(const Names<E, N>& names, E value) noexcept {
    for (const auto& [key, name] : names) {
        if (key == value) {
            return name;
        }
    }
    return "";
}

template <class E, std::size_t N>
std::optional<E> find_by_name(const Names<E, N>& names, std::string_view wanted) noexcept {
    for (const auto& [key, name] : names) {
        if (name == wanted) {
            return key;
        }
    }
    return std::nullopt;
}

void append_names(std::string& out, const std::vector<std::string>& names) {
    out += '[';
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (i > 0) {
            out += ',';
        }
        base::append_json_string(out, names[i]);
    }
    out += ']';
}

// Every reader below takes a member that is missing as "left at its default" and one of the wrong
// type as broken: the rows are ours, so a wrong type means that something else wrote them.
Error broken(std::string_view what) {
    return Error{ErrorCode::internal, fmt::format("stored run: {} is broken", what)};
}

base::Status read_names(const Json& from, const char* key, std::vector<std::string>& to) {
    const auto at = from.find(key);
    if (at == from.end()) {
        return base::ok();
    }
    if (!at->is_array()) {
        return broken(key);
    }
    for (const auto& name : *at) {
        if (!name.is_string()) {
            return broken(key);
        }
        to.push_back(name.get<std::string>());
    }
    return base::ok();
}

base::Result<Json> parse_kwargs(const storage::RunRow& row) {
    auto kwargs = base::parse_stored_json(row.kwargs);
    if (kwargs && !kwargs->is_object()) {
        return broken("kwargs");
    }
    return kwargs;
}

// What decides over nothing but the run's own execution; taken out of `kwargs`.
base::Status take_json(Json& kwargs, const storage::RunRow& row, RunRequest& request) {
    auto metadata = base::parse_stored_json(row.metadata);
    if (!metadata) {
        return std::move(metadata).error();
    }
    request.metadata = std::move(*metadata);
    if (const auto at = kwargs.find("input"); at != kwargs.end()) {
        request.input = std::move(*at);
    }
    if (const auto at = kwargs.find("command"); at != kwargs.end()) {
        if (!at->is_object() || !at->contains("resume")) {
            return broken("command");
        }
        request.resume = std::move(at->at("resume"));
    }
    const auto config = kwargs.find("config");
    if (config == kwargs.end()) {
        return base::ok();
    }
    if (!config->is_object()) {
        return broken("config");
    }
    if (const auto at = config->find("configurable"); at != config->end()) {
        if (!at->is_object()) {
            return broken("configurable");
        }
        request.configurable = std::move(*at);
    }
    return base::ok();
}

base::Status read_recursion_limit(const Json& kwargs, RunRequest& request) {
    const auto config = kwargs.find("config");
    if (config == kwargs.end()) {
        return base::ok();
    }
    if (const auto at = config->find("recursion_limit"); at != config->end()) {
        if (!at->is_number_integer()) {
            return broken("recursion_limit");
        }
        request.recursion_limit = at->get<std::int32_t>();
    }
    return base::ok();
}

base::Status read_rest(const Json& kwargs, RunRequest& request) {
    std::vector<std::string> modes;
    if (auto status = read_names(kwargs, "stream_mode", modes); !status) {
        return status;
    }
    for (const auto& name : modes) {
        const auto mode = parse_stream_mode(name);
        if (!mode) {
            return broken("stream_mode");
        }
        request.stream_modes.push_back(*mode);
    }
    if (const auto at = kwargs.find("durability"); at != kwargs.end()) {
        if (!at->is_string()) {
            return broken("durability");
        }
        const auto durability = parse_durability(at->get_ref<const std::string&>());
        if (!durability) {
            return broken("durability");
        }
        request.durability = *durability;
    }
    if (const auto at = kwargs.find("temporary"); at != kwargs.end()) {
        if (!at->is_boolean()) {
            return broken("temporary");
        }
        request.temporary_thread = at->get<bool>();
    }
    if (const auto at = kwargs.find("stream_resumable"); at != kwargs.end()) {
        if (!at->is_boolean()) {
            return broken("stream_resumable");
        }
        request.stream_resumable = at->get<bool>();
    }
    if (const auto at = kwargs.find("time_max_ms"); at != kwargs.end()) {
        if (!at->is_number_integer()) {
            return broken("time_max_ms");
        }
        request.time_max = std::chrono::milliseconds{at->get<std::int64_t>()};
    }
    if (auto status = read_names(kwargs, "interrupt_before", request.interrupt_before); !status) {
        return status;
    }
    return read_names(kwargs, "interrupt_after", request.interrupt_after);
}

}  // namespace

std::string_view to_string(graph::StreamMode mode) noexcept {
    return name_of(kModes, mode);
}
std::string_view to_string(MultitaskStrategy strategy) noexcept {
    return name_of(kStrategies, strategy);
}
std::string_view to_string(Durability durability) noexcept {
    return name_of(kDurabilities, durability);
}
std::optional<graph::StreamMode> parse_stream_mode(std::string_view name) noexcept {
    return find_by_name(kModes, name);
}
std::optional<MultitaskStrategy> parse_multitask_strategy(std::string_view name) noexcept {
    return find_by_name(kStrategies, name);
}
std::optional<Durability> parse_durability(std::string_view name) noexcept {
    return find_by_name(kDurabilities, name);
}

std::string encode_kwargs(const RunRequest& request) {
    std::string out = "{";
    if (request.input) {
        out += R"("input":)";
        out += base::dump_json(*request.input);
        out += ',';
    }
    if (request.resume) {
        out += R"("command":{"resume":)" + base::dump_json(*request.resume) + "},";
    }
    out += R"("config":{"recursion_limit":)";
    out += std::to_string(request.recursion_limit);
    out += R"(,"configurable":)";
    out += base::dump_json(request.configurable);
    out += R"(},"stream_mode":[)";
    for (const auto mode : request.stream_modes) {
        out += out.back() == '[' ? "\"" : ",\"";
        out += to_string(mode);
        out += '"';
    }
    out += R"(],"interrupt_before":)";
    append_names(out, request.interrupt_before);
    out += R"(,"interrupt_after":)";
    append_names(out, request.interrupt_after);
    if (request.stream_resumable) {
        out += R"(,"stream_resumable":true)";
    }
    const auto time_max = std::chrono::duration_cast<std::chrono::milliseconds>(request.time_max);
    out += R"(,"durability":")";
    out += to_string(request.durability);
    out += request.temporary_thread ? R"(","temporary":true)" : R"(","temporary":false)";
    return out + R"(,"time_max_ms":)" + std::to_string(time_max.count()) + '}';
}

base::Status read_json(const storage::RunRow& row, RunRequest& request) {
    auto kwargs = parse_kwargs(row);
    if (!kwargs) {
        return std::move(kwargs).error();
    }
    return take_json(*kwargs, row, request);
}

base::Result<RunRequest> decode_run(const storage::RunRow& row, const Catalog& catalog) {
    const auto* assistant = catalog.find(row.assistant_id);
    if (assistant == nullptr) {
        return Error{ErrorCode::not_found, fmt::format("this engine does not serve assistant {}",
                                                       row.assistant_id.to_string())};
    }
    auto kwargs = parse_kwargs(row);
    if (!kwargs) {
        return std::move(kwargs).error();
    }
    const auto strategy = parse_multitask_strategy(row.multitask_strategy);
    if (!strategy) {
        return broken("multitask_strategy");
    }

    RunRequest request;
    request.thread_id = row.thread_id;
    request.run_id = row.id;
    request.assistant = *assistant;
    request.maybe_repeated = true;
    request.request_hash = row.request_hash;
    request.strategy = *strategy;
    if (auto status = take_json(*kwargs, row, request); !status) {
        return std::move(status).error();
    }
    if (auto status = read_recursion_limit(*kwargs, request); !status) {
        return std::move(status).error();
    }
    if (auto status = read_rest(*kwargs, request); !status) {
        return std::move(status).error();
    }
    request.kwargs = row.kwargs;
    return request;
}

}  // namespace heddle::scheduler
