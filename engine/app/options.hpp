#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

namespace heddle::app {

/// What heddle-engine was asked to do: command line over --config file over defaults.
struct Options {
    std::string listen;     ///< ipc:///path or tcp://address:port
    std::string advertise;  ///< as edges of other machines reach `listen`; empty: the same
    std::string store;      ///< memory:, sqlite:/path, postgres://...
    std::string agents;     ///< folder with NAME/agent.yaml
    std::string name;       ///< in logs and /info; default: from `listen`
    std::string log_level = "info";
    std::size_t shards = 2;
    std::size_t request_body_bytes_max = 32U << 20U;
    std::size_t open_requests_max = 20'000;
    std::uint32_t drain_seconds = 3;  ///< for supersteps to end after SIGTERM
    std::uint32_t lease_ms = 2'000;   ///< silent for longer, an engine loses its threads
    std::int32_t attempts_max = 3;    ///< how often engines may start one run
    /// What all runs that have not ended came with, per shard.
    std::size_t open_runs_bytes_max = 256U << 20U;
    /// What the threads in memory hold, per shard.
    std::size_t threads_bytes_max = 256U << 20U;
    // ---- events of runs in memory, for streams
    std::size_t run_log_bytes_max = 8U << 20U;        ///< of one run
    std::size_t active_logs_bytes_max = 256U << 20U;  ///< of all that have not ended, per shard
    std::size_t ended_runs_bytes_max = 64U << 20U;    ///< of those that have ended, per shard
    std::uint32_t ended_run_seconds = 60;             ///< from a run's end on
    // ---- retention
    std::uint32_t idempotency_key_seconds = 86'400;  ///< from a key's first request on
    std::uint32_t stateless_result_seconds = 60;     ///< after the end of a run without a thread
    std::uint32_t thread_ttl_minutes = 0;            ///< of threads made without one; 0: none
    std::string thread_ttl_strategy = "delete";      ///< or keep_latest
    std::uint32_t checkpoints_kept = 0;              ///< of a thread, the newest; 0: all
    std::uint32_t sweep_seconds = 5;                 ///< between two looks for what has expired
};

/// The process is to end now, with this text on stderr (stdout for --help) and this code.
struct Exit {
    int code = 0;
    std::string text;
};

/// Never throws. Every problem of the file and the command line names the option.
std::variant<Options, Exit> read_options(int argc, const char* const* argv);

}  // namespace heddle::app
