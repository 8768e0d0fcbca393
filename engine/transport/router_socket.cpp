#include "engine/transport/router_socket.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "shared/wire/messages.hpp"

namespace heddle::transport {
namespace {

using base::Error;
using base::ErrorCode;

// Frames libzmq holds per peer and direction. Its queues are no waiting room: ours, which counts,
// takes over when a peer's is full.
constexpr int kHighWaterMark = 4096;
constexpr std::string_view kIpc = "ipc://";

class FileDescriptor {
public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) : fd_{fd} {}
    FileDescriptor(FileDescriptor&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~FileDescriptor() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    [[nodiscard]] int get() const noexcept { return fd_; }

private:
    int fd_ = -1;
};

bool somebody_listens(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const FileDescriptor probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    const auto* target = reinterpret_cast<const sockaddr*>(&address);  // NOLINT: the C interface
    return probe.get() >= 0 && ::connect(probe.get(), target, sizeof address) == 0;
}

// libzmq unlinks whatever lies at an ipc path and binds over it, so a second engine would take the
// first one's edges without a word. The lock is held as long as the socket; it goes with the
// process even after kill -9, and then the dead engine's socket file may be replaced.
base::Result<FileDescriptor> lock_ipc_path(const std::string& path) {
    if (path.size() >= sizeof(sockaddr_un::sun_path)) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("the path of {} has {} bytes, a socket's has at most {}", path,
                                 path.size(), sizeof(sockaddr_un::sun_path) - 1)};
    }
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

void set_int(void* socket, int option, int value) {
    [[maybe_unused]] const int failed = zmq_setsockopt(socket, option, &value, sizeof value);
}

}  // namespace

struct RouterSocket::Impl {
    Impl() = default;
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl() {
        zmq_msg_close(&identity);
        zmq_msg_close(&frame);
        if (socket != nullptr) {
            zmq_close(socket);
        }
        if (context != nullptr) {
            zmq_ctx_term(context);
        }
    }

    FileDescriptor lock;  // first: released after the socket is closed
    void* context = nullptr;
    void* socket = nullptr;
    zmq_msg_t identity{};
    zmq_msg_t frame{};
    int descriptor = -1;
};

RouterSocket::RouterSocket(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
RouterSocket::~RouterSocket() = default;

base::Result<std::unique_ptr<RouterSocket>> RouterSocket::bind(const std::string& endpoint) {
    auto impl = std::make_unique<Impl>();
    zmq_msg_init(&impl->identity);
    zmq_msg_init(&impl->frame);
    if (endpoint.starts_with(kIpc)) {
        auto lock = lock_ipc_path(endpoint.substr(kIpc.size()));
        if (!lock) {
            return std::move(lock).error();
        }
        impl->lock = std::move(*lock);
    } else if (!endpoint.starts_with("tcp://")) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("{}: an endpoint begins with ipc:// or tcp://", endpoint)};
    }
    impl->context = zmq_ctx_new();
    impl->socket = impl->context == nullptr ? nullptr : zmq_socket(impl->context, ZMQ_ROUTER);
    if (impl->socket == nullptr) {
        return Error{ErrorCode::internal,
                     fmt::format("cannot make a socket: {}", zmq_strerror(zmq_errno()))};
    }
    set_int(impl->socket, ZMQ_ROUTER_MANDATORY, 1);
    set_int(impl->socket, ZMQ_SNDHWM, kHighWaterMark);
    set_int(impl->socket, ZMQ_RCVHWM, kHighWaterMark);
    set_int(impl->socket, ZMQ_LINGER, 0);
    const std::int64_t message_max = wire::kFrameBytesMax;
    zmq_setsockopt(impl->socket, ZMQ_MAXMSGSIZE, &message_max, sizeof message_max);
    if (zmq_bind(impl->socket, endpoint.c_str()) != 0) {
        const int reason = zmq_errno();
        const auto code = reason == EADDRINUSE ? ErrorCode::conflict : ErrorCode::invalid_argument;
        return Error{code, fmt::format("cannot listen on {}: {}", endpoint, zmq_strerror(reason))};
    }
    std::array<char, 512> bound{};
    std::size_t size = bound.size();
    zmq_getsockopt(impl->socket, ZMQ_LAST_ENDPOINT, bound.data(), &size);
    size = sizeof impl->descriptor;
    zmq_getsockopt(impl->socket, ZMQ_FD, &impl->descriptor, &size);

    std::unique_ptr<RouterSocket> router{new RouterSocket{std::move(impl)}};  // NOLINT: private
    router->endpoint_ = bound.data();
    return router;
}

int RouterSocket::descriptor() const noexcept {
    return impl_->descriptor;
}

RouterSocket::Received RouterSocket::receive(std::string_view& identity, std::string_view& frame) {
    auto* socket = impl_->socket;
    int got = 0;
    do {
        got = zmq_msg_recv(&impl_->identity, socket, ZMQ_DONTWAIT);
    } while (got < 0 && zmq_errno() == EINTR);
    if (got < 0) {
        return Received::nothing;
    }
    // The parts of one message arrive together, so none of these waits.
    bool is_frame = zmq_msg_more(&impl_->identity) != 0;
    if (is_frame) {
        zmq_msg_recv(&impl_->frame, socket, 0);
        while (zmq_msg_more(&impl_->frame) != 0) {
            is_frame = false;
            zmq_msg_recv(&impl_->frame, socket, 0);
        }
    }
    identity = {static_cast<const char*>(zmq_msg_data(&impl_->identity)),
                zmq_msg_size(&impl_->identity)};
    frame = {static_cast<const char*>(zmq_msg_data(&impl_->frame)), zmq_msg_size(&impl_->frame)};
    return is_frame ? Received::frame : Received::malformed;
}

RouterSocket::Sent RouterSocket::send(std::string_view identity, std::string_view frame) {
    auto* socket = impl_->socket;
    while (zmq_send(socket, identity.data(), identity.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        if (zmq_errno() == EINTR) {
            continue;
        }
        return zmq_errno() == EAGAIN ? Sent::full : Sent::gone;
    }
    // The identity was taken, so the frame is too: the room was checked with it.
    while (zmq_send(socket, frame.data(), frame.size(), ZMQ_DONTWAIT) < 0) {
        if (zmq_errno() != EINTR) {
            return Sent::gone;
        }
    }
    return Sent::sent;
}

void RouterSocket::set_linger(base::Duration linger) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(linger).count();
    set_int(impl_->socket, ZMQ_LINGER, static_cast<int>(ms));
}

}  // namespace heddle::transport
