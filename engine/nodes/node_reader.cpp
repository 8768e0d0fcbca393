#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/nodes/agent_reader.hpp"
#include "engine/nodes/lua_nodes.hpp"
#include "engine/nodes/model_node.hpp"
#include "engine/nodes/native_nodes.hpp"
#include "engine/nodes/prompt_template.hpp"

namespace heddle::nodes {
namespace {

using base::Json;

constexpr std::string_view kKinds = "model, tools, lua, native, interrupt";

bool is_node_name(const std::string& name) {
    return !name.empty() && name.size() <= 64 &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
           });
}

}  // namespace

void AgentReader::read_nodes(const YamlNode* nodes) {
    if (nodes == nullptr || !is_map(*nodes, "nodes")) {
        return;
    }
    if (nodes->members.empty()) {
        complain(nodes->line, "nodes", "there is no node");
    }
    for (const auto& [name, node] : nodes->members) {
        read_node(name, node, nodes->member_lines.at(name));
    }
    place_interrupts();
}

void AgentReader::read_node(const std::string& name, const YamlNode& node, int line) {
    const auto path = fmt::format("nodes.{}", name);
    if (name == "START" || name == "END" || name.starts_with("__") || !is_node_name(name)) {
        complain(line, path,
                 "a name has 1 to 64 letters, digits, '_', '-' or '.', does not begin "
                 "with \"__\" and is neither START nor END");
        return;
    }
    if (!is_map(node, path)) {
        return;
    }
    const auto kind = read_text(need(node, path, "kind"), path + ".kind");
    // An entry that is wrong inside is still a node: edges to it are no second problem.
    graph::NodeSpec spec;
    spec.name = name;
    spec.kind = kind.value_or("");
    node_lines_[name] = line;
    if (kind == "interrupt") {
        read_interrupt(node, path);
        return;
    }
    if (kind == "model") {
        spec.body = read_model_node(node, path);
    } else if (kind == "tools") {
        spec.body = read_tools_node(node, path);
        tools_nodes_.push_back(name);
    } else if (kind == "lua") {
        spec.body = read_lua_node(node, path);
    } else if (kind == "native") {
        spec.body = read_native_node(node, path);
    } else if (kind == "http" || kind == "agent" || kind == "map") {
        complain(node.find("kind")->line, path + ".kind",
                 fmt::format("\"{}\" is not supported yet; expected one of {}", *kind, kKinds));
    } else if (kind) {
        complain(node.find("kind")->line, path + ".kind",
                 fmt::format("unknown kind \"{}\"; expected one of {}", *kind, kKinds));
    }
    read_policies(node, path, spec);
    graph_->nodes.push_back(std::move(spec));
}

std::shared_ptr<const graph::Node> AgentReader::read_model_node(const YamlNode& node,
                                                                const std::string& path) {
    check_keys(node, path, {"kind", "model", "system", "tools", "retry", "timeout"});
    ModelNodeSpec spec;
    const auto* model_node = need(node, path, "model");
    if (const auto model = read_text(model_node, path + ".model")) {
        if (!model_lines_.contains(*model)) {
            complain(model_node->line, path + ".model",
                     fmt::format("there is no model \"{}\" under models", *model));
        } else if (const auto found = models_.find(*model); found != models_.end()) {
            spec.model = found->second;
        }
    }
    if (const auto* system = node.find("system"); system != nullptr) {
        if (auto text = read_file(*system, path + ".system")) {
            auto parsed = PromptTemplate::parse(std::move(*text));
            if (parsed) {
                spec.system = std::move(*parsed);
            } else {
                complain(system->line, path + ".system",
                         fmt::format("{}: {}", system->text, parsed.error().message));
            }
        }
    }
    auto tools = select_tools(node.find("tools"), path + ".tools", false);
    if (tools) {
        spec.tools = *std::move(tools);
    }
    return make_model_node(std::move(spec));
}

std::shared_ptr<const graph::Node> AgentReader::read_tools_node(const YamlNode& node,
                                                                const std::string& path) {
    check_keys(node, path, {"kind", "tools", "on_error", "retry", "timeout"});
    ToolsNodeSpec spec;
    if (const auto* on_error = node.find("on_error"); on_error != nullptr) {
        const auto choice = read_text(on_error, path + ".on_error");
        spec.fail_on_error = choice == "fail";
        if (choice && choice != "fail" && choice != "message") {
            complain(on_error->line, path + ".on_error", "expected message or fail");
        }
    }
    if (tools_.empty() && open_sources_.empty() && problems_.empty()) {
        complain(node.line, path, "the agent has no tools");
    }
    auto tools = select_tools(node.find("tools"), path + ".tools", true);
    if (tools) {
        spec.tools = *std::move(tools);
    }
    return make_tools_node(std::move(spec));
}

std::optional<ToolSelection> AgentReader::select_tools(const YamlNode* selection,
                                                       const std::string& path,
                                                       bool all_by_default) {
    const auto all = [this] { return ToolSelection{tools_, open_sources_, std::nullopt}; };
    if (selection == nullptr) {
        return all_by_default ? all() : ToolSelection{};
    }
    if (selection->kind == YamlNode::Kind::scalar) {
        if (selection->text == "all") {
            return all();
        }
        if (selection->text == "none") {
            return ToolSelection{};
        }
        complain(selection->line, path, "expected all, none or a list of tool names");
        return std::nullopt;
    }
    tools::ToolSet selected;
    std::vector<std::string> open;
    for (const auto& name : read_names(selection, path)) {
        const auto found = std::find_if(tools_.begin(), tools_.end(), [&](const auto& tool) {
            return tool->spec().name == name;
        });
        if (found != tools_.end()) {
            selected.push_back(*found);
        } else if (may_be_tool(name)) {
            open.push_back(name);
        } else {
            complain(selection->line, path, fmt::format("there is no tool \"{}\"", name));
        }
    }
    if (open.empty()) {
        return ToolSelection{std::move(selected)};
    }
    return ToolSelection{std::move(selected), open_sources_, std::move(open)};
}

// Whether a server that is asked at run time may offer it.
bool AgentReader::may_be_tool(const std::string& name) const {
    return !open_sources_.empty() && tools::is_tool_name(name);
}

std::shared_ptr<const graph::Node> AgentReader::read_lua_node(const YamlNode& node,
                                                              const std::string& path) {
    check_keys(node, path, {"kind", "script", "code", "retry", "timeout"});
    const auto* script = node.find("script");
    const auto* code = node.find("code");
    if ((script == nullptr) == (code == nullptr)) {
        complain(node.line, path, "expected either script (a file) or code (Lua)");
        return nullptr;
    }
    const bool inlined = code != nullptr;
    auto source = inlined ? read_text(code, path + ".code") : read_file(*script, path + ".script");
    if (!source) {
        return nullptr;
    }
    const auto name = inlined ? std::string{"code"} : script->text;
    auto compiled = LuaScript::compile(std::move(*source), name);
    if (!compiled) {
        complain((inlined ? code : script)->line, path, compiled.error().message);
        return nullptr;
    }
    return make_lua_node(std::move(*compiled));
}

std::shared_ptr<const graph::Node> AgentReader::read_native_node(const YamlNode& node,
                                                                 const std::string& path) {
    const auto* class_node = need(node, path, "class");
    const auto name = read_text(class_node, path + ".class");
    if (!name) {
        return nullptr;
    }
    const auto found = native_nodes().find(*name);
    if (found == native_nodes().end()) {
        std::string known;
        for (const auto& [other, factory] : native_nodes()) {
            known += (known.empty() ? "" : ", ") + other;
        }
        complain(class_node->line, path + ".class",
                 fmt::format("unknown class \"{}\"; expected one of {}", *name, known));
        return nullptr;
    }
    Json settings = node.to_json();
    for (const auto* key : {"kind", "class", "retry", "timeout"}) {
        settings.erase(key);
    }
    auto made = found->second(settings);
    if (made) {
        return std::move(*made);
    }
    const auto line = node.member_lines.find(made.error().field);
    complain(line != node.member_lines.end() ? line->second : node.line,
             fmt::format("{}.{}", path, made.error().field), made.error().message);
    return nullptr;
}

void AgentReader::read_interrupt(const YamlNode& node, const std::string& path) {
    check_keys(node, path, {"kind", "before"});
    const auto* before = need(node, path, "before");
    if (before == nullptr) {
        return;
    }
    interrupts_.push_back(
        Interrupt{before->line, path + ".before", read_names(before, path + ".before")});
}

// After all nodes are known: a name is a node's, else a tool's.
void AgentReader::place_interrupts() {
    for (const auto& interrupt : interrupts_) {
        std::vector<std::string> called;
        for (const auto& name : interrupt.before) {
            const bool is_tool = may_be_tool(name) ||
                                 std::any_of(tools_.begin(), tools_.end(), [&](const auto& tool) {
                                     return tool->spec().name == name;
                                 });
            if (has_node(name)) {
                graph_->interrupt_before.push_back(name);
            } else if (is_tool) {
                called.push_back(name);
            } else {
                complain(interrupt.line, interrupt.path,
                         fmt::format("\"{}\" is neither a node nor a tool", name));
            }
        }
        if (called.empty()) {
            continue;
        }
        if (tools_nodes_.empty()) {
            complain(interrupt.line, interrupt.path, "no node of kind tools would call them");
        }
        for (const auto& node : tools_nodes_) {
            graph_->interrupt_when.push_back(graph::BreakpointSpec{node, make_tool_called(called)});
        }
    }
}

void AgentReader::read_policies(const YamlNode& node,
                                const std::string& path,
                                graph::NodeSpec& spec) {
    if (const auto* timeout = node.find("timeout"); timeout != nullptr) {
        if (const auto time = read_duration(*timeout, path + ".timeout")) {
            spec.timeout = *time;
        }
    }
    if (const auto* retry = node.find("retry"); retry != nullptr) {
        read_retry(*retry, path + ".retry", spec.retry);
    }
}

void AgentReader::read_retry(const YamlNode& retry,
                             const std::string& path,
                             graph::RetryPolicy& policy) {
    if (!is_map(retry, path)) {
        return;
    }
    check_keys(retry, path, {"attempts", "first_wait", "factor", "wait_max"});
    if (const auto* attempts = retry.find("attempts"); attempts != nullptr) {
        const auto count = read_integer(*attempts, path + ".attempts", 1, 20);
        if (count) {
            policy.attempts_max = static_cast<std::int32_t>(*count);
        }
    }
    if (const auto* wait = retry.find("first_wait"); wait != nullptr) {
        policy.first_wait = read_duration(*wait, path + ".first_wait").value_or(policy.first_wait);
    }
    if (const auto* factor = retry.find("factor"); factor != nullptr) {
        policy.factor = read_number(*factor, path + ".factor", 1, 10).value_or(policy.factor);
    }
    if (const auto* wait = retry.find("wait_max"); wait != nullptr) {
        policy.wait_max = read_duration(*wait, path + ".wait_max").value_or(policy.wait_max);
    }
}

}  // namespace heddle::nodes
