#pragma once

#include "engine/base/result.hpp"
#include "engine/storage/postgres/connection.hpp"

namespace heddle::storage::postgres {

/// Brings the schema `heddle` to the version of this program, each step in a transaction; engines
/// that start together do it one after another (advisory lock).
/// @return unavailable if the server cannot be reached, refuses us, or holds a newer schema
base::Status migrate(const Endpoint& endpoint);

}  // namespace heddle::storage::postgres
