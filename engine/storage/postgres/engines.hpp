#pragma once

#include "engine/storage/postgres/queries.hpp"

/// Leases. All of these may be repeated, so a lost connection only costs a reconnect.
namespace heddle::storage::postgres {

Answer<bool> register_engine(Connection& connection,
                             const EngineRow& engine,
                             base::Instant deadline);
/// @return not_found or stale_epoch as Store::heartbeat
Answer<bool> heartbeat(Connection& connection,
                       const EngineRow& engine,
                       base::Duration lease,
                       base::Instant deadline);
Answer<bool> unregister_engine(Connection& connection,
                               const EngineId& engine,
                               base::Instant deadline);
Answer<std::vector<EngineRow>> list_engines(Connection& connection,
                                            base::Duration lease,
                                            base::Instant deadline);

}  // namespace heddle::storage::postgres
