#include "engine/nodes/agent_loader.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "engine/nodes/agent_reader.hpp"
#include "engine/nodes/yaml_tree.hpp"

namespace heddle::nodes {
namespace {

constexpr std::size_t kAgentsMax = 1000;

void load_into(LoadedAgents& loaded,
               const std::filesystem::path& file,
               const Factories& factories,
               const std::map<std::string, std::string>& variables) {
    std::ifstream stream{file, std::ios::binary};
    const std::string text{std::istreambuf_iterator<char>{stream},
                           std::istreambuf_iterator<char>{}};
    if (!stream) {
        loaded.problems.push_back(Problem{file.string(), 0, "cannot be read"});
        return;
    }
    std::vector<Problem> problems;
    const auto root = parse_yaml(text, file.string(), variables, problems);
    std::shared_ptr<const graph::Graph> graph;
    // What could not be parsed has no parts worth looking at.
    if (root.kind != YamlNode::Kind::null || problems.empty()) {
        AgentReader reader{factories, file.string(), file.parent_path(), problems};
        graph = reader.read(root);
    }
    if (problems.empty()) {
        if (const auto status = graph->validate(); !status) {
            problems.push_back(Problem{file.string(), 0, status.error().message});
        }
    }
    if (problems.empty()) {
        loaded.graphs.push_back(std::move(graph));
        return;
    }
    std::stable_sort(problems.begin(), problems.end(),
                     [](const Problem& a, const Problem& b) { return a.line < b.line; });
    std::move(problems.begin(), problems.end(), std::back_inserter(loaded.problems));
}

void check_names(LoadedAgents& loaded) {
    std::sort(loaded.graphs.begin(), loaded.graphs.end(),
              [](const auto& a, const auto& b) { return a->name < b->name; });
    const auto twin =
        std::adjacent_find(loaded.graphs.begin(), loaded.graphs.end(),
                           [](const auto& a, const auto& b) { return a->name == b->name; });
    if (twin != loaded.graphs.end()) {
        loaded.problems.push_back(
            Problem{"", 0, fmt::format("two agents are named \"{}\"", (*twin)->name)});
    }
}

}  // namespace

std::string Problem::to_string() const {
    if (file.empty()) {
        return text;
    }
    return line == 0 ? fmt::format("{}: {}", file, text)
                     : fmt::format("{}:{}: {}", file, line, text);
}

LoadedAgents load_agent(const std::filesystem::path& agent_file,
                        const Factories& factories,
                        const std::map<std::string, std::string>& variables) {
    LoadedAgents loaded;
    load_into(loaded, agent_file, factories, variables);
    return loaded;
}

LoadedAgents load_agents(const std::filesystem::path& agents_dir,
                         const Factories& factories,
                         const std::map<std::string, std::string>& variables) {
    LoadedAgents loaded;
    std::error_code failure;
    std::vector<std::filesystem::path> files;
    for (auto at = std::filesystem::directory_iterator{agents_dir, failure};
         !failure && at != std::filesystem::directory_iterator{}; at.increment(failure)) {
        auto file = at->path() / "agent.yaml";
        std::error_code ignored;
        if (std::filesystem::is_regular_file(file, ignored)) {
            files.push_back(std::move(file));
        }
    }
    if (failure) {
        loaded.problems.push_back(
            Problem{agents_dir.string(), 0, "the agents folder cannot be read"});
        return loaded;
    }
    if (files.empty() || files.size() > kAgentsMax) {
        loaded.problems.push_back(
            Problem{agents_dir.string(), 0,
                    fmt::format("expected 1 to {} folders with an agent.yaml, found {}", kAgentsMax,
                                files.size())});
        return loaded;
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
        load_into(loaded, file, factories, variables);
    }
    check_names(loaded);
    return loaded;
}

std::map<std::string, std::string> environment_variables() {
    std::map<std::string, std::string> variables;
    for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
        const std::string_view entry{*at};
        const auto equals = entry.find('=');
        if (equals == std::string_view::npos) {
            continue;
        }
        variables.emplace(entry.substr(0, equals), entry.substr(equals + 1));
    }
    return variables;
}

}  // namespace heddle::nodes
