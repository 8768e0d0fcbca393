#include "bench/load_loop.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string_view>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace heddle::bench {
namespace {

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr std::uint64_t kCheckNanoseconds = kNanosecondsPerSecond / 10;
constexpr std::size_t kReadBytes = 256 * 1024;
/// A run with this many errors proves nothing any more and only fills logs.
constexpr std::uint64_t kErrorsMax = 1000;

std::uint64_t monotonic_now() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * kNanosecondsPerSecond +
           static_cast<std::uint64_t>(time.tv_nsec);
}

std::uint64_t nanoseconds(double seconds) {
    return static_cast<std::uint64_t>(seconds * static_cast<double>(kNanosecondsPerSecond));
}

double seconds(std::uint64_t nanoseconds_value) {
    return static_cast<double>(nanoseconds_value) / static_cast<double>(kNanosecondsPerSecond);
}

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto of = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return of(usage.ru_utime) + of(usage.ru_stime);
}

}  // namespace

struct LoadLoop::Connection {
    Connection(bool keep_body, bool is_head) : reader{keep_body, is_head} {}

    ResponseReader reader;
    std::string request;
    std::size_t written = 0;
    std::uint64_t started = 0;
    int fd = -1;
    bool waiting = false;  // a request is out and its answer is not complete
    bool watches_writing = false;
};

std::uint64_t LoadResult::error_count() const {
    std::uint64_t count = 0;
    for (const auto& [kind, times] : errors) {
        count += times;
    }
    return count;
}

LoadLoop::LoadLoop(const Options& options)
    : options_{options}, writer_{options}, buffer_(kReadBytes) {
    for (unsigned index = 0; index < options.connections; ++index) {
        connections_.push_back(
            std::make_unique<Connection>(!options.expect.empty(), options.method == "HEAD"));
    }
}

LoadLoop::~LoadLoop() {
    for (auto& connection : connections_) {
        close(*connection);
    }
    if (epoll_ >= 0) {
        ::close(epoll_);
    }
}

LoadResult LoadLoop::run() {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) {
        note_error("system", std::strerror(errno));
        return std::move(result_);
    }
    phase_began_ = last_check_ = monotonic_now();
    if (options_.warmup_s <= 0 && options_.warmup_requests == 0) {
        begin_measuring(phase_began_);
    }
    for (auto& connection : connections_) {
        if (!open(*connection)) {
            return std::move(result_);
        }
    }
    for (auto& connection : connections_) {
        next(*connection);
    }
    std::array<epoll_event, 256> events;
    while (in_flight_ > 0) {
        const int timeout = wait_ms(monotonic_now());
        const int count =
            ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout);
        for (int index = 0; index < count; ++index) {
            const auto& event = events[static_cast<std::size_t>(index)];
            auto& connection = *static_cast<Connection*>(event.data.ptr);
            if ((event.events & EPOLLOUT) != 0) {
                write_more(connection);
            }
            if ((event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
                read_more(connection);
            }
        }
        on_time(monotonic_now());
    }
    if (phase_ == Phase::measure) {
        stop_measuring(monotonic_now());
    }
    return std::move(result_);
}

bool LoadLoop::open(Connection& connection) {
    connection.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection.fd < 0) {
        note_error("connect", std::strerror(errno));
        return false;
    }
    // Connecting blocks, for at most five seconds: on loopback it is done at once, or never.
    timeval limit{5, 0};
    ::setsockopt(connection.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const int on = 1;
    ::setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(options_.port);
    ::inet_pton(AF_INET, options_.host.c_str(), &address.sin_addr);
    if (::connect(connection.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        note_error("connect", std::strerror(errno));
        close(connection);
        return false;
    }
    ++result_.connects;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &connection;
    connection.watches_writing = false;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event) != 0) {
        note_error("system", std::strerror(errno));
        close(connection);
        return false;
    }
    return true;
}

void LoadLoop::close(Connection& connection) {
    if (connection.fd >= 0) {
        ::close(connection.fd);
    }
    connection.fd = -1;
}

bool LoadLoop::may_send() const {
    if (result_.error_count() >= kErrorsMax) {
        return false;
    }
    if (phase_ == Phase::warmup) {
        return true;
    }
    if (phase_ == Phase::drain) {
        return false;
    }
    return options_.requests == 0 || answered_in_phase_ + in_flight_ < options_.requests;
}

void LoadLoop::next(Connection& connection) {
    if (!may_send()) {
        return;
    }
    if (connection.fd < 0 && !open(connection)) {
        return;
    }
    start_request(connection);
}

void LoadLoop::start_request(Connection& connection) {
    writer_.write_next(connection.request);
    connection.written = 0;
    connection.reader.reset();
    connection.waiting = true;
    ++in_flight_;
    ++result_.sent_all;
    connection.started = monotonic_now();
    write_more(connection);
}

void LoadLoop::write_more(Connection& connection) {
    while (connection.fd >= 0 && connection.written < connection.request.size()) {
        const auto sent =
            ::send(connection.fd, connection.request.data() + connection.written,
                   connection.request.size() - connection.written, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        if (sent < 0) {
            // A peer that refused the body may have answered already; reading finds out.
            connection.written = connection.request.size();
            break;
        }
        connection.written += static_cast<std::size_t>(sent);
    }
    watch(connection, connection.written < connection.request.size());
}

void LoadLoop::watch(Connection& connection, bool for_writing) {
    if (connection.fd < 0 || connection.watches_writing == for_writing) {
        return;
    }
    epoll_event event{};
    event.events = EPOLLIN | (for_writing ? static_cast<std::uint32_t>(EPOLLOUT) : 0U);
    event.data.ptr = &connection;
    ::epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
    connection.watches_writing = for_writing;
}

void LoadLoop::read_more(Connection& connection) {
    if (connection.fd < 0) {
        return;
    }
    const auto got = ::recv(connection.fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got > 0) {
        take_bytes(connection, static_cast<std::size_t>(got));
    } else if (got == 0) {
        on_stream_end(connection);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        const std::string what = std::strerror(errno);
        close(connection);
        request_failed(connection, "connection", what);
    }
}

void LoadLoop::take_bytes(Connection& connection, std::size_t size) {
    if (!connection.waiting) {
        note_error("protocol", "bytes without a request");
        close(connection);
        return;
    }
    const std::size_t taken = connection.reader.feed({buffer_.data(), size});
    if (const char* fault = connection.reader.fault()) {
        close(connection);
        request_failed(connection, "protocol", fault);
    } else if (connection.reader.done()) {
        if (taken < size) {
            note_error("protocol", "bytes after the end of a response");
        }
        on_response(connection);
    }
}

void LoadLoop::on_stream_end(Connection& connection) {
    close(connection);
    if (!connection.waiting) {
        return;
    }  // an idle connection may end at any time
    connection.reader.end_of_stream();
    if (connection.reader.done()) {
        on_response(connection);
    } else {
        request_failed(connection, "connection", "closed before the answer was complete");
    }
}

void LoadLoop::on_response(Connection& connection) {
    const auto now = monotonic_now();
    connection.waiting = false;
    --in_flight_;
    ++result_.answered_all;
    ++result_.statuses[connection.reader.status()];
    result_.body_bytes += connection.reader.body_bytes();
    if (connection.reader.closes()) {
        close(connection);
    }
    if (is_right(connection)) {
        count_answer(now, now - connection.started);
    }
    next(connection);
}

bool LoadLoop::is_right(const Connection& connection) {
    const auto& reader = connection.reader;
    if (reader.status() != options_.status) {
        note_error("status", "status " + std::to_string(reader.status()));
        return false;
    }
    if (!options_.expect.empty() && reader.body().find(options_.expect) == std::string::npos) {
        note_error("body", "the text is not in: " + reader.body().substr(0, 400));
        return false;
    }
    return true;
}

void LoadLoop::count_answer(std::uint64_t now, std::uint64_t latency) {
    ++answered_in_phase_;
    if (phase_ == Phase::warmup) {
        const bool by_count = options_.warmup_requests > 0;
        if (by_count && answered_in_phase_ >= options_.warmup_requests) {
            begin_measuring(now);
        }
        return;
    }
    if (phase_ != Phase::measure) {
        return;
    }
    result_.latency.add(latency);
    if (!options_.latencies_file.empty()) {
        result_.series.push_back(latency);
    }
    if (options_.requests > 0 && answered_in_phase_ >= options_.requests) {
        stop_measuring(now);
    }
}

void LoadLoop::request_failed(Connection& connection,
                              const std::string& kind,
                              const std::string& what) {
    if (!connection.waiting) {
        return;
    }
    note_error(kind, what);
    connection.waiting = false;
    --in_flight_;
    next(connection);
}

void LoadLoop::note_error(const std::string& kind, const std::string& what) {
    ++result_.errors[kind];
    result_.examples.try_emplace(kind, what);
}

void LoadLoop::begin_measuring(std::uint64_t now) {
    phase_ = Phase::measure;
    phase_began_ = now;
    answered_in_phase_ = 0;
    cpu_at_start_ = cpu_seconds();
}

void LoadLoop::stop_measuring(std::uint64_t now) {
    phase_ = Phase::drain;
    result_.measured_s = seconds(now - phase_began_);
    result_.cpu_s = cpu_seconds() - cpu_at_start_;
}

void LoadLoop::on_time(std::uint64_t now) {
    const auto passed = now - phase_began_;
    if (phase_ == Phase::warmup && options_.warmup_requests == 0 &&
        passed >= nanoseconds(options_.warmup_s)) {
        begin_measuring(now);
    } else if (phase_ == Phase::measure && options_.duration_s > 0 &&
               passed >= nanoseconds(options_.duration_s)) {
        stop_measuring(now);
    }
    if (now - last_check_ < kCheckNanoseconds) {
        return;
    }
    last_check_ = now;
    for (auto& connection : connections_) {
        const bool late = connection->waiting && now > connection->started &&
                          now - connection->started > nanoseconds(options_.timeout_s);
        if (!late) {
            continue;
        }
        close(*connection);
        request_failed(*connection, "timeout", "no complete answer in time");
    }
}

int LoadLoop::wait_ms(std::uint64_t now) const {
    constexpr std::uint64_t kMillisecond = kNanosecondsPerSecond / 1000;
    std::uint64_t wait = kCheckNanoseconds;
    const double limit = phase_ == Phase::warmup ? options_.warmup_s : options_.duration_s;
    const bool by_time = phase_ == Phase::warmup ? options_.warmup_requests == 0
                                                 : phase_ == Phase::measure && limit > 0;
    if (by_time) {
        const auto end = phase_began_ + nanoseconds(limit);
        wait = end <= now ? 0 : std::min(wait, end - now);
    }
    return static_cast<int>((wait + kMillisecond - 1) / kMillisecond);
}

}  // namespace heddle::bench
