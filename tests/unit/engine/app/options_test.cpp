#include "engine/app/options.hpp"

#include <cstdio>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/uuid.hpp"

namespace heddle::app {
namespace {

std::variant<Options, Exit> read(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "heddle-engine");
    return read_options(static_cast<int>(arguments.size()), arguments.data());
}

class ConfigFile {
public:
    explicit ConfigFile(const std::string& text)
        : path{testing::TempDir() + "heddle-" + base::make_uuid_v7().to_string() + ".yaml"} {
        std::ofstream{path} << text;
    }
    ~ConfigFile() { std::remove(path.c_str()); }
    ConfigFile(const ConfigFile&) = delete;
    ConfigFile& operator=(const ConfigFile&) = delete;

    const std::string path;
};

std::string problem_of(const ConfigFile& file) {
    const auto result = read({"--config", file.path.c_str()});
    const auto* exit = std::get_if<Exit>(&result);
    if (exit == nullptr) {
        return "none";
    }
    EXPECT_EQ(exit->code, 2);
    return exit->text;
}

TEST(Options, AreReadFromTheCommandLine) {
    const auto result =
        read({"--listen", "ipc:///run/engine-7.sock", "--store", "memory:", "--agents", "agents"});
    const auto& options = std::get<Options>(result);
    EXPECT_EQ(options.listen, "ipc:///run/engine-7.sock");
    EXPECT_EQ(options.name, "engine-7") << "for want of a better one";
    EXPECT_EQ(options.shards, 2U);
    EXPECT_EQ(options.drain_seconds, 3U);
    EXPECT_EQ(options.lease_ms, 2'000U);
    EXPECT_EQ(options.attempts_max, 3);
    EXPECT_EQ(options.idempotency_key_seconds, 86'400U);
    EXPECT_EQ(options.thread_ttl_minutes, 0U) << "nothing goes by itself";
    EXPECT_EQ(options.checkpoints_kept, 0U);
}

TEST(Options, OfRetentionAreReadAndBounded) {
    const ConfigFile file{
        "listen: ipc:///a\nstore: 'memory:'\nagents: b\nattempts-max: 5\n"
        "idempotency-key-seconds: 3600\nstateless-result-seconds: 30\nthread-ttl-minutes: 60\n"
        "thread-ttl-strategy: keep_latest\ncheckpoints-kept: 100\nsweep-seconds: 60\n"};
    const auto result = read({"--config", file.path.c_str()});
    const auto& options = std::get<Options>(result);
    EXPECT_EQ(options.attempts_max, 5);
    EXPECT_EQ(options.idempotency_key_seconds, 3'600U);
    EXPECT_EQ(options.stateless_result_seconds, 30U);
    EXPECT_EQ(options.thread_ttl_minutes, 60U);
    EXPECT_EQ(options.thread_ttl_strategy, "keep_latest");
    EXPECT_EQ(options.checkpoints_kept, 100U);
    EXPECT_EQ(options.sweep_seconds, 60U);
    for (const auto* wrong :
         {"attempts-max: 0\n", "idempotency-key-seconds: 0\n", "thread-ttl-strategy: archive\n",
          "checkpoints-kept: -1\n", "sweep-seconds: 0\n", "thread-ttl-minutes: 99999999\n"}) {
        EXPECT_NE(problem_of(ConfigFile{wrong}).find(":1: "), std::string::npos) << wrong;
    }
}

TEST(Options, OfMemoryAreReadAndBounded) {
    const ConfigFile file{
        "listen: ipc:///a\nstore: 'memory:'\nagents: b\nrun-log-bytes-max: 65536\n"
        "active-logs-bytes-max: 1048576\nended-runs-bytes-max: 0\nended-run-seconds: 5\n"
        "open-runs-bytes-max: 2097152\nthreads-bytes-max: 3145728\n"};
    const auto result = read({"--config", file.path.c_str()});
    const auto& options = std::get<Options>(result);
    EXPECT_EQ(options.run_log_bytes_max, 65'536U);
    EXPECT_EQ(options.active_logs_bytes_max, 1U << 20U);
    EXPECT_EQ(options.ended_runs_bytes_max, 0U);
    EXPECT_EQ(options.open_runs_bytes_max, 2U << 20U);
    EXPECT_EQ(options.threads_bytes_max, 3U << 20U);
    EXPECT_EQ(options.ended_run_seconds, 5U);
    for (const auto* wrong :
         {"run-log-bytes-max: 0\n", "active-logs-bytes-max: 8M\n", "ended-runs-bytes-max: -1\n",
          "ended-run-seconds: 0\n", "open-runs-bytes-max: 0\n", "threads-bytes-max: -1\n"}) {
        EXPECT_NE(problem_of(ConfigFile{wrong}).find(":1: "), std::string::npos) << wrong;
    }
}

TEST(Options, OfTheCommandLineWinOverTheFile) {
    const ConfigFile file{
        "listen: ipc:///a\nstore: 'memory:'\nagents: b\nshards: 4\nlog_level: warn\nname: c\n"};
    const auto result = read({"--config", file.path.c_str(), "--shards", "8"});
    const auto& options = std::get<Options>(result);
    EXPECT_EQ(options.shards, 8U);
    EXPECT_EQ(options.log_level, "warn");
    EXPECT_EQ(options.name, "c");
}

TEST(Options, NameWhatIsMissing) {
    const auto result = read({"--store", "memory:"});
    const auto& exit = std::get<Exit>(result);
    EXPECT_EQ(exit.code, 2);
    EXPECT_NE(exit.text.find("missing: --listen, --agents"), std::string::npos) << exit.text;
}

TEST(Options, NameTheLineOfTheFileThatIsWrong) {
    EXPECT_NE(
        problem_of(ConfigFile{"store: 'memory:'\nshard: 4\n"}).find(":2: shard is not an option"),
        std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"shards: many\n"}).find(":1: "), std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"shards: 0\n"}).find(":1: "), std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"lease-ms: 499\n"}).find(":1: "), std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"log-level: loud\n"}).find(":1: "), std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"shards: [1]\n"}).find(":1: shards must be one value"),
              std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"[1, 2]\n"}).find("must be a map"), std::string::npos);
    EXPECT_NE(problem_of(ConfigFile{"a: [\n"}).find("heddle-"), std::string::npos);
    const auto missing = read({"--config", "/nowhere/engine.yaml"});
    EXPECT_NE(std::get<Exit>(missing).text.find("/nowhere/engine.yaml"), std::string::npos);
}

TEST(Options, RefuseValuesOutOfRange) {
    for (const auto* value : {"0", "257", "-1", "x"}) {
        const auto result = read({"--shards", value});
        EXPECT_EQ(std::get<Exit>(result).code, 2) << value;
    }
    const auto unknown = read({"--shrads", "2"});
    EXPECT_EQ(std::get<Exit>(unknown).code, 2);
}

TEST(Options, HelpIsNoError) {
    const auto result = read({"--help"});
    const auto& exit = std::get<Exit>(result);
    EXPECT_EQ(exit.code, 0);
    EXPECT_NE(exit.text.find("Exit codes"), std::string::npos);
}

}  // namespace
}  // namespace heddle::app
