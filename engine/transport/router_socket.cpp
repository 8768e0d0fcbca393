#include "engine/transport/router_socket.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "engine/observe/log.hpp"
#include "engine/transport/listener.hpp"
#include "shared/wire/zmtp.hpp"

namespace heddle::transport {
namespace {

using base::Error;
using base::ErrorCode;
using wire::ZmtpReader;

constexpr base::Duration kHandshakeMax = std::chrono::seconds{5};
// An edge pings once a second; whoever says nothing for so long is no edge, or none that lives.
constexpr base::Duration kSilenceMax = std::chrono::seconds{60};
constexpr std::size_t kEventsMax = 64;
// Told apart from connections in epoll's data, whose ids count from kFirstPeer.
constexpr PeerId kListener = 0;
constexpr PeerId kWaker = 1;
constexpr PeerId kFirstPeer = 2;

struct Connection {
    Connection(PeerId its_id, FileDescriptor socket, base::Instant now)
        : id{its_id}, fd{std::move(socket)}, heard_at{now} {}

    const PeerId id;
    const FileDescriptor fd;
    ZmtpReader reader{wire::SocketKind::router};
    wire::ZmtpSendQueue out;
    base::Instant heard_at;
    bool ready = false;
    bool dirty = false;     ///< in Impl::dirty
    bool blocked = false;   ///< waits for epoll to say that it can be written
    bool readable = false;  ///< in Impl::readable
};

}  // namespace

struct RouterSocket::Impl {
    explicit Impl(Listener bound) : listener{std::move(bound)} {}

    Listener listener;
    FileDescriptor epoll;
    bool accepting = true;
    base::Duration linger{};
    base::Instant now{};
    PeerId next_id = kFirstPeer;
    std::unordered_map<PeerId, std::unique_ptr<Connection>> connections;
    std::vector<PeerId> readable;  ///< of the latest wait, from `at` on
    std::size_t at = 0;
    bool was_read = false;  ///< readable[at] has been read; its frames are being handed out
    std::vector<PeerId> dirty;
    std::vector<PeerId> closed;  ///< not yet told of

    bool watch(int fd, PeerId id, std::uint32_t events, int operation) const {
        epoll_event event{};
        event.events = events;
        event.data.u64 = id;
        return ::epoll_ctl(epoll.get(), operation, fd, &event) == 0;
    }

    Connection* find(PeerId id) {
        const auto found = connections.find(id);
        return found == connections.end() ? nullptr : found->second.get();
    }

    void accept_all() {
        for (;;) {
            auto fd = listener.accept();
            if (fd.get() < 0) {
                if (errno == EINTR || errno == ECONNABORTED) {
                    continue;
                }
                if (errno != EAGAIN && errno != EWOULDBLOCK) {
                    stop_accepting(std::strerror(errno));
                }
                return;
            }
            if (connections.size() >= kConnectionsMax) {
                stop_accepting("too many connections");
                return;
            }
            const PeerId id = next_id++;
            if (!watch(fd.get(), id, EPOLLIN, EPOLL_CTL_ADD)) {
                continue;
            }
            auto connection = std::make_unique<Connection>(id, std::move(fd), now);
            connection->out.push_raw(wire::zmtp_greeting());
            mark_dirty(*connection);
            connections.emplace(id, std::move(connection));
        }
    }

    // Until the next tick: its descriptor stays readable and would keep the loop awake.
    void stop_accepting(const char* why) {
        observe::log(observe::LogLevel::warn, "transport", "no connection is taken for now: {}",
                     why);
        accepting = false;
        (void)watch(listener.descriptor(), kListener, 0, EPOLL_CTL_MOD);
    }

    void mark_dirty(Connection& connection) {
        if (!connection.dirty) {
            connection.dirty = true;
            dirty.push_back(connection.id);
        }
    }

    void close(Connection& connection, const char* why) {
        observe::log(observe::LogLevel::debug, "transport", "connection {} ended: {}",
                     connection.id, why);
        closed.push_back(connection.id);
        connections.erase(connection.id);  // takes its descriptor out of epoll too
    }

    /// @return false if the connection is no more
    bool read(Connection& connection) {
        const auto room = connection.reader.room();
        ssize_t got = 0;
        do {
            got = ::recv(connection.fd.get(), room.data(), room.size(), 0);
        } while (got < 0 && errno == EINTR);
        if (got > 0) {
            connection.heard_at = now;
            connection.reader.filled(static_cast<std::size_t>(got));
            return true;
        }
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return true;
        }
        close(connection, got == 0 ? "its peer closed it" : std::strerror(errno));
        return false;
    }

    /// @return false if the connection is no more
    bool write(Connection& connection) {
        std::array<iovec, wire::ZmtpSendQueue::kVectorsMax> vectors{};
        while (const std::size_t count = connection.out.peek(vectors)) {
            msghdr message{};
            message.msg_iov = vectors.data();
            message.msg_iovlen = count;
            const ssize_t sent = ::sendmsg(connection.fd.get(), &message, MSG_NOSIGNAL);
            if (sent >= 0) {
                connection.out.written(static_cast<std::size_t>(sent));
                continue;
            }
            if (errno == EINTR) {
                continue;
            }
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                set_blocked(connection, true);
                return true;
            }
            close(connection, std::strerror(errno));
            return false;
        }
        set_blocked(connection, false);
        return true;
    }

    void set_blocked(Connection& connection, bool blocked) const {
        if (connection.blocked != blocked) {
            connection.blocked = blocked;
            const std::uint32_t events = blocked ? EPOLLIN | EPOLLOUT : EPOLLIN;
            (void)watch(connection.fd.get(), connection.id, events, EPOLL_CTL_MOD);
        }
    }

    /// The next thing in what a connection has sent; none: it has to be read again.
    ZmtpReader::Event next(Connection& connection) {
        for (;;) {
            const auto event = connection.reader.next();
            switch (event) {
                case ZmtpReader::Event::greeted:
                    connection.out.push_raw(wire::zmtp_ready(wire::SocketKind::router));
                    mark_dirty(connection);
                    break;
                case ZmtpReader::Event::ready:
                    connection.ready = true;
                    break;
                case ZmtpReader::Event::ping:
                    if (connection.out.bytes() > kQueuedBytesMax) {
                        break;  // it does not read its pongs either
                    }
                    connection.out.push_raw(wire::zmtp_pong(connection.reader.payload()));
                    mark_dirty(connection);
                    break;
                default:
                    return event;
            }
        }
    }

    void linger_on() {
        const auto until = base::system_clock().now() + linger;
        for (auto& [id, connection] : connections) {
            while (!connection->out.empty()) {
                std::array<iovec, wire::ZmtpSendQueue::kVectorsMax> vectors{};
                msghdr message{};
                message.msg_iov = vectors.data();
                message.msg_iovlen = connection->out.peek(vectors);
                const ssize_t sent = ::sendmsg(connection->fd.get(), &message, MSG_NOSIGNAL);
                if (sent >= 0) {
                    connection->out.written(static_cast<std::size_t>(sent));
                    continue;
                }
                const auto left = until - base::system_clock().now();
                if ((errno != EAGAIN && errno != EINTR) || left <= base::Duration::zero()) {
                    break;
                }
                set_blocked(*connection, true);
                epoll_event event{};
                constexpr int kLookMs = 5;
                (void)::epoll_wait(epoll.get(), &event, 1, kLookMs);
            }
        }
    }
};

RouterSocket::RouterSocket(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {
    endpoint_ = impl_->listener.endpoint();
}

RouterSocket::~RouterSocket() {
    impl_->linger_on();
}

base::Result<std::unique_ptr<RouterSocket>> RouterSocket::bind(const std::string& endpoint,
                                                               int wake_fd) {
    auto listener = Listener::open(endpoint);
    if (!listener) {
        return std::move(listener).error();
    }
    auto impl = std::make_unique<Impl>(std::move(*listener));
    impl->epoll = FileDescriptor{::epoll_create1(EPOLL_CLOEXEC)};
    if (impl->epoll.get() < 0 ||
        !impl->watch(impl->listener.descriptor(), kListener, EPOLLIN, EPOLL_CTL_ADD) ||
        !impl->watch(wake_fd, kWaker, EPOLLIN, EPOLL_CTL_ADD)) {
        return Error{ErrorCode::internal, fmt::format("cannot watch the socket of {}: {}", endpoint,
                                                      std::strerror(errno))};
    }
    impl->now = base::system_clock().now();
    return std::unique_ptr<RouterSocket>{new RouterSocket{std::move(impl)}};  // NOLINT: private
}

bool RouterSocket::has_closed() const noexcept {
    return !impl_->closed.empty();
}

bool RouterSocket::wait(base::Duration most, std::unique_lock<std::mutex>& turn) {
    std::array<epoll_event, kEventsMax> events{};
    // Closed ones are to be told of, and frames that were not fetched to be fetched.
    const bool at_once = !impl_->closed.empty() || impl_->at < impl_->readable.size();
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(most).count();
    const int epoll = impl_->epoll.get();
    const int timeout = at_once ? 0 : static_cast<int>(ms);
    if (timeout != 0) {
        turn.unlock();
    }
    const int count = ::epoll_wait(epoll, events.data(), kEventsMax, timeout);
    if (timeout != 0) {
        turn.lock();
    }
    impl_->now = base::system_clock().now();
    const auto done = impl_->readable.begin() + static_cast<std::ptrdiff_t>(impl_->at);
    impl_->readable.erase(impl_->readable.begin(), done);
    impl_->at = 0;
    bool woken = false;
    for (int i = 0; i < count; ++i) {
        const auto& event = events.at(static_cast<std::size_t>(i));
        if (event.data.u64 == kListener) {
            impl_->accept_all();
        } else if (event.data.u64 == kWaker) {
            woken = true;
        } else if (auto* connection = impl_->find(event.data.u64); connection != nullptr) {
            if ((event.events & EPOLLOUT) != 0 && !impl_->write(*connection)) {
                continue;
            }
            if ((event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !connection->readable) {
                connection->readable = true;
                impl_->readable.push_back(connection->id);
            }
        }
    }
    return woken;
}

RouterSocket::Received RouterSocket::receive(PeerId& from, std::string_view& frame) {
    auto& impl = *impl_;
    for (;;) {
        if (!impl.closed.empty()) {
            from = impl.closed.back();
            impl.closed.pop_back();
            return Received::closed;
        }
        if (impl.at == impl.readable.size()) {
            return Received::nothing;
        }
        auto* connection = impl.find(impl.readable[impl.at]);
        if (connection != nullptr && !impl.was_read) {
            impl.was_read = impl.read(*connection);
            if (!impl.was_read) {
                connection = nullptr;
            }
        }
        const auto event = connection == nullptr ? ZmtpReader::Event::none : impl.next(*connection);
        switch (event) {
            case ZmtpReader::Event::frame:
                from = connection->id;
                frame = connection->reader.payload();
                return Received::frame;
            case ZmtpReader::Event::multipart:
                from = connection->id;
                return Received::malformed;
            case ZmtpReader::Event::broken:
                observe::log(observe::LogLevel::warn, "transport", "a connection is closed: {}",
                             connection->reader.reason());
                impl.close(*connection, connection->reader.reason());
                break;
            default:  // read one, as often as it has something: epoll names it again
                if (connection != nullptr) {
                    connection->readable = false;
                }
                break;
        }
        ++impl.at;
        impl.was_read = false;
    }
}

RouterSocket::Sent RouterSocket::send(PeerId to, std::string&& frame) {
    auto* connection = impl_->find(to);
    if (connection == nullptr || !connection->ready) {
        return Sent::gone;
    }
    if (connection->out.bytes() >= kQueuedBytesMax) {
        return Sent::full;
    }
    connection->out.push(std::move(frame));
    impl_->mark_dirty(*connection);
    return Sent::sent;
}

void RouterSocket::flush() {
    for (const PeerId id : impl_->dirty) {
        if (auto* connection = impl_->find(id); connection != nullptr) {
            connection->dirty = false;
            if (!connection->blocked) {
                (void)impl_->write(*connection);
            }
        }
    }
    impl_->dirty.clear();
}

void RouterSocket::tick(base::Instant now) {
    std::vector<Connection*> late;
    for (auto& [id, connection] : impl_->connections) {
        const auto most = connection->ready ? kSilenceMax : kHandshakeMax;
        if (now - connection->heard_at > most) {
            late.push_back(connection.get());
        }
    }
    for (auto* connection : late) {
        impl_->close(*connection, connection->ready ? "it is silent" : "it shook no hands");
    }
    if (!impl_->accepting) {
        impl_->accepting =
            impl_->watch(impl_->listener.descriptor(), kListener, EPOLLIN, EPOLL_CTL_MOD);
    }
}

void RouterSocket::set_linger(base::Duration linger) noexcept {
    impl_->linger = linger;
}

}  // namespace heddle::transport
