#pragma once

#include <memory>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/models/model.hpp"
#include "engine/models/retry_budget.hpp"
#include "engine/net/http_client.hpp"
#include "engine/observe/metrics.hpp"

namespace heddle::models {

/// A model behind any OpenAI-compatible POST {base_url}/chat/completions, streamed or not.
///
/// settings (the agent file's `models.NAME`, environment already expanded), all but model optional:
///   model            name sent to the provider
///   base_url         default $OPENAI_BASE_URL, else https://api.openai.com/v1
///   api_key_env      name of the environment variable with the key, default OPENAI_API_KEY; unset:
///                    no Authorization header (local servers)
///   temperature      0..2          max_tokens  1..1,000,000      top_p  0..1      seed  integer
///   timeout          seconds for one call with its retries, default 120 (the request's own
///   deadline
///                    counts if earlier)
///   connect_timeout  seconds, default 5          idle_timeout  seconds without a byte, default 60
///   retries_max      0..10, default 3            answer_bytes_max  default 8 MB
///   max_completion_tokens (in place of max_tokens, for models that refuse that one)
///   extra            {member: value} added to the request's body as it is
///   concurrency_max  calls at once, default 2048   waiting_max  default 8192
/// Retried, with exponential backoff, Retry-After and the budget: no connection, connection lost,
/// 408, 429 and 5xx. `http`, `retries` and `metrics` outlive the model.
/// @return invalid_argument with `field` for a setting that is unknown or out of range
// NOLINTNEXTLINE: shared by the nodes of many agents
base::Result<std::shared_ptr<ChatModel>>
make_openai_model(  // NOLINT: shared by nodes of many agents
    net::HttpClient& http,
    RetryBudget& retries,
    observe::Metrics& metrics,
    const base::Json& settings);

}  // namespace heddle::models
