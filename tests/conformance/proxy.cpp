#include "tests/conformance/proxy.hpp"

#include <array>
#include <cstring>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace heddle::conformance {
namespace {

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    return address;
}

int open_socket() {
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

std::string read_some(int from) {
    std::array<char, 65536> block{};
    const auto n = read(from, block.data(), block.size());
    return n > 0 ? std::string{block.data(), static_cast<std::size_t>(n)} : std::string{};
}

bool write_all(int to, const std::string& bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
        const auto n = send(to, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        at += static_cast<std::size_t>(n);
    }
    return true;
}

}  // namespace

Proxy::Proxy(const std::string& server) : server_{server}, listener_{open_socket()}, wake_{} {
    const auto address = address_of(folder_.path() + "/.s.PGSQL.5432");
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 64), 0);
    EXPECT_EQ(pipe(wake_), 0);
    os_thread_ = std::thread{[this] { run(); }};
}

Proxy::~Proxy() {
    close(wake_[1]);
    os_thread_.join();
    close(wake_[0]);
    close(listener_);
    for (const int server : kept_) {
        close(server);
    }
    for (const auto& pair : pairs_) {
        close(pair.client);
        close(pair.server);
    }
}

void Proxy::arm(Fault fault, const std::string& marker) {
    const std::lock_guard lock{mutex_};
    fault_ = fault;
    marker_ = marker;
    has_bitten_ = false;
}

bool Proxy::has_bitten() const {
    const std::lock_guard lock{mutex_};
    return has_bitten_;
}

void Proxy::deliver() {
    const std::lock_guard lock{mutex_};
    ASSERT_GE(delayed_to_, 0);
    ASSERT_TRUE(write_all(delayed_to_, delayed_)) << "the server keeps the session";
    pollfd answered{delayed_to_, POLLIN, 0};
    ASSERT_EQ(poll(&answered, 1, 20'000), 1);
    ASSERT_FALSE(read_some(delayed_to_).empty());
    close(delayed_to_);
    delayed_to_ = -1;
}

void Proxy::run() {
    for (;;) {
        std::vector<pollfd> watched{{wake_[0], POLLIN, 0}, {listener_, POLLIN, 0}};
        for (const auto& pair : pairs_) {
            watched.push_back({pair.client, POLLIN, 0});
            watched.push_back({pair.server, POLLIN, 0});
        }
        poll(watched.data(), watched.size(), -1);
        if (watched[0].revents != 0) {
            return;
        }
        std::vector<Pair> left;
        for (std::size_t i = 0; i < pairs_.size(); ++i) {
            auto& pair = pairs_[i];
            const bool asks = watched[2 + 2 * i].revents != 0;
            const bool answers = watched[3 + 2 * i].revents != 0;
            if ((!asks || pass_request(pair)) && (!answers || pass_answer(pair))) {
                left.push_back(pair);
                continue;
            }
            close(pair.client);
            if (pair.server >= 0) {
                close(pair.server);
            }
        }
        pairs_ = std::move(left);
        if (watched[1].revents != 0) {
            accept_client();
        }
    }
}

void Proxy::accept_client() {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const int server = open_socket();
    const auto address = address_of(server_);
    if (client < 0 ||
        connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        close(client);
        close(server);
        return;
    }
    pairs_.push_back({client, server, false});
}

bool Proxy::pass_request(Pair& pair) {
    const auto bytes = read_some(pair.client);
    if (bytes.empty()) {
        return false;
    }
    const std::lock_guard lock{mutex_};
    if (fault_ != Fault::none && bytes.find(marker_) != std::string::npos) {
        has_bitten_ = true;
        switch (std::exchange(fault_, Fault::none)) {
            case Fault::delay_request:
                delayed_ = bytes;
                delayed_to_ = std::exchange(pair.server, -1);
                return false;
            case Fault::lose_answer:
                pair.loses_answer = true;
                break;
            case Fault::lose_client:
                (void)write_all(pair.server, bytes);
                kept_.push_back(std::exchange(pair.server, -1));
                return false;
            default:
                return false;
        }
    }
    return write_all(pair.server, bytes);
}

bool Proxy::pass_answer(const Pair& pair) {
    const auto bytes = read_some(pair.server);
    return !bytes.empty() && !pair.loses_answer && write_all(pair.client, bytes);
}

}  // namespace heddle::conformance
