#include "tests/conformance/postgres_cluster.hpp"

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "engine/storage/postgres/postgres_store.hpp"
#include "tests/conformance/pgbouncer.hpp"
#include "tests/conformance/processes.hpp"

namespace heddle::conformance {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void give_up(const std::string& what) {
    std::cerr << "postgres: " << what << std::endl;
    std::abort();
}

std::string find_bin() {
    std::string newest;
    for (const auto& version : fs::directory_iterator{"/usr/lib/postgresql"}) {
        const auto bin = version.path() / "bin";
        if (fs::exists(bin / "initdb") && bin.string() > newest) {
            newest = bin.string();
        }
    }
    if (newest.empty()) {
        give_up("no server found below /usr/lib/postgresql");
    }
    return newest;
}

class PostgresBackend final : public Backend {
public:
    explicit PostgresBackend(std::string url) : url_{std::move(url)} {}
    std::unique_ptr<storage::Store> open(const storage::StoreLimits& limits) override {
        auto store = storage::open_postgres_store(url_, limits, metrics);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            return nullptr;
        }
        return std::move(store).value();
    }
    // The server's clock cannot be moved, but what it is compared with can.
    void pass(base::Duration lease) override {
        const auto us = std::to_string(
            std::chrono::duration_cast<std::chrono::microseconds>(lease).count() + 2000);
        PostgresCluster::instance().run_sql(
            database_of(url_),
            "UPDATE heddle.engines SET heartbeat_at = heartbeat_at - " + us +
                "; UPDATE heddle.threads SET expires_at = expires_at - " + us +
                "; UPDATE heddle.idempotency_keys SET expires_at = expires_at - " + us);
    }

private:
    std::string url_;
};

}  // namespace

PostgresCluster& PostgresCluster::instance() {
    static PostgresCluster cluster;
    return cluster;
}

PostgresCluster::PostgresCluster() : bin_{find_bin()} {
    fs::permissions(folder_.path(), fs::perms::all);
    const int code = wait_for(
        spawn(as_ordinary_user({bin_ + "/initdb", "-D", folder_.path() + "/data", "-U", "heddle",
                                "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"}),
              folder_.path() + "/initdb.log"));
    if (code != 0) {
        give_up("initdb failed, see " + folder_.path() + "/initdb.log");
    }
    start();
}

PostgresCluster::~PostgresCluster() {
    go_on();
    kill(pid_, SIGQUIT);
    wait_for(pid_);
}

void PostgresCluster::start() {
    pid_ =
        spawn(as_ordinary_user({bin_ + "/postgres", "-D", folder_.path() + "/data", "-k",
                                folder_.path(), "-c", "listen_addresses=", "-c",
                                "max_connections=200", "-c", "recovery_init_sync_method=syncfs"}),
              folder_.path() + "/server.log");
    wait_until_ready();
}

bool PostgresCluster::answers(const std::string& host) const {
    return wait_for(spawn({bin_ + "/pg_isready", "-q", "-h", host, "-U", "heddle"}, "/dev/null")) ==
           0;
}

void PostgresCluster::wait_until_ready() const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (!answers(folder_.path())) {
        if (std::chrono::steady_clock::now() > deadline) {
            give_up("the server does not answer");
        }
    }
}

std::string PostgresCluster::create_database() {
    const auto name = "test_" + std::to_string(++databases_);
    run_sql("postgres", "CREATE DATABASE " + name);
    return url(name);
}

std::string database_of(const std::string& url) {
    const auto from = url.find("test_");
    return url.substr(from, url.find('?') - from);
}

std::string PostgresCluster::url(const std::string& database) const {
    return "postgres://heddle@/" + database + "?host=" + folder_.path();
}

std::string PostgresCluster::run_sql(const std::string& database, const std::string& sql) const {
    const auto output = folder_.path() + "/psql-" + base::make_uuid_v7().to_string();
    const int code =
        wait_for(spawn({bin_ + "/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d",
                        url(database), "-c", sql, "-o", output},
                       folder_.path() + "/psql.log"));
    EXPECT_EQ(code, 0) << sql;
    std::string text;
    if (FILE* file = fopen(output.c_str(), "r"); file != nullptr) {
        std::array<char, 4096> block{};
        for (auto n = fread(block.data(), 1, block.size(), file); n > 0;
             n = fread(block.data(), 1, block.size(), file)) {
            text.append(block.data(), n);
        }
        fclose(file);
    }
    while (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    return text;
}

void PostgresCluster::stop() const {
    // Sessions lead process groups of their own, so each is named.
    const auto pids = run_sql("postgres",
                              "SELECT pid FROM pg_stat_activity "
                              "WHERE application_name LIKE 'heddle%'");
    kill(pid_, SIGSTOP);
    for (std::size_t at = 0; at < pids.size();) {
        const auto end = std::min(pids.find('\n', at), pids.size());
        kill(std::stoi(pids.substr(at, end - at)), SIGSTOP);
        at = end + 1;
    }
}

void PostgresCluster::go_on() const {
    // Continues the server and all its children.
    for (const auto& entry : fs::directory_iterator{"/proc"}) {
        const auto name = entry.path().filename().string();
        if (name.find_first_not_of("0123456789") != std::string::npos) {
            continue;
        }
        if (FILE* file = fopen((entry.path() / "stat").c_str(), "r"); file != nullptr) {
            int pid = 0;
            int parent = 0;
            if (fscanf(file, "%d (%*[^)]) %*c %d", &pid, &parent) == 2 && parent == pid_) {
                kill(pid, SIGCONT);
            }
            fclose(file);
        }
    }
    kill(pid_, SIGCONT);
}

void PostgresCluster::crash_and_restart() {
    kill(pid_, SIGQUIT);
    wait_for(pid_);
    start();
}

std::unique_ptr<Backend> make_postgres_backend(bool is_pooled) {
    auto url = PostgresCluster::instance().create_database();
    return std::make_unique<PostgresBackend>(is_pooled ? Pgbouncer::instance().through(url)
                                                       : std::move(url));
}

}  // namespace heddle::conformance
