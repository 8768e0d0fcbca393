#pragma once

#include "engine/base/result.hpp"
#include "engine/storage/postgres/connection.hpp"

namespace heddle::storage::postgres {

/// Connects once as every connection will, and logs what the server is and which of its settings
/// put at risk what we report as done (`./heddle doctor` explains them).
/// @return unavailable if that is not possible
base::Status inspect_server(const Endpoint& endpoint);

}  // namespace heddle::storage::postgres
