#include "tests/conformance/other_process.hpp"

#include <array>
#include <cstring>

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/storage/postgres/postgres_store.hpp"
#include "engine/storage/sqlite/schema.hpp"
#include "engine/storage/sqlite/sqlite_store.hpp"
#include "engine/storage/sqlite/turn.hpp"
#include "tests/conformance/fixture.hpp"

extern char** environ;

namespace heddle::conformance {
namespace {

constexpr const char* kFlag = "--other-process";

void say(char letter) {
    if (write(STDOUT_FILENO, &letter, 1) != 1) {
        _exit(3);
    }
}
void say_ready() {
    say('r');
}

int hold(const std::string& path) {
    auto turn = storage::sqlite::Turn::open(path + "-turn");
    if (!turn) {
        return 1;
    }
    auto connection = storage::sqlite::open_writer(path, std::chrono::seconds{10});
    if (!(*turn)->lock(std::chrono::steady_clock::now() + std::chrono::seconds{10})) {
        return 2;
    }
    connection->execute("BEGIN IMMEDIATE");
    connection->execute("UPDATE threads SET head_seq = 4711");
    say_ready();
    for (;;) {
        pause();
    }
}

int write_for_ever(const std::string& path) {
    observe::Metrics metrics;
    auto store = storage::open_sqlite_store(path, storage::StoreLimits{}, metrics);
    if (!store) {
        return 1;
    }
    Engine engine{std::move(store).value(), "ipc:///other"};
    const auto claimed = engine.claim(new_thread_id());
    for (storage::Seq seq = 0;; ++seq) {
        auto write = make_write(claimed);
        write.journal = {make_row(seq, seq - seq % 64)};
        if (!engine.write(std::move(write))) {
            return 2;
        }
        if (seq == 10) {
            say_ready();
        }
    }
}

// Writes to one thread until that is refused, then to another one.
int write_until_refused(const std::string& url) {
    observe::Metrics metrics;
    auto store = storage::open_postgres_store(url, storage::StoreLimits{}, metrics);
    if (!store) {
        return 1;
    }
    Engine engine{std::move(store).value(), "ipc:///other"};
    const auto claimed = engine.claim(new_thread_id());
    base::Status status = base::ok();
    for (storage::Seq seq = 0; status; ++seq) {
        auto write = make_write(claimed);
        write.journal = {make_row(seq, seq - seq % 64)};
        status = engine.write(std::move(write));
        if (seq == 10) {
            say_ready();
        }
    }
    say(status.error().code == ErrorCode::stale_epoch ? 's' : 'x');
    auto write = make_write(engine.claim(new_thread_id()));
    write.journal = {make_row(0)};
    say(engine.write(std::move(write)) ? 'w' : 'x');
    for (;;) {
        pause();
    }
}

}  // namespace

int run_as_other_process(int argc, char** argv) {
    if (argc != 4 || std::strcmp(argv[1], kFlag) != 0) {
        return -1;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string role = argv[2];
    if (role == "hold") {
        return hold(argv[3]);
    }
    return role == "write" ? write_for_ever(argv[3]) : write_until_refused(argv[3]);
}

OtherProcess::OtherProcess(const std::string& role, const std::string& store) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) {
        ADD_FAILURE() << "pipe";
        return;
    }
    output_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::string program = "/proc/self/exe";
    std::string flag = kFlag;
    std::string role_text = role;
    std::string store_text = store;
    std::array<char*, 5> arguments{program.data(), flag.data(), role_text.data(), store_text.data(),
                                   nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
}

OtherProcess::~OtherProcess() {
    kill_and_wait();
    close(output_);
}

bool OtherProcess::wait_until_ready() const {
    return next_letter() == 'r';
}

char OtherProcess::next_letter() const {
    pollfd readable{output_, POLLIN, 0};
    char letter = '-';
    const bool is_there = poll(&readable, 1, 20'000) == 1 && read(output_, &letter, 1) == 1;
    return is_there ? letter : '-';
}

void OtherProcess::send(int signal) const {
    EXPECT_EQ(kill(pid_, signal), 0);
}

void OtherProcess::kill_and_wait() {
    if (pid_ < 0) {
        return;
    }
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
}

}  // namespace heddle::conformance
