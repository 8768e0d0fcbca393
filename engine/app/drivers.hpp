#pragma once

#include <memory>
#include <string>

#include "engine/base/result.hpp"
#include "engine/models/retry_budget.hpp"
#include "engine/net/http_client.hpp"
#include "engine/nodes/agent_loader.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/storage/store.hpp"

/// The only place that knows the drivers by name.
namespace heddle::app {

/// @param url  memory:, sqlite:/path, postgres://... or postgresql://...
/// @return invalid_argument  no such kind of store, or a path or URL that cannot be right
///         unavailable       it cannot be opened now
base::Result<std::unique_ptr<storage::Store>> open_store(const std::string& url,
                                                         const storage::StoreLimits& limits,
                                                         observe::Metrics& metrics);

/// Factories by the names of agent files. `auto` is openai if OPENAI_API_KEY or OPENAI_BASE_URL is
/// set, else scripted. All three are borrowed by the models and tools that are made.
nodes::Factories make_factories(net::HttpClient& http,
                                models::RetryBudget& retries,
                                observe::Metrics& metrics);

}  // namespace heddle::app
