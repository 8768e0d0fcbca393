#include "engine/nodes/agent_reader.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "engine/nodes/lua_nodes.hpp"

namespace heddle::nodes {
namespace {

using base::Json;
using graph::Reducer;

constexpr std::string_view kTypes = "string, number, integer, boolean, array, object";

bool is_agent_name(const std::string& name) {
    return !name.empty() && name.size() <= 64 &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return std::isalnum(c) != 0 || c == '_' || c == '-';
           });
}

bool is_type(const std::string& name) {
    return name == "string" || name == "number" || name == "integer" || name == "boolean" ||
           name == "array" || name == "object";
}

}  // namespace

AgentReader::AgentReader(const Factories& factories,
                         std::string file,
                         std::filesystem::path base_dir,
                         std::vector<Problem>& problems)
    : factories_{factories},
      file_{std::move(file)},
      base_dir_{std::move(base_dir)},
      problems_{problems} {}

std::shared_ptr<const graph::Graph> AgentReader::read(const YamlNode& root) {
    if (!is_map(root, "")) {
        return graph_;
    }
    check_keys(root, "",
               {"agent", "description", "models", "state", "tools", "nodes", "edges",
                "recursion_limit", "interrupt_before", "interrupt_after"});
    if (const auto* agent = need(root, "", "agent"); agent != nullptr) {
        graph_->name = read_text(agent, "agent").value_or("");
        if (!is_agent_name(graph_->name)) {
            complain(agent->line, "agent", "a name has 1 to 64 letters, digits, '_' or '-'");
        }
    }
    graph_->description = read_text(root.find("description"), "description").value_or("");
    if (const auto* limit = root.find("recursion_limit"); limit != nullptr) {
        const auto steps = read_integer(*limit, "recursion_limit", 1, 10'000);
        if (steps) {
            graph_->recursion_limit = static_cast<std::int32_t>(*steps);
        }
    }
    read_state(root.find("state"));
    read_models(root.find("models"));
    read_tools(root.find("tools"));
    read_nodes(need(root, "", "nodes"));
    const auto before_edges = problems_.size();
    read_edges(need(root, "", "edges"));
    // Where an edge is wrong, what it would have reached is no second problem.
    if (problems_.size() == before_edges) {
        check_reachable();
    }
    read_breakpoints(root);
    graph_->channels = std::make_shared<const graph::Channels>(std::move(channels_));
    return graph_;
}

void AgentReader::read_state(const YamlNode* state) {
    if (state == nullptr) {
        channels_.push_back(graph::ChannelSpec{"messages", Reducer::add_messages});
        return;
    }
    if (!is_map(*state, "state")) {
        return;
    }
    for (const auto& [name, channel] : state->members) {
        read_channel(name, channel, state->member_lines.at(name));
    }
}

void AgentReader::read_channel(const std::string& name, const YamlNode& channel, int line) {
    const auto path = fmt::format("state.{}", name);
    if (!LuaScript::is_free_name(name)) {
        complain(line, path,
                 "a channel's name is a Lua variable that no library uses: letters, "
                 "digits and '_'");
        return;
    }
    graph::ChannelSpec spec;
    spec.name = name;
    if (channel.kind != YamlNode::Kind::null && !is_map(channel, path)) {
        return;
    }
    check_keys(channel, path, {"reducer", "type", "default"});
    if (const auto* reducer = channel.find("reducer"); reducer != nullptr) {
        const auto value = read_text(reducer, path + ".reducer");
        if (value == "add_messages") {
            spec.reducer = Reducer::add_messages;
        } else if (value == "append") {
            spec.reducer = Reducer::append;
        } else if (value && value != "last_value") {
            complain(reducer->line, path + ".reducer",
                     fmt::format("unknown reducer \"{}\"; expected one of last_value, append, "
                                 "add_messages",
                                 *value));
        }
    }
    const bool list = spec.reducer != Reducer::last_value;
    if (const auto* type = channel.find("type"); type != nullptr) {
        spec.type = read_text(type, path + ".type").value_or("");
        if (!is_type(spec.type) || (list && spec.type != "array")) {
            complain(type->line, path + ".type",
                     list ? std::string{"a channel with this reducer is an array"}
                          : fmt::format("expected one of {}", kTypes));
        }
    }
    if (const auto* initial = channel.find("default"); initial != nullptr) {
        spec.initial = initial->to_json();
        if (spec.reducer == Reducer::add_messages) {
            complain(initial->line, path + ".default", "messages begin empty");
        } else if (spec.reducer == Reducer::append && !spec.initial.is_array()) {
            complain(initial->line, path + ".default", "expected a list");
        } else if (auto made = graph::prepare_input({spec}, Json{{name, spec.initial}}, {});
                   !made) {
            complain(initial->line, path + ".default", made.error().message);
        }
    }
    channels_.push_back(std::move(spec));
}

void AgentReader::read_models(const YamlNode* models) {
    if (models == nullptr || !is_map(*models, "models")) {
        return;
    }
    for (const auto& [name, entry] : models->members) {
        model_lines_[name] = models->member_lines.at(name);
        read_model(name, entry, model_lines_[name]);
    }
}

void AgentReader::read_model(const std::string& name, const YamlNode& entry, int line) {
    const auto path = fmt::format("models.{}", name);
    if (!is_map(entry, path)) {
        return;
    }
    const auto* provider_node = need(entry, path, "provider");
    auto provider = read_text(provider_node, path + ".provider");
    if (!provider) {
        return;
    }
    if (*provider == "auto") {
        provider = factories_.auto_provider;
    }
    const auto factory = factories_.models.find(*provider);
    if (factory == factories_.models.end()) {
        std::string known = "auto";
        for (const auto& [other, made] : factories_.models) {
            known += ", " + other;
        }
        complain(provider_node->line, path + ".provider",
                 fmt::format("unknown provider \"{}\"; expected one of {}", *provider, known));
        return;
    }
    Json settings = Json::object();
    std::map<std::string, int, std::less<>> lines = entry.member_lines;
    for (const auto& [key, value] : entry.members) {
        if (key != "provider" && !factories_.models.contains(key)) {
            settings[key] = value.to_json();
        }
    }
    if (const auto* own = entry.find(*provider); own != nullptr && is_map(*own, path)) {
        for (const auto& [key, value] : own->members) {
            settings[key] = value.to_json();
            lines[key] = own->member_lines.at(key);
        }
    }
    for (auto at = settings.begin(); at != settings.end();) {
        at = *at == "" ? settings.erase(at) : std::next(at);
    }
    auto model = factory->second(settings, base_dir_);
    if (model) {
        models_[name] = std::move(*model);
        return;
    }
    const auto& error = model.error();
    const auto at = lines.find(error.field);
    complain(at != lines.end() ? at->second : line,
             error.field.empty() ? path : fmt::format("{}.{}", path, error.field), error.message);
}

void AgentReader::read_tools(const YamlNode* tools) {
    if (tools == nullptr) {
        return;
    }
    if (tools->kind != YamlNode::Kind::list) {
        complain(tools->line, "tools", fmt::format("expected a list, got {}", tools->kind_name()));
        return;
    }
    for (std::size_t i = 0; i < tools->elements.size(); ++i) {
        read_tool_source(tools->elements[i], fmt::format("tools[{}]", i));
    }
}

void AgentReader::read_tool_source(const YamlNode& entry, const std::string& path) {
    if (!is_map(entry, path)) {
        return;
    }
    const ToolFactory* factory = nullptr;
    std::string known;
    for (const auto& [kind, candidate] : factories_.tools) {
        known += (known.empty() ? "" : ", ") + kind;
        if (entry.find(kind) != nullptr) {
            factory = &candidate;
        }
    }
    if (factory == nullptr && entry.find("command") != nullptr) {
        complain(entry.member_lines.at("command"), path + ".command",
                 "stdio is not supported; expected mcp: the URL of a server that speaks MCP over "
                 "streamable HTTP");
        return;
    }
    if (factory == nullptr) {
        complain(entry.line, path,
                 fmt::format("expected a key that says what kind of tools these "
                             "are: {}",
                             known));
        return;
    }
    auto made = (*factory)(entry.to_json(), base_dir_);
    if (!made) {
        const auto& error = made.error();
        const auto at = entry.member_lines.find(error.field);
        complain(at != entry.member_lines.end() ? at->second : entry.line,
                 error.field.empty() ? path : fmt::format("{}.{}", path, error.field),
                 error.message);
        return;
    }
    const auto* offered = (*made)->known();
    if (offered == nullptr) {
        open_sources_.push_back(*std::move(made));
        return;
    }
    for (const auto& tool : *offered) {
        const auto& name = tool->spec().name;
        const bool taken = std::any_of(tools_.begin(), tools_.end(), [&](const auto& other) {
            return other->spec().name == name;
        });
        if (taken) {
            complain(entry.line, path, fmt::format("there is already a tool \"{}\"", name));
            continue;
        }
        tools_.push_back(tool);
    }
}

void AgentReader::read_edges(const YamlNode* edges) {
    if (edges == nullptr) {
        return;
    }
    if (edges->kind != YamlNode::Kind::list) {
        complain(edges->line, "edges", fmt::format("expected a list, got {}", edges->kind_name()));
        return;
    }
    for (std::size_t i = 0; i < edges->elements.size(); ++i) {
        read_edge(edges->elements[i], fmt::format("edges[{}]", i));
    }
    const bool started = std::any_of(graph_->edges.begin(), graph_->edges.end(),
                                     [](const auto& edge) { return edge.from == graph::kStart; });
    if (!started) {
        complain(edges->line, "edges", "no edge leads out of START");
    }
}

void AgentReader::read_edge(const YamlNode& edge, const std::string& path) {
    if (!is_map(edge, path)) {
        return;
    }
    check_keys(edge, path, {"from", "to", "when"});
    graph::EdgeSpec spec;
    const auto* from = need(edge, path, "from");
    const auto* to = need(edge, path, "to");
    const auto from_name = read_text(from, path + ".from");
    const auto to_name = read_text(to, path + ".to");
    if (from_name) {
        spec.from = *from_name == "START" ? std::string{graph::kStart} : *from_name;
    }
    if (to_name) {
        spec.to = *to_name == "END" ? std::string{graph::kEnd} : *to_name;
    }
    if (from_name && *from_name != "START" && !has_node(*from_name)) {
        complain(from->line, path + ".from",
                 fmt::format("there is no node \"{}\"; expected START or one of {}", *from_name,
                             node_names()));
    }
    if (to_name && *to_name != "END" && !has_node(*to_name)) {
        complain(to->line, path + ".to",
                 fmt::format("there is no node \"{}\"; expected END or one of {}", *to_name,
                             node_names()));
    }
    if (const auto* when = edge.find("when"); when != nullptr) {
        if (const auto expression = read_text(when, path + ".when")) {
            auto script = compile_expression(*expression, "when");
            if (script) {
                spec.when = make_lua_condition(std::move(*script));
            } else {
                complain(when->line, path + ".when", script.error().message);
            }
        }
    }
    if (from_name && to_name) {
        graph_->edges.push_back(std::move(spec));
    }
}

void AgentReader::read_breakpoints(const YamlNode& root) {
    for (const auto* key : {"interrupt_before", "interrupt_after"}) {
        const auto* list = root.find(key);
        auto& names = std::string_view{key} == "interrupt_before" ? graph_->interrupt_before
                                                                  : graph_->interrupt_after;
        for (auto& name : read_names(list, key)) {
            if (name != "*" && !has_node(name)) {
                complain(
                    list->line, key,
                    fmt::format("there is no node \"{}\"; expected one of {}", name, node_names()));
                continue;
            }
            names.push_back(std::move(name));
        }
    }
}

void AgentReader::check_reachable() {
    std::set<std::string_view> reached{graph::kStart};
    for (bool grown = true; grown;) {
        grown = false;
        for (const auto& edge : graph_->edges) {
            if (reached.contains(edge.from)) {
                grown = reached.insert(edge.to).second || grown;
            }
        }
    }
    // Without edges from START everything is out of reach, and that has been said.
    if (reached.size() == 1) {
        return;
    }
    for (const auto& node : graph_->nodes) {
        if (!reached.contains(node.name)) {
            complain(node_lines_[node.name], fmt::format("nodes.{}", node.name),
                     "no path of edges leads here from START");
        }
    }
}

}  // namespace heddle::nodes
