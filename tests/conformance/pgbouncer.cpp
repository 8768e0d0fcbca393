#include "tests/conformance/pgbouncer.hpp"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <signal.h>

#include "tests/conformance/postgres_cluster.hpp"
#include "tests/conformance/processes.hpp"

namespace heddle::conformance {

Pgbouncer& Pgbouncer::instance() {
    static Pgbouncer pgbouncer;
    return pgbouncer;
}

Pgbouncer::Pgbouncer() {
    const auto& cluster = PostgresCluster::instance();
    std::filesystem::permissions(folder_.path(), std::filesystem::perms::all);
    const auto file = folder_.path() + "/pgbouncer.ini";
    std::ofstream{file} << "[databases]\n* = host=" << cluster.folder() << " user=heddle\n"
                        << "[pgbouncer]\nunix_socket_dir = " << folder_.path()
                        << "\nlisten_addr =\nlisten_port = 5432\nauth_type = any\n"
                           "pool_mode = transaction\nserver_round_robin = 1\n"
                           "default_pool_size = 20\nserver_idle_timeout = 1\n"
                           "max_client_conn = 500\n";
    pid_ = spawn(as_ordinary_user({"/usr/sbin/pgbouncer", file}), folder_.path() + "/log");
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    while (!cluster.answers(folder_.path())) {
        if (std::chrono::steady_clock::now() > deadline) {
            std::cerr << "pgbouncer does not answer, see " << folder_.path() << "/log" << std::endl;
            std::abort();
        }
    }
}

Pgbouncer::~Pgbouncer() {
    kill(pid_, SIGQUIT);
    wait_for(pid_);
}

std::string Pgbouncer::through(const std::string& url) const {
    return url.substr(0, url.find('?')) + "?host=" + folder_.path();
}

}  // namespace heddle::conformance
