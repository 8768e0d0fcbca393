#pragma once

#include <memory>
#include <string>

#include <sys/types.h>

#include "tests/conformance/backend.hpp"

namespace heddle::conformance {

/// @return the name of the database that a URL of create_database(), or one through a pooler, has
std::string database_of(const std::string& url);

/// A Postgres server of this process's own: made by initdb in a temporary folder, listening on a
/// Unix socket there and on no port, gone with the process. Started on first use.
class PostgresCluster {
public:
    /// The server of this process. Fails the test and ends the program if it cannot be started.
    static PostgresCluster& instance();
    ~PostgresCluster();
    PostgresCluster(const PostgresCluster&) = delete;
    PostgresCluster& operator=(const PostgresCluster&) = delete;

    /// @return the URL of a new, empty database
    std::string create_database();
    [[nodiscard]] std::string url(const std::string& database) const;
    /// The folder of its socket, which the server's account may write in.
    [[nodiscard]] const std::string& folder() const { return folder_.path(); }
    /// Whether a server takes connections on the socket in folder `host`.
    [[nodiscard]] bool answers(const std::string& host) const;
    [[nodiscard]] std::string socket() const { return folder_.path() + "/.s.PGSQL.5432"; }
    /// Runs SQL by psql as superuser. @return its output, without the last newline
    std::string run_sql(const std::string& database, const std::string& sql) const;
    /// SIGSTOP and SIGCONT for every process of the server, one session's or all.
    void stop() const;
    void go_on() const;
    /// Kills the server as a power cut would, starts it again and waits until it answers.
    void crash_and_restart();

private:
    PostgresCluster();
    void start();
    void wait_until_ready() const;

    TemporaryFolder folder_;
    std::string bin_;
    pid_t pid_ = -1;
    int databases_ = 0;
};

}  // namespace heddle::conformance
