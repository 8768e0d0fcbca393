#pragma once

#include <memory>

#include "engine/base/clock.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/storage/store.hpp"

/// The store of tests and of `memory:`: nothing outlives the process, everything else is as in the
/// other drivers. Completions run on the caller's OS thread, before the call returns.
namespace heddle::storage {

namespace memory {
class Database;
}

/// What several stores (engines) of one process may share. Any OS thread.
class MemoryDatabase {
public:
    /// @param clock  the database's clock: leases and times of threads. Must outlive this
    explicit MemoryDatabase(const base::Clock& clock = base::system_clock());
    ~MemoryDatabase();
    MemoryDatabase(const MemoryDatabase&) = delete;
    MemoryDatabase& operator=(const MemoryDatabase&) = delete;

    [[nodiscard]] memory::Database& database() noexcept { return *database_; }

private:
    std::unique_ptr<memory::Database> database_;
};

/// A store with a database of its own.
std::unique_ptr<Store> make_memory_store(const StoreLimits& limits, observe::Metrics& metrics);
/// One engine's view of `database`, which must outlive it, as must `metrics`.
std::unique_ptr<Store> make_memory_store(MemoryDatabase& database,
                                         const StoreLimits& limits,
                                         observe::Metrics& metrics);

}  // namespace heddle::storage
