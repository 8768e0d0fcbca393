#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace heddle::observe {

/// The engine's counters and gauges, one instance per process, owned by app and borrowed by the
/// layers. Every member may be used from any OS thread. Names follow Prometheus' conventions.
struct Metrics {
    std::atomic<std::int64_t> threads_owned{0};
    std::atomic<std::int64_t> threads_bytes{0};  ///< what those in memory hold, as text
    std::atomic<std::int64_t> runs_running{0};
    std::atomic<std::int64_t> runs_waiting{0};
    std::atomic<std::int64_t> runs_open_bytes{0};  ///< what those that have not ended came with
    std::atomic<std::int64_t> streams_open{0};
    std::atomic<std::int64_t> runs_accepted_total{0};
    std::atomic<std::int64_t> runs_succeeded_total{0};
    std::atomic<std::int64_t> runs_failed_total{0};
    std::atomic<std::int64_t> runs_recovered_total{0};
    std::atomic<std::int64_t> threads_expired_total{0};
    std::atomic<std::int64_t> checkpoints_pruned_total{0};
    std::atomic<std::int64_t> supersteps_total{0};
    std::atomic<std::int64_t> stale_writes_total{0};
    std::atomic<std::int64_t> frames_dropped_total{
        0};  ///< garbage or unknown on the engine's socket
    std::atomic<std::int64_t> model_calls_total{0};
    std::atomic<std::int64_t> model_retries_total{0};
    std::atomic<std::int64_t> tokens_in_total{0};
    std::atomic<std::int64_t> tokens_out_total{0};
    std::atomic<std::int64_t> tool_calls_total{0};
    std::atomic<std::int64_t> tool_calls_reused_total{
        0};  ///< answers taken from the ledger instead of a call
    std::atomic<std::int64_t> tool_calls_unknown_total{
        0};  ///< found in the ledger without an answer
    std::atomic<std::int64_t> store_batches_total{0};
    std::atomic<std::int64_t> store_rows_total{0};

    /// Prometheus text exposition format 0.0.4.
    [[nodiscard]] std::string to_prometheus() const;
};

}  // namespace heddle::observe
