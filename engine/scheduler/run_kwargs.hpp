#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/base/result.hpp"
#include "engine/scheduler/catalog.hpp"
#include "engine/scheduler/run.hpp"

/// What a run's row must hold so that any engine can execute the run again, in the form that the
/// API shows as Run.kwargs (LangGraph's keys where it has them):
///
///     {"input": {...},                  absent: go on from where the thread stands
///      "command": {"resume": ...},      absent: nothing is answered
///      "config": {"recursion_limit": 25, "configurable": {...}},
///      "stream_mode": ["values"],       what is logged
///      "interrupt_before": [...], "interrupt_after": [...],
///      "durability": "async",
///      "stream_resumable": true,        absent: false
///      "temporary": false,              the thread goes with the run (stateless, on_completion)
///      "time_max_ms": 900000}
///
/// Everything else of a RunRequest is in the row's own columns. Free functions, any OS thread.
namespace heddle::scheduler {

/// As spelled in the HTTP API ("messages-tuple"). Static storage.
std::string_view to_string(graph::StreamMode mode) noexcept;
std::string_view to_string(MultitaskStrategy strategy) noexcept;
std::string_view to_string(Durability durability) noexcept;
std::optional<graph::StreamMode> parse_stream_mode(std::string_view name) noexcept;
std::optional<MultitaskStrategy> parse_multitask_strategy(std::string_view name) noexcept;
std::optional<Durability> parse_durability(std::string_view name) noexcept;

/// @return compact JSON text for RunRequest::kwargs and RunRow::kwargs; O(input)
std::string encode_kwargs(const RunRequest& request);

/// The JSON of the request that made `row`: input, resume, configurable and metadata; the rest of
/// `request` stays as it is.
/// @return internal  kwargs or metadata are broken
base::Status read_json(const storage::RunRow& row, RunRequest& request);

/// The request that made `row`, for recovery: create_thread is false, maybe_repeated is true.
/// @return not_found  the row's assistant is not served by this engine
///         internal   kwargs or metadata are broken
base::Result<RunRequest> decode_run(const storage::RunRow& row, const Catalog& catalog);

}  // namespace heddle::scheduler
