#pragma once

#include <string>

#include <sys/types.h>

/// Another process on the same store.
namespace heddle::conformance {

/// @return the exit code if the arguments make this process a helper, else -1
int run_as_other_process(int argc, char** argv);

/// A second run of this program; killed at the end if it still lives.
class OtherProcess {
public:
    /// @param role  "hold": takes the turn, begins a transaction and keeps both for ever.
    ///              "write": an engine that writes to threads of its own as fast as it can
    ///              "postgres": an engine that writes to one thread until it is refused and says
    ///              's' then (or 'x', if not as stale_epoch), then to another and says 'w' (or 'x')
    /// @param store  the path of an SQLite file or the URL of a database
    OtherProcess(const std::string& role, const std::string& store);
    ~OtherProcess();
    OtherProcess(const OtherProcess&) = delete;
    OtherProcess& operator=(const OtherProcess&) = delete;

    /// Waits until it says that it is where its role says.
    [[nodiscard]] bool wait_until_ready() const;
    /// The next that it says; '-' if that takes too long.
    [[nodiscard]] char next_letter() const;
    void send(int signal) const;
    void kill_and_wait();

private:
    pid_t pid_ = -1;
    int output_ = -1;
};

}  // namespace heddle::conformance
