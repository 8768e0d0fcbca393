#pragma once

#include <string>
#include <utility>

#include <unistd.h>

#include "engine/base/result.hpp"

/// Where an engine's ZeroMQ endpoint becomes a listening socket. Private to the transport.
namespace heddle::transport {

class FileDescriptor {
public:
    FileDescriptor() = default;
    explicit FileDescriptor(int fd) noexcept : fd_{fd} {}
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

/// Listens as long as it lives; an ipc path's file goes with it.
class Listener {
public:
    /// Errors as RouterSocket::bind().
    static base::Result<Listener> open(const std::string& endpoint);
    Listener(Listener&&) noexcept = default;
    Listener& operator=(Listener&&) noexcept = default;
    ~Listener();

    [[nodiscard]] int descriptor() const noexcept { return socket_.get(); }
    [[nodiscard]] const std::string& endpoint() const noexcept { return endpoint_; }
    /// The next connection, ready for use without waiting; -1 with errno as accept(2).
    [[nodiscard]] FileDescriptor accept() const noexcept;

private:
    Listener() = default;
    base::Status open_ipc(const std::string& endpoint);
    base::Status open_tcp(const std::string& endpoint);

    FileDescriptor lock_;  // first: released after the socket is closed
    FileDescriptor socket_;
    std::string path_;  ///< empty: not ipc
    std::string endpoint_;
};

}  // namespace heddle::transport
