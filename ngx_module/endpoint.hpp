#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <netdb.h>
#include <netinet/in.h>

#include "ngx_module/ngx.hpp"

namespace heddle::ngx {

/// A socket address of any family.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;  ///< 0: none

    [[nodiscard]] sockaddr* generic() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
};

/// Where an engine listens: its endpoint, taken apart. Plain, in nginx's configuration pool.
struct Endpoint {
    SocketAddress address;
    ngx_str_t host;  ///< len 0: `address` is it; else a name that is looked up at each connection
    in_port_t port;
};

/// @param text  ipc:///path, tcp://address:port or tcp://name:port; zero-terminated, and lives as
///              long as `endpoint`
/// @return what is wrong with it, nullptr if nothing
[[nodiscard]] const char* parse_endpoint(const ngx_str_t& text, Endpoint& endpoint) noexcept;

/// Looks a host name up as the C library does (hosts file, DNS), on a helper thread of the C
/// library that touches nothing of nginx, because an nginx worker may not wait.
class Lookup {
public:
    Lookup();
    ~Lookup();
    Lookup(const Lookup&) = delete;
    Lookup& operator=(const Lookup&) = delete;

    /// false: it cannot be begun now. Only when none is under way.
    bool start(const Endpoint& endpoint);
    enum class State { idle, busy, found, failed };
    [[nodiscard]] State state() noexcept;
    /// After `found`: one of the addresses, each call the next; the state is idle then.
    [[nodiscard]] SocketAddress take();

private:
    struct Query;
    std::unique_ptr<Query> query_;
    std::size_t turn_ = 0;
};

}  // namespace heddle::ngx
