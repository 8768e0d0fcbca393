#pragma once

namespace heddle::app {

/// What scripts may rely on; listed in --help.
inline constexpr int kExitUsage = 2;     ///< options or --config file
inline constexpr int kExitAgents = 3;    ///< an agent file is wrong
inline constexpr int kExitStore = 4;     ///< the store cannot be opened
inline constexpr int kExitEndpoint = 5;  ///< the endpoint is in use or cannot be used

}  // namespace heddle::app
