#include "engine/observe/metrics.hpp"

#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace heddle::observe {

std::string Metrics::to_prometheus() const {
    using Row = std::pair<std::string_view, const std::atomic<std::int64_t>*>;
    const std::array rows{
        Row{"heddle_scheduler_threads_owned", &threads_owned},
        Row{"heddle_scheduler_threads_bytes", &threads_bytes},
        Row{"heddle_scheduler_runs_running", &runs_running},
        Row{"heddle_scheduler_runs_waiting", &runs_waiting},
        Row{"heddle_scheduler_runs_open_bytes", &runs_open_bytes},
        Row{"heddle_transport_streams_open", &streams_open},
        Row{"heddle_scheduler_runs_accepted_total", &runs_accepted_total},
        Row{"heddle_scheduler_runs_succeeded_total", &runs_succeeded_total},
        Row{"heddle_scheduler_runs_failed_total", &runs_failed_total},
        Row{"heddle_scheduler_runs_recovered_total", &runs_recovered_total},
        Row{"heddle_scheduler_threads_expired_total", &threads_expired_total},
        Row{"heddle_scheduler_checkpoints_pruned_total", &checkpoints_pruned_total},
        Row{"heddle_graph_supersteps_total", &supersteps_total},
        Row{"heddle_storage_stale_writes_total", &stale_writes_total},
        Row{"heddle_transport_frames_dropped_total", &frames_dropped_total},
        Row{"heddle_models_calls_total", &model_calls_total},
        Row{"heddle_models_retries_total", &model_retries_total},
        Row{"heddle_models_tokens_in_total", &tokens_in_total},
        Row{"heddle_models_tokens_out_total", &tokens_out_total},
        Row{"heddle_tools_calls_total", &tool_calls_total},
        Row{"heddle_tools_calls_reused_total", &tool_calls_reused_total},
        Row{"heddle_tools_calls_unknown_total", &tool_calls_unknown_total},
        Row{"heddle_storage_batches_total", &store_batches_total},
        Row{"heddle_storage_rows_total", &store_rows_total},
    };
    std::string text;
    for (const auto& [name, value] : rows) {
        const auto* type = name.ends_with("_total") ? "counter" : "gauge";
        text += fmt::format("# TYPE {} {}\n{} {}\n", name, type, name,
                            value->load(std::memory_order_relaxed));
    }
    return text;
}

}  // namespace heddle::observe
