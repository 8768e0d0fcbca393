#pragma once

#include <memory>
#include <string_view>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/storage/store.hpp"

/// The embedded store: one file for all engines of one host, no server (ADR 0006).
namespace heddle::storage {

/// Opens or creates the file and brings its schema up to date. Several engine processes may open
/// the same file, also at the same moment; it must lie on a local file system. Beside FILE lie
/// FILE-wal, FILE-shm (SQLite's) and FILE-turn (who writes next).
/// @param url    "sqlite:/path/file.db"; the prefix may be left out
/// @param clock  of leases and of the times of threads; all engines of a file must agree about it.
///               Must outlive the store, as must `metrics`
/// @return unavailable if the file cannot be opened, timeout if another process held it too long
base::Result<std::unique_ptr<Store>> open_sqlite_store(
    std::string_view url,
    const StoreLimits& limits,
    observe::Metrics& metrics,
    const base::Clock& clock = base::system_clock());

}  // namespace heddle::storage
