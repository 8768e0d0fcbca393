#pragma once

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/conformance/backend.hpp"

namespace heddle::conformance {

/// Stands between a store and its server and breaks one connection at a chosen request. It passes
/// bytes on as they come, so a request that is to be found must be small (one write of the client).
class Proxy {
public:
    enum class Fault {
        none,
        lose_request,   ///< the connection breaks before the server sees the request
        lose_answer,    ///< the server carries the request out; the client never hears of it
        lose_client,    ///< the connection breaks when the server has the request
        delay_request,  ///< the connection breaks; the server gets the request at deliver()
    };
    /// @param server  the path of the server's socket
    explicit Proxy(const std::string& server);
    ~Proxy();
    Proxy(const Proxy&) = delete;
    Proxy& operator=(const Proxy&) = delete;

    /// The folder of the proxy's own socket: the `host` of a URL.
    [[nodiscard]] const std::string& host() const { return folder_.path(); }

    /// The first request from now on whose bytes contain `marker` meets `fault`.
    void arm(Fault fault, const std::string& marker);
    /// Whether that has happened.
    [[nodiscard]] bool has_bitten() const;
    /// Hands the delayed request to the server and waits until it has answered.
    void deliver();

private:
    struct Pair {
        int client;
        int server;
        bool loses_answer;
    };
    void run();
    void accept_client();
    /// @return false if the pair is over
    bool pass_request(Pair& pair);
    bool pass_answer(const Pair& pair);

    TemporaryFolder folder_;
    const std::string server_;
    int listener_;
    int wake_[2];
    std::vector<Pair> pairs_;  // belongs to the OS thread

    mutable std::mutex mutex_;
    Fault fault_ = Fault::none;  // these are guarded by mutex_
    std::string marker_;
    bool has_bitten_ = false;
    std::vector<int> kept_;
    std::string delayed_;
    int delayed_to_ = -1;
    std::thread os_thread_;  // last: it uses everything above
};

}  // namespace heddle::conformance
