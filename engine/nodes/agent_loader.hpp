#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/graph/graph.hpp"
#include "engine/models/model.hpp"
#include "engine/tools/tool.hpp"

/// Agents from files: agents/NAME/agent.yaml and what lies beside it. docs/agents.md is the
/// reference of the file.
namespace heddle::nodes {

/// Makes a model from one entry of `models:`. `settings` is a JSON object, variables expanded: the
/// entry's own keys with those of its block for this provider over them, without `provider` and the
/// blocks of other providers, and without what expanded to an empty string. The factory checks it:
/// invalid_argument with the key as field. Relative paths are relative to `base_dir`, the agent's
/// folder.
// NOLINTNEXTLINE: a model is shared by the nodes of many agents
using ModelFactory = std::function<base::Result<std::shared_ptr<models::ChatModel>>(
    const base::Json& settings, const std::filesystem::path& base_dir)>;

/// Makes the source of one entry of `tools:`, e.g. {"http": "clinic.openapi.yaml", "base_url":
/// "..."}; the factory's name is the entry's kind key and checks the rest itself: invalid_argument
/// with the key as field. Relative paths are relative to `base_dir`, the agent's folder.
// NOLINTNEXTLINE: a source is shared by the nodes of its agent
using ToolFactory = std::function<base::Result<std::shared_ptr<tools::ToolSource>>(
    const base::Json& settings, const std::filesystem::path& base_dir)>;

/// The drivers, by the names that agent files call them: only engine/app knows them.
struct Factories {
    std::map<std::string, ModelFactory, std::less<>> models;  ///< by `provider`
    /// What `provider: auto` stands for: "openai" when a key or a base URL is in the environment,
    /// else "scripted".
    std::string auto_provider;
    std::map<std::string, ToolFactory, std::less<>> tools;  ///< by kind key: "http", "mcp"
};

/// One thing that is wrong with an agent file.
struct Problem {
    std::string file;  ///< path as given, under the agents folder
    int line = 0;      ///< from 1; 0: the file as a whole
    std::string text;  ///< what is wrong and what was expected

    /// "agents/echo/agent.yaml:7: nodes.reply.kind: ..."
    [[nodiscard]] std::string to_string() const;
};

struct LoadedAgents {
    std::vector<std::shared_ptr<const graph::Graph>> graphs;  ///< sorted by name
    std::vector<Problem> problems;  ///< of all files; an agent with problems is not in graphs
};

/// Reads every `*/agent.yaml` under `agents_dir`. Blocking: at start only, any OS thread. Never
/// throws; everything that is wrong is in `problems`, a missing folder included.
/// @param variables  for ${NAME} and ${NAME:-default}; normally the process environment
LoadedAgents load_agents(const std::filesystem::path& agents_dir,
                         const Factories& factories,
                         const std::map<std::string, std::string>& variables);

/// The same for one file.
LoadedAgents load_agent(const std::filesystem::path& agent_file,
                        const Factories& factories,
                        const std::map<std::string, std::string>& variables);

/// The environment of this process, for load_agents().
std::map<std::string, std::string> environment_variables();

}  // namespace heddle::nodes
