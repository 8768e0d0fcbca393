#pragma once

#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/graph/graph.hpp"
#include "engine/nodes/agent_loader.hpp"
#include "engine/nodes/tool_selection.hpp"
#include "engine/nodes/tools_node.hpp"
#include "engine/nodes/yaml_tree.hpp"

namespace heddle::nodes {

/// Reads one agent file's tree into a graph and gathers everything that is wrong with it. Used
/// once.
class AgentReader {
public:
    /// @param file  as problems name it;  `base_dir` is the agent's folder. All must outlive this
    AgentReader(const Factories& factories,
                std::string file,
                std::filesystem::path base_dir,
                std::vector<Problem>& problems);

    /// @return the graph; to be used only if no problem was added
    std::shared_ptr<const graph::Graph> read(const YamlNode& root);

private:
    using Keys = std::initializer_list<std::string_view>;

    // ---- agent_reader.cpp: the parts of the file
    void read_state(const YamlNode* state);
    void read_channel(const std::string& name, const YamlNode& channel, int line);
    void read_models(const YamlNode* models);
    void read_model(const std::string& name, const YamlNode& entry, int line);
    void read_tools(const YamlNode* tools);
    void read_tool_source(const YamlNode& entry, const std::string& path);
    void read_edges(const YamlNode* edges);
    void read_edge(const YamlNode& edge, const std::string& path);
    void read_breakpoints(const YamlNode& root);
    void check_reachable();

    // ---- node_reader.cpp: nodes by kind
    void read_nodes(const YamlNode* nodes);
    void read_node(const std::string& name, const YamlNode& node, int line);
    std::shared_ptr<const graph::Node> read_model_node(const YamlNode& node,
                                                       const std::string& path);
    std::shared_ptr<const graph::Node> read_tools_node(const YamlNode& node,
                                                       const std::string& path);
    std::shared_ptr<const graph::Node> read_lua_node(const YamlNode& node, const std::string& path);
    std::shared_ptr<const graph::Node> read_native_node(const YamlNode& node,
                                                        const std::string& path);
    void read_interrupt(const YamlNode& node, const std::string& path);
    void place_interrupts();
    void read_policies(const YamlNode& node, const std::string& path, graph::NodeSpec& spec);
    void read_retry(const YamlNode& retry, const std::string& path, graph::RetryPolicy& policy);
    std::optional<ToolSelection> select_tools(const YamlNode* selection,
                                              const std::string& path,
                                              bool all_by_default);
    [[nodiscard]] bool may_be_tool(const std::string& name) const;

    // ---- reader_values.cpp: single values, with a problem for what does not fit
    void complain(int line, const std::string& path, std::string_view text);
    bool is_map(const YamlNode& node, const std::string& path);
    void check_keys(const YamlNode& map, const std::string& path, Keys known);
    const YamlNode* need(const YamlNode& map, const std::string& path, std::string_view key);
    std::optional<std::string> read_text(const YamlNode* node, const std::string& path);
    std::optional<std::int64_t> read_integer(const YamlNode& node,
                                             const std::string& path,
                                             std::int64_t least,
                                             std::int64_t most);
    std::optional<double> read_number(const YamlNode& node,
                                      const std::string& path,
                                      double least,
                                      double most);
    std::optional<base::Duration> read_duration(const YamlNode& node, const std::string& path);
    std::vector<std::string> read_names(const YamlNode* node, const std::string& path);
    /// The text of a file beside the agent file, at most 1 MB; nothing outside the folder.
    std::optional<std::string> read_file(const YamlNode& node, const std::string& path);
    [[nodiscard]] bool has_node(std::string_view name) const;
    [[nodiscard]] std::string node_names() const;

    struct Interrupt {
        int line = 0;
        std::string path;
        std::vector<std::string> before;
    };

    const Factories& factories_;
    std::string file_;
    std::filesystem::path base_dir_;
    std::vector<Problem>& problems_;

    std::shared_ptr<graph::Graph> graph_ = std::make_shared<graph::Graph>();  // NOLINT: being built
    graph::Channels channels_;
    std::map<std::string, std::shared_ptr<models::ChatModel>> models_;  // NOLINT: ports are shared
    std::map<std::string, int> model_lines_;
    tools::ToolSet tools_;             ///< of all sources that know theirs
    tools::ToolSources open_sources_;  ///< whose tools are known only when they are loaded
    std::map<std::string, int> node_lines_;
    std::vector<std::string> tools_nodes_;
    std::vector<Interrupt> interrupts_;
};

}  // namespace heddle::nodes
