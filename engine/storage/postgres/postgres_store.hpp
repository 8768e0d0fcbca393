#pragma once

#include <memory>
#include <string_view>

#include "engine/base/result.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/storage/store.hpp"

/// The store for production and for engines on several hosts (ADR 0003).
namespace heddle::storage {

/// Connects and brings the schema `heddle` of the database up to date; several engines may start at
/// once. Keeps seven connections: one for writes, one for claims, four for reading and one for
/// leases; one more migrates for a moment. A pooler in between is noticed and allowed for; without
/// one statements are prepared, which is faster.
/// @param url  "postgres://user:password@host/database?..." as libpq reads it; of several hosts the
///             one that takes writes is used, also after a failover. Times of threads come from
///             this host, leases from the database's clock
/// @return unavailable if the server cannot be reached or refuses us; the log says why.
///         `metrics` must outlive the store
base::Result<std::unique_ptr<Store>> open_postgres_store(std::string_view url,
                                                         const StoreLimits& limits,
                                                         observe::Metrics& metrics);

}  // namespace heddle::storage
