#include "ngx_module/endpoint.hpp"

#include <arpa/inet.h>
#include <sys/un.h>

namespace heddle::ngx {

namespace {

constexpr std::string_view kIpc = "ipc://";
constexpr std::string_view kTcp = "tcp://";

const char* parse_ipc(std::string_view path, Endpoint& endpoint) {
    auto* address = reinterpret_cast<sockaddr_un*>(&endpoint.address.storage);
    if (path.empty() || path.size() >= sizeof(address->sun_path)) {
        return "has a path of no bytes or of more than a UNIX socket can have (107)";
    }
    address->sun_family = AF_UNIX;
    std::memcpy(address->sun_path, path.data(), path.size());
    endpoint.address.length = sizeof(sockaddr_un);
    return nullptr;
}

const char* parse_tcp(std::string_view text, Endpoint& endpoint) {
    constexpr const char* kShape = "needs tcp://host:port, an IPv6 address in brackets";
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos || colon == 0) {
        return kShape;
    }
    const auto digits = text.substr(colon + 1);
    const ngx_str_t port_text = as_ngx(digits);
    const ngx_int_t port = ngx_atoi(port_text.data, port_text.len);
    if (port < 1 || port > 65'535) {
        return "has a port that is not within 1 to 65535";
    }
    auto host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) {
        host = host.substr(1, host.size() - 2);
    }
    endpoint.port = static_cast<in_port_t>(port);
    const std::string name{host};
    auto* four = reinterpret_cast<sockaddr_in*>(&endpoint.address.storage);
    auto* six = reinterpret_cast<sockaddr_in6*>(&endpoint.address.storage);
    if (inet_pton(AF_INET, name.c_str(), &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(endpoint.port);
        endpoint.address.length = sizeof(sockaddr_in);
        return nullptr;
    }
    if (inet_pton(AF_INET6, name.c_str(), &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(endpoint.port);
        endpoint.address.length = sizeof(sockaddr_in6);
        return nullptr;
    }
    if (bracketed || host.find_first_of(":/@*[] ") != std::string_view::npos) {
        return kShape;
    }
    endpoint.address.storage = {};
    endpoint.host = as_ngx(host);
    return nullptr;
}

}  // namespace

const char* parse_endpoint(const ngx_str_t& text, Endpoint& endpoint) noexcept {
    const auto whole = view(text);
    endpoint = {};
    if (whole.substr(0, kIpc.size()) == kIpc) {
        return parse_ipc(whole.substr(kIpc.size()), endpoint);
    }
    if (whole.substr(0, kTcp.size()) == kTcp) {
        return parse_tcp(whole.substr(kTcp.size()), endpoint);
    }
    return "needs ENDPOINT (ipc:///path or tcp://host:port) [weight=N]";
}

/// The C library writes into it until the query is done.
struct Lookup::Query {
    std::string host;
    std::string port;
    addrinfo hints{};
    gaicb request{};
};

Lookup::Lookup() = default;

Lookup::~Lookup() {
    if (query_ == nullptr) {
        return;
    }
    if (state() == State::busy && gai_cancel(&query_->request) == EAI_NOTCANCELED) {
        (void)query_.release();  // the helper thread still uses it; the worker is at its end
        return;
    }
    if (query_->request.ar_result != nullptr) {
        freeaddrinfo(query_->request.ar_result);
    }
}

bool Lookup::start(const Endpoint& endpoint) {
    query_ = std::make_unique<Query>();
    query_->host = view(endpoint.host);
    query_->port = std::to_string(endpoint.port);
    query_->hints.ai_socktype = SOCK_STREAM;
    query_->hints.ai_flags = AI_NUMERICSERV;
    query_->request.ar_name = query_->host.c_str();
    query_->request.ar_service = query_->port.c_str();
    query_->request.ar_request = &query_->hints;
    gaicb* list[] = {&query_->request};
    if (getaddrinfo_a(GAI_NOWAIT, list, 1, nullptr) != 0) {
        query_.reset();
        return false;
    }
    return true;
}

Lookup::State Lookup::state() noexcept {
    if (query_ == nullptr) {
        return State::idle;
    }
    switch (gai_error(&query_->request)) {
        case 0:
            return State::found;
        case EAI_INPROGRESS:
            return State::busy;
        default:
            return State::failed;
    }
}

SocketAddress Lookup::take() {
    SocketAddress taken;
    if (state() == State::found) {
        std::size_t count = 0;
        for (const addrinfo* at = query_->request.ar_result; at != nullptr; at = at->ai_next) {
            count++;
        }
        std::size_t left = count == 0 ? 0 : turn_++ % count;
        for (const addrinfo* at = query_->request.ar_result; at != nullptr; at = at->ai_next) {
            if (left-- == 0) {
                std::memcpy(&taken.storage, at->ai_addr, at->ai_addrlen);
                taken.length = at->ai_addrlen;
                break;
            }
        }
        freeaddrinfo(query_->request.ar_result);
    }
    query_.reset();
    return taken;
}

}  // namespace heddle::ngx
