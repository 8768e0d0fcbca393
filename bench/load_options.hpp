#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace heddle::bench {

/// What one run of the generator does. Times are seconds.
struct Options {
    std::string host;  ///< an IPv4 address; only loopback (127.0.0.0/8) is accepted
    std::uint16_t port = 0;
    std::string target;  ///< path and query; may hold {uuid} and {n}
    std::string method = "GET";
    std::vector<std::string> headers;  ///< "Name: value", without line ends
    std::string body;                  ///< may hold {uuid} and {n}
    unsigned connections = 1;          ///< 1..kConnectionsMax
    double duration_s = 0;             ///< exactly one of duration_s and requests is not 0
    std::uint64_t requests = 0;
    double warmup_s = 0;  ///< before what is measured; its answers are checked all the same
    std::uint64_t warmup_requests = 0;
    double timeout_s = 30;  ///< longest time one request may take
    int status = 200;       ///< any other is an error
    std::string expect;     ///< text that each body must contain; empty: not looked at
    bool sequence = false;
    std::string latencies_file;  ///< one line per measured request: nanoseconds
    std::string json_file;       ///< "-" is stdout
    std::uint64_t seed = 0;      ///< of the uuids; 0: from the system

    static constexpr unsigned kConnectionsMax = 4096;
};

/// The options, or nothing after the usage or the fault was printed to stderr.
[[nodiscard]] std::optional<Options> parse_options(int argc, char** argv);

}  // namespace heddle::bench
