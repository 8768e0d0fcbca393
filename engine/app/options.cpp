#include "engine/app/options.hpp"

#include <algorithm>
#include <map>
#include <sstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "engine/app/exit_codes.hpp"

namespace heddle::app {
namespace {

constexpr const char* kFooter =
    "\nThe --config file is YAML with the same names as keys (shards: 4); the command line wins."
    "\nExit codes: 0 drained after SIGTERM or SIGINT, 2 options, 3 agents, 4 store, 5 endpoint."
    "\nExample: heddle-engine --listen ipc:///run/heddle/engine-1.sock"
    " --store sqlite:/var/lib/heddle/heddle.db --agents /etc/heddle/agents\n";

using ByName = std::map<std::string, CLI::Option*>;

template <class Add>
void declare_retention(const Add& add, Options& to) {
    constexpr long kTenYears = 315'360'000;
    add("idempotency-key-seconds", to.idempotency_key_seconds,
        "How long an Idempotency-Key names its run")
        ->check(CLI::Range(1L, kTenYears));
    add("stateless-result-seconds", to.stateless_result_seconds,
        "How long a run without a thread can be asked for again after its end")
        ->check(CLI::Range(1L, 86'400L));
    add("thread-ttl-minutes", to.thread_ttl_minutes, "Of threads made without a ttl; 0: none")
        ->check(CLI::Range(0L, kTenYears / 60));
    add("thread-ttl-strategy", to.thread_ttl_strategy, "delete or keep_latest")
        ->check(CLI::IsMember({"delete", "keep_latest"}));
    add("checkpoints-kept", to.checkpoints_kept, "Newest checkpoints kept of a thread; 0: all")
        ->check(CLI::Range(0L, 1'000'000'000L));
    add("sweep-seconds", to.sweep_seconds, "Between two looks for what has expired")
        ->check(CLI::Range(1, 3600));
}

template <class Add>
void declare_memory(const Add& add, Options& to) {
    constexpr long kBytesMost = 1L << 40;
    add("run-log-bytes-max", to.run_log_bytes_max, "Events of one run kept in memory")
        ->check(CLI::Range(1024L, kBytesMost));
    add("open-runs-bytes-max", to.open_runs_bytes_max,
        "What all runs that have not ended came with, per shard; past it overloaded")
        ->check(CLI::Range(1024L, kBytesMost));
    add("threads-bytes-max", to.threads_bytes_max,
        "Conversations kept in memory, per shard; past it idle threads go, the least recently used "
        "first")
        ->check(CLI::Range(0L, kBytesMost));
    add("active-logs-bytes-max", to.active_logs_bytes_max,
        "Events kept of all runs that have not ended, per shard")
        ->check(CLI::Range(1024L, kBytesMost));
    add("ended-runs-bytes-max", to.ended_runs_bytes_max,
        "Runs that have ended kept in memory, per shard")
        ->check(CLI::Range(0L, kBytesMost));
    add("ended-run-seconds", to.ended_run_seconds, "How long they are kept there")
        ->check(CLI::Range(1, 86'400));
}

ByName declare(CLI::App& cli, Options& to) {
    ByName options;
    const auto add = [&](const char* name, auto& value, const char* help) {
        return options[name] = cli.add_option(std::string{"--"} + name, value, help);
    };
    add("listen", to.listen, "Endpoint for the edges: ipc:///path or tcp://address:port");
    add("advertise", to.advertise, "The same endpoint as other machines reach it");
    add("store", to.store, "memory: | sqlite:/path/file.db | postgres://user@host/database");
    add("agents", to.agents, "Folder that holds NAME/agent.yaml for each agent");
    add("name", to.name, "Name of this engine in logs and /info");
    add("log-level", to.log_level, "debug, info, warn or error")
        ->check(CLI::IsMember({"debug", "info", "warn", "error"}));
    add("shards", to.shards, "OS threads that run agents")->check(CLI::Range(1, 256));
    add("request-body-bytes-max", to.request_body_bytes_max, "Largest request body")
        ->check(CLI::Range(1024L, 1L << 30));
    add("open-requests-max", to.open_requests_max, "Requests answered at once")
        ->check(CLI::Range(1L, 1L << 20));
    add("drain-seconds", to.drain_seconds, "How long supersteps may go on after SIGTERM")
        ->check(CLI::Range(0, 3600));
    add("lease-ms", to.lease_ms, "An engine silent for longer loses its threads; the same for all")
        ->check(CLI::Range(500, 60'000));
    add("attempts-max", to.attempts_max, "How often engines may start one run")
        ->check(CLI::Range(1, 1000));
    declare_memory(add, to);
    declare_retention(add, to);
    return options;
}

// Fills in what the command line left open; empty text: all is well.
std::string apply_file(const std::string& path, const ByName& options) try {
    const auto file = YAML::LoadFile(path);
    if (file.IsNull()) {
        return {};
    }
    if (!file.IsMap()) {
        return fmt::format("{}: must be a map of option names to values", path);
    }
    for (const auto& entry : file) {
        const auto line = entry.first.Mark().line + 1;
        auto key = entry.first.as<std::string>();
        std::replace(key.begin(), key.end(), '_', '-');
        const auto at = options.find(key);
        if (at == options.end()) {
            std::vector<std::string> names;
            for (const auto& [name, option] : options) {
                names.push_back(name);
            }
            return fmt::format("{}:{}: {} is not an option; known are {}", path, line, key,
                               fmt::join(names, ", "));
        }
        if (!entry.second.IsScalar()) {
            return fmt::format("{}:{}: {} must be one value", path, line, key);
        }
        auto* option = at->second;
        if (option->count() > 0) {
            continue;
        }
        try {
            option->add_result(entry.second.as<std::string>());
            option->run_callback();
        } catch (const CLI::Error& error) {
            return fmt::format("{}:{}: {}", path, line, error.what());
        }
    }
    return {};
} catch (const YAML::Exception& error) {
    return fmt::format("{}: {}", path, error.what());
}

std::string check(const Options& options) {
    std::vector<std::string> missing;
    if (options.listen.empty()) {
        missing.emplace_back("--listen");
    }
    if (options.store.empty()) {
        missing.emplace_back("--store");
    }
    if (options.agents.empty()) {
        missing.emplace_back("--agents");
    }
    if (missing.empty()) {
        return {};
    }
    return fmt::format("missing: {}", fmt::join(missing, ", "));
}

std::string default_name(const std::string& listen) {
    auto name = listen.substr(listen.rfind('/') + 1);
    if (name.ends_with(".sock")) {
        name.resize(name.size() - 5);
    }
    return name.empty() ? "engine" : name;
}

}  // namespace

std::variant<Options, Exit> read_options(int argc, const char* const* argv) {
    Options options;
    CLI::App cli{"Heddle engine: runs agent threads and answers the edges (nginx workers).",
                 "heddle-engine"};
    cli.footer(kFooter);
    std::string config;
    cli.add_option("--config", config, "YAML file with these options");
    const auto by_name = declare(cli, options);
    try {
        cli.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        std::ostringstream text;
        const int code = cli.exit(error, text, text);
        return Exit{code == 0 ? 0 : kExitUsage, text.str()};
    }
    auto problem = config.empty() ? std::string{} : apply_file(config, by_name);
    if (problem.empty()) {
        problem = check(options);
    }
    if (!problem.empty()) {
        return Exit{kExitUsage,
                    fmt::format("heddle-engine: {}\nRun with --help for the options.\n", problem)};
    }
    if (options.name.empty()) {
        options.name = default_name(options.listen);
    }
    return options;
}

}  // namespace heddle::app
