#pragma once

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/clock.hpp"

namespace heddle::test {

/// A server as a child process: a Python script of this repository that prints
/// `listening on http://127.0.0.1:PORT`. Throws if it does not within 20 s; killed and reaped in
/// the end.
class ServerProcess {
public:
    ServerProcess(const std::string& script, std::vector<std::string> arguments = {}) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) {
            throw std::runtime_error{"pipe2 failed"};
        }
        std::vector<std::string> words{"/usr/bin/python3",
                                       std::string{HEDDLE_SOURCE_DIR} + "/" + script};
        words.insert(words.end(), arguments.begin(), arguments.end());
        std::vector<char*> argv;
        for (auto& word : words) {
            argv.push_back(word.data());
        }
        argv.push_back(nullptr);
        pid_ = fork();
        if (pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that aborts leaves nothing behind
            dup2(ends[1], STDOUT_FILENO);
            execv(argv[0], argv.data());
            _exit(127);
        }
        close(ends[1]);
        output_ = ends[0];
        try {
            read_url(script);
        } catch (...) {
            end();
            throw;
        }
    }
    ~ServerProcess() { end(); }
    ServerProcess(const ServerProcess&) = delete;
    ServerProcess& operator=(const ServerProcess&) = delete;

    [[nodiscard]] const std::string& url() const noexcept { return url_; }
    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

private:
    void read_url(const std::string& script) {
        const auto give_up = base::system_clock().now() + std::chrono::seconds{20};
        std::string text;
        while (text.find('\n') == std::string::npos) {
            pollfd ready{output_, POLLIN, 0};
            if (base::system_clock().now() > give_up || poll(&ready, 1, 20'000) <= 0) {
                throw std::runtime_error{script + " does not listen; it said: " + text};
            }
            char buffer[256];
            const auto got = read(output_, buffer, sizeof buffer);
            if (got <= 0) {
                throw std::runtime_error{script + " ended; it said: " + text};
            }
            text.append(buffer, static_cast<std::size_t>(got));
        }
        const auto at = text.find("http://");
        if (at == std::string::npos) {
            throw std::runtime_error{script + " said: " + text};
        }
        url_ = text.substr(at, text.find('\n') - at);
    }
    void end() {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
        close(output_);
    }

    pid_t pid_ = -1;
    int output_ = -1;
    std::string url_;
};

}  // namespace heddle::test
