#include "engine/transport/listener.hpp"

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace heddle::transport {
namespace {

using base::Error;
using base::ErrorCode;

constexpr std::string_view kIpc = "ipc://";
constexpr std::string_view kTcp = "tcp://";
constexpr int kBacklog = 511;
constexpr int kSocketFlags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

Error cannot_listen(std::string_view endpoint, int reason) {
    const auto code = reason == EADDRINUSE ? ErrorCode::conflict : ErrorCode::invalid_argument;
    return Error{code, fmt::format("cannot listen on {}: {}", endpoint, std::strerror(reason))};
}

sockaddr_un ipc_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);  // NOLINT: the C interface
}

bool somebody_listens(const std::string& path) {
    const auto address = ipc_address(path);
    const FileDescriptor probe{::socket(AF_UNIX, kSocketFlags, 0)};
    return probe.get() >= 0 && ::connect(probe.get(), generic(address), sizeof address) == 0;
}

// What lies at the path of a dead engine must be unlinked before it can be bound again, and so a
// second engine would take the first one's edges without a word. The lock is held as long as the
// socket; it goes with the process even after kill -9.
base::Result<FileDescriptor> lock_ipc_path(const std::string& path) {
    const auto lock_path = path + ".lock";
    FileDescriptor lock{::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    if (lock.get() < 0) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("cannot make {}: {}", lock_path, std::strerror(errno))};
    }
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 || somebody_listens(path)) {
        return Error{ErrorCode::conflict,
                     fmt::format("another process listens on {}{}", kIpc, path)};
    }
    return lock;
}

std::string text_of(const sockaddr_storage& address, socklen_t size) {
    char host[NI_MAXHOST] = "";
    char port[NI_MAXSERV] = "";
    const auto* generic_address = reinterpret_cast<const sockaddr*>(&address);  // NOLINT: C
    ::getnameinfo(generic_address, size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV);
    const bool six = address.ss_family == AF_INET6;
    return fmt::format("{}{}{}{}:{}", kTcp, six ? "[" : "", host, six ? "]" : "", port);
}

}  // namespace

base::Result<Listener> Listener::open(const std::string& endpoint) {
    Listener listener;
    base::Status opened =
        Error{ErrorCode::invalid_argument,
              fmt::format("{}: an endpoint begins with ipc:// or tcp://", endpoint)};
    if (endpoint.starts_with(kIpc)) {
        opened = listener.open_ipc(endpoint);
    } else if (endpoint.starts_with(kTcp)) {
        opened = listener.open_tcp(endpoint);
    }
    if (!opened) {
        return std::move(opened).error();
    }
    return listener;
}

Listener::~Listener() {
    if (!path_.empty() && socket_.get() >= 0) {
        ::unlink(path_.c_str());
    }
}

base::Status Listener::open_ipc(const std::string& endpoint) {
    auto path = endpoint.substr(kIpc.size());
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("the path of {} has {} bytes, a socket's has 1 to {}", endpoint,
                                 path.size(), sizeof(sockaddr_un::sun_path) - 1)};
    }
    auto lock = lock_ipc_path(path);
    if (!lock) {
        return std::move(lock).error();
    }
    lock_ = std::move(*lock);
    ::unlink(path.c_str());
    FileDescriptor socket{::socket(AF_UNIX, kSocketFlags, 0)};
    const auto address = ipc_address(path);
    if (socket.get() < 0 || ::bind(socket.get(), generic(address), sizeof address) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
        return cannot_listen(endpoint, errno);
    }
    socket_ = std::move(socket);
    path_ = std::move(path);
    endpoint_ = endpoint;
    return base::ok();
}

base::Status Listener::open_tcp(const std::string& endpoint) {
    const auto address = endpoint.substr(kTcp.size());
    const auto colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("{}: expected tcp://address:port", endpoint)};
    }
    auto host = address.substr(0, colon);
    const auto port = address.substr(colon + 1) == "*" ? "0" : address.substr(colon + 1);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    addrinfo hints{};
    hints.ai_family = host == "*" ? AF_INET : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* raw = nullptr;
    if (const int failed =
            ::getaddrinfo(host == "*" ? nullptr : host.c_str(), port.c_str(), &hints, &raw);
        failed != 0) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("cannot listen on {}: {}", endpoint, ::gai_strerror(failed))};
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> found{raw, &::freeaddrinfo};
    FileDescriptor socket{::socket(found->ai_family, kSocketFlags, 0)};
    const int on = 1;
    if (socket.get() < 0 ||
        ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        ::bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0 ||
        ::listen(socket.get(), kBacklog) != 0) {
        return cannot_listen(endpoint, errno);
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    auto* generic_bound = reinterpret_cast<sockaddr*>(&bound);  // NOLINT: the C interface
    if (::getsockname(socket.get(), generic_bound, &size) != 0) {
        return cannot_listen(endpoint, errno);
    }
    socket_ = std::move(socket);
    endpoint_ = text_of(bound, size);
    return base::ok();
}

FileDescriptor Listener::accept() const noexcept {
    FileDescriptor accepted{
        ::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    if (accepted.get() >= 0 && path_.empty()) {
        const int on = 1;
        (void)::setsockopt(accepted.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return accepted;
}

}  // namespace heddle::transport
