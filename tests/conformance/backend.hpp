#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/base/clock.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/storage/store.hpp"

/// One empty database per test, of the driver that the test runs on.
namespace heddle::conformance {

class Backend {
public:
    virtual ~Backend() = default;
    /// Another engine's view of the same database; fails the test and gives nullptr on error.
    virtual std::unique_ptr<storage::Store> open(const storage::StoreLimits& limits) = 0;
    /// Afterwards all that the database has a time for (heartbeats, threads' and keys' ends) is
    /// that much older by its clock, and a moment more.
    virtual void pass(base::Duration lease) = 0;

    observe::Metrics metrics;
};

/// A clock that stands still until it is advanced. Any OS thread.
class StillClock final : public base::Clock {
public:
    [[nodiscard]] base::Instant now() const noexcept override {
        return base::Instant{std::chrono::microseconds{us_.load()}};
    }
    [[nodiscard]] std::int64_t unix_us() const noexcept override { return us_.fetch_add(1); }
    void advance(base::Duration duration) {
        us_ += std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
    }

private:
    mutable std::atomic<std::int64_t> us_{1'700'000'000'000'000};
};

/// A folder of its own below the system's temporary one, removed at the end.
class TemporaryFolder {
public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

private:
    std::string path_;
};

/// @param driver "memory", "sqlite", "postgres", or "pgbouncer": Postgres through a pooler
std::unique_ptr<Backend> make_backend(const std::string& driver);
std::unique_ptr<Backend> make_postgres_backend(bool is_pooled);

}  // namespace heddle::conformance
