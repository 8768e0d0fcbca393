#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/api/http.hpp"
#include "engine/scheduler/catalog.hpp"
#include "engine/scheduler/run.hpp"

namespace heddle::api {

/// RunCreate, validated. What the body says about the run is in `run`; what it says about this one
/// response is beside it.
struct RunBody {
    scheduler::RunRequest run;  ///< without thread_id, kwargs and request_hash
    bool cancel_on_disconnect = false;
    bool names_modes = false;  ///< stream_mode was given
    /// Its Idempotency-Key stands for a thread of another shard: nothing was done.
    std::optional<base::ThreadId> elsewhere;
};

/// Reads the body of POST .../runs, .../runs/wait and .../runs/stream.
/// @param stateless  no thread in the path: the thread is made and, by default, deleted with the
/// run
/// @param run  the id it gets, see graph::prepare_input()
/// @return bad_request, invalid_argument, unsupported (each naming the field), not_found (the
///         assistant)
base::Result<RunBody> read_run_body(std::string_view body,
                                    bool stateless,
                                    const base::RunId& run,
                                    const scheduler::Catalog& catalog);

/// Modes by name, each checked. @return invalid_argument or unsupported naming `field`
base::Result<std::vector<graph::StreamMode>> read_stream_modes(
    const std::vector<std::string>& names, std::string_view field);

}  // namespace heddle::api
