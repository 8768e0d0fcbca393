#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

/// Other programs that tests start.
namespace heddle::conformance {

/// Servers refuse root: then the command runs as nobody. It ends with this process.
std::vector<std::string> as_ordinary_user(std::vector<std::string> command);
/// Starts it in a process group of its own; ends the program if that fails.
/// @param log  the file that its output is appended to
pid_t spawn(std::vector<std::string> command, const std::string& log);
/// @return its exit code, -1 after a signal
int wait_for(pid_t pid);

}  // namespace heddle::conformance
