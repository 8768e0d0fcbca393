#include "tests/conformance/processes.hpp"

#include <cstdlib>
#include <iostream>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace heddle::conformance {

std::vector<std::string> as_ordinary_user(std::vector<std::string> command) {
    std::vector<std::string> whole{"setpriv", "--pdeathsig=KILL"};
    if (geteuid() == 0) {
        whole.insert(whole.end(), {"--reuid=nobody", "--regid=nogroup", "--clear-groups"});
    }
    whole.insert(whole.end(), command.begin(), command.end());
    return whole;
}

pid_t spawn(std::vector<std::string> command, const std::string& log) {
    std::vector<char*> arguments;
    for (auto& word : command) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    // A group of its own: so that every process of the server can be stopped at once.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
    pid_t pid = -1;
    const int code =
        posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (code != 0) {
        std::cerr << "cannot start " << command[0] << std::endl;
        std::abort();
    }
    return pid;
}

int wait_for(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace heddle::conformance
