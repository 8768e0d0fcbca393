#include "engine/nodes/agent_loader.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/unit/engine/graph/support.hpp"
#include "tests/unit/engine/nodes/support.hpp"

namespace heddle::nodes::test {
namespace {

namespace fs = std::filesystem;

struct LoaderTest : ::testing::Test {
    LoaderTest() {
        std::string pattern = (fs::temp_directory_path() / "heddle-agents-XXXXXX").string();
        folder = ::mkdtemp(pattern.data());
    }
    ~LoaderTest() override {
        std::error_code ignored;
        fs::remove_all(folder, ignored);
    }
    void write(const std::string& name, const std::string& text) {
        fs::create_directories((folder / name).parent_path());
        std::ofstream{folder / name} << text;
    }
    LoadedAgents load(const std::string& text) {
        write("one/agent.yaml", text);
        return load_agents(folder, factories(), variables);
    }
    /// "line: text" of every problem.
    std::vector<std::string> problems(const std::string& text) {
        std::vector<std::string> found;
        for (const auto& problem : load(text).problems) {
            found.push_back(std::to_string(problem.line) + ": " + problem.text);
        }
        return found;
    }
    [[nodiscard]] Factories factories() const {
        tools::ToolSet tools{
            std::make_shared<FakeTool>("cancel_appointment", tools::ToolAnswer{"done"}),
            std::make_shared<FakeTool>("get_hours", tools::ToolAnswer{"9 to 5"})};
        return fake_factories(std::make_shared<FakeModel>(), std::move(tools));
    }

    fs::path folder;
    std::map<std::string, std::string> variables;
};

constexpr const char* kFull = R"(agent: clinic
description: Books.
models:
  main: {provider: "${PROVIDER:-auto}", temperature: 0, fake: {model: m}, other: {key: x}}
state:
  messages: {reducer: add_messages}
  language: {type: string}
tools:
  - {http: tools.yaml, base_url: "http://x"}
nodes:
  assistant: {kind: model, model: main, system: prompts/system.md, tools: all}
  act:       {kind: tools, timeout: 5s, retry: {attempts: 3, first_wait: 10ms}}
  confirm:   {kind: interrupt, before: [cancel_appointment]}
edges:
  - {from: START, to: assistant}
  - {from: assistant, to: act, when: "last(messages).tool_calls"}
  - {from: act, to: assistant}
)";

TEST_F(LoaderTest, ReadsTheWholeExample) {
    write("one/prompts/system.md", "You speak {{language}}.");
    const auto loaded = load(kFull);
    for (const auto& problem : loaded.problems) {
        ADD_FAILURE() << problem.to_string();
    }
    ASSERT_EQ(loaded.graphs.size(), 1U);
    const auto& graph = *loaded.graphs[0];
    EXPECT_EQ(graph.name, "clinic");
    EXPECT_EQ(graph.nodes.size(), 2U);
    EXPECT_EQ(graph.nodes[1].timeout, std::chrono::seconds{5});
    EXPECT_EQ(graph.nodes[1].retry.attempts_max, 3);
    EXPECT_EQ(graph.edges[0].from, "__start__");
    ASSERT_EQ(graph.interrupt_when.size(), 1U);
    EXPECT_EQ(graph.interrupt_when[0].node, "act");
    EXPECT_EQ(graph.channels->at(1).type, "string");
}

TEST_F(LoaderTest, LoadsTheAgentsOfTheRepository) {
    for (const std::string name : {"echo", "chain5"}) {
        const auto loaded = load_agent(fs::path{HEDDLE_SOURCE_DIR} / "agents" / name / "agent.yaml",
                                       factories(), {});
        for (const auto& problem : loaded.problems) {
            ADD_FAILURE() << problem.to_string();
        }
        ASSERT_EQ(loaded.graphs.size(), 1U);
        graph::Position position{loaded.graphs[0]->channels};
        graph::test::RecordingHost host;
        const auto result = graph::test::run_to_end(
            graph::run_graph(*loaded.graphs[0], graph::test::make_spec(Json{{"messages", "hello"}}),
                             position, host));
        EXPECT_EQ(result.status, storage::RunStatus::success);
        const auto& messages = *position.state.find_list("messages");
        EXPECT_EQ(messages.size(), name == "echo" ? 2U : 6U);
        EXPECT_EQ(messages.back().json()["content"],
                  name == "echo" ? std::string{"hello"} : std::string(200, 'x'));
    }
}

TEST_F(LoaderTest, GivesEachProviderItsOwnSettings) {
    std::map<std::string, Json> given;
    auto drivers = factories();
    for (const std::string name : {"openai", "scripted"}) {
        drivers.models[name] =
            [&given, name](const Json& settings,
                           const fs::path&) -> base::Result<std::shared_ptr<models::ChatModel>> {
            given[name] = settings;
            return std::shared_ptr<models::ChatModel>{std::make_shared<FakeModel>()};
        };
    }
    drivers.tools["http"] =
        [](const Json& settings,
           const fs::path& base_dir) -> base::Result<std::shared_ptr<tools::ToolSource>> {
        EXPECT_TRUE(fs::exists(base_dir / settings["http"].get<std::string>()));
        EXPECT_EQ(settings["base_url"], "http://127.0.0.1:8090");
        return tools::make_static_source(
            {std::make_shared<FakeTool>("get_hours", tools::ToolAnswer{"9"})});
    };
    const auto file = fs::path{HEDDLE_SOURCE_DIR} / "agents/appointment/agent.yaml";
    for (const std::string provider : {"openai", "scripted"}) {
        drivers.auto_provider = provider;
        const auto loaded = load_agent(file, drivers, {});
        for (const auto& problem : loaded.problems) {
            ADD_FAILURE() << problem.to_string();
        }
        ASSERT_EQ(loaded.graphs.size(), 1U);
        EXPECT_EQ(loaded.graphs[0]->name, "appointment");
    }
    EXPECT_EQ(given["openai"],
              (Json{{"model", "gpt-4o-mini"}, {"temperature", 0}, {"timeout", 60}}));
    EXPECT_EQ(given["scripted"], (Json{{"script", "scripted.yaml"}}));
}

TEST_F(LoaderTest, NamesEveryProblemWithItsLine) {
    const auto found = problems(R"(agent: "bad name"
colour: red
models:
  main: {provider: unheard}
  odd: {provider: fake, size: 3}
state:
  messages: {reducer: concat}
  count: {type: integer, default: many}
  string: {}
tools:
  - {smtp: x}
  - {http: missing.yaml}
  - {command: [npx, server]}
nodes:
  a: {kind: model, model: main, system: none.md, tools: [nothing]}
  b: {kind: magic}
  c: {kind: lua, code: "return +"}
  d: {kind: native, class: echo, speed: 9}
  e: {kind: tools, on_error: panic, retry: {attempts: 0}, timeout: soon}
  f: {kind: model, model: nobody}
  g: {kind: agent}
  h: {kind: interrupt, before: [zzz]}
  i: {kind: lua, script: ../../etc/passwd}
edges:
  - {from: START, to: a}
  - {from: a, to: zz}
  - {from: a, to: b, when: "1 +"}
  - {form: a, to: b}
)");
    const std::vector<std::string> expected{
        "1: agent: a name has",
        "2: colour: unknown key; expected one of agent, description",
        "4: models.main.provider: unknown provider \"unheard\"; expected one of auto, fake, other",
        "5: models.odd.size: unknown setting",
        "7: state.messages.reducer: unknown reducer \"concat\"",
        "8: state.count.default: input.count: expected integer, got string",
        "9: state.string: a channel's name",
        "11: tools[0]: expected a key that says what kind of tools these are: http",
        "12: tools[1].http: no such file",
        "13: tools[2].command: stdio is not supported; expected mcp: the URL of a server",
        "15: nodes.a.system: there is no readable file",
        "15: nodes.a.tools: there is no tool \"nothing\"",
        "16: nodes.b.kind: unknown kind \"magic\"",
        "17: nodes.c: code:1: unexpected symbol near '+'",
        "18: nodes.d.speed: unknown key",
        "19: nodes.e.on_error: expected message or fail",
        "19: nodes.e.timeout: expected a time",
        "19: nodes.e.retry.attempts: expected an integer from 1 to 20",
        "20: nodes.f.model: there is no model \"nobody\"",
        "21: nodes.g.kind: \"agent\" is not supported yet",
        "22: nodes.h.before: \"zzz\" is neither a node nor a tool",
        "23: nodes.i.script: expected a file inside the agent's folder",
        "26: edges[1].to: there is no node \"zz\"; expected END or one of a, b, c",
        "27: edges[2].when: when:2: unexpected symbol",
        "28: edges[3].form: unknown key",
        "28: edges[3]: \"from\" is missing"};
    for (const auto& wanted : expected) {
        const bool there = std::any_of(found.begin(), found.end(), [&](const auto& problem) {
            return problem.starts_with(wanted);
        });
        EXPECT_TRUE(there) << wanted;
    }
    if (HasFailure()) {
        for (const auto& problem : found) {
            std::cerr << problem << '\n';
        }
    }
}

constexpr const char* kMcp = R"(agent: remote
models:
  main: {provider: fake}
tools:
  - {http: tools.yaml}
  - {mcp: "http://x/mcp"}
nodes:
  assistant: {kind: model, model: main, tools: [get_hours, book]}
  act:       {kind: tools, tools: CHOICE}
  confirm:   {kind: interrupt, before: [book]}
edges:
  - {from: START, to: assistant}
  - {from: assistant, to: act}
)";

TEST_F(LoaderTest, ANameThatNoFileKnowsMayBeAServers) {
    auto drivers = factories();
    const auto server = std::make_shared<FakeSource>();
    drivers.tools["mcp"] =
        [&](const Json&, const fs::path&) -> base::Result<std::shared_ptr<tools::ToolSource>> {
        return {server};
    };
    const auto load_with = [&](const std::string& choice) {
        std::string text{kMcp};
        text.replace(text.find("CHOICE"), 6, choice);
        write("one/agent.yaml", text);
        return load_agents(folder, drivers, variables);
    };
    const auto loaded = load_with("[book]");
    for (const auto& problem : loaded.problems) {
        ADD_FAILURE() << problem.to_string();
    }
    ASSERT_EQ(loaded.graphs.size(), 1U);
    EXPECT_EQ(loaded.graphs[0]->interrupt_when.size(), 1U);
    EXPECT_EQ(server->loads, 0) << "nothing is asked before anything runs";
    const auto refused = load_with("[\"no name\"]");
    ASSERT_EQ(refused.problems.size(), 1U);
    EXPECT_EQ(refused.problems[0].text, "nodes.act.tools: there is no tool \"no name\"");
}

TEST_F(LoaderTest, NamesUnreachableNodesAndMissingStart) {
    EXPECT_EQ(problems("agent: a\nnodes:\n  x: {kind: native, class: echo}\n"
                       "  y: {kind: native, class: echo}\nedges:\n  - {from: START, to: x}\n"),
              (std::vector<std::string>{"4: nodes.y: no path of edges leads here from START"}));
    EXPECT_EQ(problems("agent: a\nnodes:\n  x: {kind: native, class: echo}\nedges:\n"
                       "  - {from: x, to: END}\n"),
              (std::vector<std::string>{"5: edges: no edge leads out of START"}));
}

TEST_F(LoaderTest, RefusesRepeatedKeysAndBrokenYaml) {
    const auto repeated = problems("agent: a\nagent: b\nnodes: {}\nedges: []\n");
    EXPECT_EQ(repeated[0], "2: the key \"agent\" is repeated, it was given on line 1");
    const auto broken = problems("agent: a\nnodes: {x: [}\n");
    ASSERT_EQ(broken.size(), 1U);
    EXPECT_TRUE(broken[0].starts_with("2: not YAML")) << broken[0];
    EXPECT_FALSE(problems("").empty());
    EXPECT_FALSE(problems("- a\n- b\n").empty());
}

TEST_F(LoaderTest, BoundsAliasBombsAndDepth) {
    std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
    for (int i = 1; i < 9; ++i) {
        const auto last = "*a" + std::to_string(i - 1);
        bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
        for (int j = 0; j < 9; ++j) {
            bomb += "," + last;
        }
        bomb += "]\n";
    }
    EXPECT_FALSE(problems(bomb).empty());
    EXPECT_FALSE(problems("agent: " + std::string(500, '[') + std::string(500, ']')).empty());
}

TEST_F(LoaderTest, ExpandsVariables) {
    variables = {{"NAME", "from_env"}, {"EMPTY", ""}};
    auto loaded = load(
        "agent: \"${NAME}\"\ndescription: \"${EMPTY:-none} $${x} $5\"\n"
        "nodes:\n  x:\n    kind: native\n    class: append\n    bytes: ${SIZE:-12}\n"
        "edges:\n  - {from: START, to: x}\n");
    for (const auto& problem : loaded.problems) {
        ADD_FAILURE() << problem.to_string();
    }
    ASSERT_EQ(loaded.graphs.size(), 1U);
    EXPECT_EQ(loaded.graphs[0]->name, "from_env");
    EXPECT_EQ(loaded.graphs[0]->description, "none ${x} $5");
    EXPECT_EQ(problems("agent: ${MISSING}\nnodes: {}\nedges: []\n")[0],
              "1: the environment variable MISSING is not set; set it or write "
              "${MISSING:-default}");
}

TEST_F(LoaderTest, RefusesTwoAgentsOfOneNameAndAnEmptyFolder) {
    const std::string text =
        "agent: a\nnodes:\n  x: {kind: native, class: echo}\nedges:\n  - {from: START, to: x}\n";
    write("two/agent.yaml", text);
    EXPECT_EQ(problems(text), (std::vector<std::string>{"0: two agents are named \"a\""}));
    EXPECT_FALSE(load_agents(folder / "nowhere", factories(), {}).problems.empty());
}

}  // namespace
}  // namespace heddle::nodes::test
