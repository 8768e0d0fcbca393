#pragma once

#include <string>

#include <sys/types.h>

#include "tests/conformance/backend.hpp"

namespace heddle::conformance {

/// A pgbouncer of this process's own in front of its PostgresCluster, in transaction mode: each
/// transaction gets another session, in turn. On a Unix socket, gone with the process.
class Pgbouncer {
public:
    /// Started on first use. Ends the program if it cannot be started.
    static Pgbouncer& instance();
    ~Pgbouncer();
    Pgbouncer(const Pgbouncer&) = delete;
    Pgbouncer& operator=(const Pgbouncer&) = delete;

    /// @param url  of a database of the cluster
    /// @return the same database, through the pooler
    [[nodiscard]] std::string through(const std::string& url) const;
    [[nodiscard]] std::string socket() const { return folder_.path() + "/.s.PGSQL.5432"; }

private:
    Pgbouncer();

    TemporaryFolder folder_;
    pid_t pid_ = -1;
};

}  // namespace heddle::conformance
