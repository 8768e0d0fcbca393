#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/scheduler/catalog.hpp"
#include "engine/scheduler/run.hpp"
#include "engine/scheduler/scheduler.hpp"
#include "engine/storage/store.hpp"

/// The API's objects as compact JSON text. States are spliced in as text, never parsed. Free
/// functions, any OS thread.
namespace heddle::api {

/// Which members a search or list wants; empty: all.
using Select = std::vector<std::string>;

std::string assistant_json(const scheduler::Assistant& assistant, const Select& select = {});
std::string assistant_graph_json(const graph::Graph& graph);
std::string assistant_schemas_json(const graph::Graph& graph);

/// @param values    text of the thread's state; nullopt: it has none (shown as null)
/// @param with_ttl  member `ttl` as well, null if it has none
std::string thread_json(const storage::ThreadRow& thread,
                        const std::optional<std::string>& values,
                        const Select& select = {},
                        bool with_ttl = false);
/// @param state  nullopt: a thread without a checkpoint
std::string state_json(const base::ThreadId& thread,
                       const std::optional<scheduler::StateAt>& state);
std::string run_json(const storage::RunRow& run, const Select& select = {});

/// The values of a finished run, with "__interrupt__" if it stopped at a breakpoint or an
/// interrupt.
std::string outcome_values(const scheduler::RunOutcome& outcome);
/// {"error", "message"} as LangGraph names failures ("GraphRecursionError").
std::string failure_json(const base::Error& error);
/// The same from RunRow::error, which spells the code as ErrorTraits::wire_name.
std::string stored_failure_json(const std::string& stored);
/// Whether a run that ended so is reported as failed.
bool is_failure(const scheduler::RunOutcome& outcome) noexcept;

/// Joins texts to "[a,b]".
std::string json_list(const std::vector<std::string>& items);

}  // namespace heddle::api
