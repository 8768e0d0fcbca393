#include "engine/net/loop.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include <fmt/format.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/machine.hpp"

namespace heddle::net {
namespace {

// Each name that is looked up occupies an OS thread of libcurl's; once one answer is cached the
// others need none. Without a bound a burst of requests would start a thread each.
constexpr std::size_t kResolvingMax = 64;
constexpr std::size_t kSpareHandlesMax = 512;
constexpr int kWaitMillisecondsMax = 1000;
constexpr const char* kStopping = "the engine is stopping";

base::Instant now() {
    return base::system_clock().now();
}

// Wakes the shard once, however often something changes before it looks. It posts under the mutex:
// once abort() has had it, the shard may be gone.
void notify(const TransferPtr& transfer) {
    const std::lock_guard lock{transfer->mutex};
    if (transfer->notified || !transfer->awaited) {
        return;
    }
    transfer->notified = true;
    base::machine::post(transfer->executor.context(),
                        [transfer] { transfer->changed.notify_all(); });
}

void end(const TransferPtr& transfer, std::optional<base::Error> failure) {
    {
        const std::lock_guard lock{transfer->mutex};
        if (transfer->done) {
            return;
        }
        transfer->done = true;
        transfer->failure = std::move(failure);
    }
    notify(transfer);
}

base::Error error_of(CURLcode code, const Transfer& transfer) {
    using base::ErrorCode;
    if (transfer.too_large) {
        return {ErrorCode::payload_too_large, fmt::format("the answer is larger than {} bytes",
                                                          transfer.request.response_bytes_max)};
    }
    const char* reason = curl_easy_strerror(code);
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
        case CURLE_OPERATION_TIMEDOUT:  // only connecting has a time limit inside libcurl
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_PEER_FAILED_VERIFICATION:
        case CURLE_SSL_CACERT_BADFILE:
        case CURLE_PROXY:
            return {ErrorCode::unavailable, fmt::format("no connection: {}", reason)};
        case CURLE_URL_MALFORMAT:
            return {ErrorCode::invalid_argument, "the URL cannot be parsed", "url"};
        case CURLE_UNSUPPORTED_PROTOCOL:
        case CURLE_WEIRD_SERVER_REPLY:
            return {ErrorCode::in_doubt, "what came back is not HTTP"};
        default:
            return {ErrorCode::in_doubt,
                    fmt::format("the connection broke before the answer was complete: {}", reason)};
    }
}

std::string no_proxy_list() {
    std::string list = "localhost,127.0.0.1,::1";
    for (const char* name : {"no_proxy", "NO_PROXY"}) {
        const char* value = std::getenv(name);
        if (value != nullptr && *value != '\0') {
            return list + "," + value;
        }
    }
    return list;
}

}  // namespace

HttpClient::Loop::Loop(const HttpClientOptions& options)
    : options_{options}, no_proxy_{no_proxy_list()} {
    // Without these four there is no engine; it starts only once, so nothing can be lost.
    HEDDLE_ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    multi_ = curl_multi_init();
    HEDDLE_ASSERT(epoll_ >= 0 && wake_ >= 0 && multi_ != nullptr);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = wake_;
    HEDDLE_ASSERT(epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event) == 0);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &Loop::on_socket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &Loop::on_timer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS,
                      static_cast<long>(options_.idle_connections_max));
    curl_multi_setopt(multi_, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    os_thread_ = std::thread{[this] { run(); }};
}

HttpClient::Loop::~Loop() {
    stop();
    for (CURL* easy : spare_) {
        curl_easy_cleanup(easy);
    }
    curl_multi_cleanup(multi_);
    close(wake_);
    close(epoll_);
    curl_global_cleanup();
}

void HttpClient::Loop::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
    }
    const std::uint64_t one = 1;
    (void)!write(wake_, &one, sizeof one);
    if (os_thread_.joinable()) {
        os_thread_.join();
    }
}

base::Status HttpClient::Loop::try_submit(TransferPtr transfer) {
    using base::Error;
    using base::ErrorCode;
    if (open_.fetch_add(1) >= options_.in_flight_max + options_.waiting_max) {
        open_.fetch_sub(1);
        return Error{ErrorCode::overloaded, "too many HTTP requests are open"};
    }
    if (!post(Order::start, std::move(transfer))) {
        open_.fetch_sub(1);
        return Error{ErrorCode::cancelled, kStopping};
    }
    return base::ok();
}

void HttpClient::Loop::abort(TransferPtr transfer) {
    {
        const std::lock_guard lock{transfer->mutex};
        transfer->awaited = false;
    }
    (void)post(Order::abort, std::move(transfer));
}
void HttpClient::Loop::resume(TransferPtr transfer) {
    (void)post(Order::resume, std::move(transfer));
}

bool HttpClient::Loop::post(Order order, TransferPtr transfer) {
    bool wake = false;
    {
        const std::lock_guard lock{mutex_};
        if (stopping_) {
            return false;
        }
        wake = commands_.empty();
        commands_.push_back({order, std::move(transfer)});
    }
    const std::uint64_t one = 1;
    if (wake) {
        (void)!write(wake_, &one, sizeof one);
    }
    return true;
}

void HttpClient::Loop::run() {
    pthread_setname_np(pthread_self(), "http-client");
    while (take_commands()) {
        start_waiting();
        wait_and_act();
        read_finished();
    }
    const base::Error stopped{base::ErrorCode::cancelled, kStopping};
    for (auto& transfer : waiting_) {
        end(transfer, stopped);
    }
    waiting_.clear();
    while (!running_.empty()) {
        finish(TransferPtr{running_.begin()->second}, stopped);
    }
    const std::lock_guard lock{mutex_};
    for (auto& command : commands_) {
        if (command.order == Order::start) {
            end(command.transfer, stopped);
        }
    }
    commands_.clear();
}

bool HttpClient::Loop::take_commands() {
    std::deque<Command> taken;
    {
        const std::lock_guard lock{mutex_};
        if (stopping_) {
            return false;
        }
        taken.swap(commands_);
    }
    for (auto& [order, transfer] : taken) {
        switch (order) {
            case Order::start:
                waiting_.push_back(std::move(transfer));
                break;
            case Order::abort:
                abort_now(transfer);
                break;
            case Order::resume:
                resume_now(*transfer);
                break;
        }
    }
    return true;
}

void HttpClient::Loop::abort_now(const TransferPtr& transfer) {
    const base::Error aborted{base::ErrorCode::cancelled, "the request was given up"};
    if (transfer->easy != nullptr) {
        finish(transfer, aborted);
        return;
    }
    const auto at = std::find(waiting_.begin(), waiting_.end(), transfer);
    if (at == waiting_.end()) {
        return;
    }
    waiting_.erase(at);
    open_.fetch_sub(1);
    end(transfer, aborted);
}

void HttpClient::Loop::resume_now(Transfer& transfer) {
    if (transfer.easy == nullptr) {
        return;
    }
    {
        const std::lock_guard lock{transfer.mutex};
        if (!transfer.paused) {
            return;
        }
        transfer.paused = false;
        transfer.last_activity = now();
    }
    curl_easy_pause(transfer.easy, CURLPAUSE_CONT);
}

void HttpClient::Loop::start_waiting() {
    while (!waiting_.empty() && running_.size() < options_.in_flight_max &&
           resolving_ < kResolvingMax) {
        const TransferPtr transfer = std::move(waiting_.front());
        waiting_.pop_front();
        start(transfer);
    }
}

void HttpClient::Loop::start(const TransferPtr& transfer) {
    if (spare_.empty()) {
        transfer->easy = curl_easy_init();
    } else {
        transfer->easy = spare_.back();
        spare_.pop_back();
    }
    const bool ready = transfer->easy != nullptr && configure(*transfer) &&
                       curl_multi_add_handle(multi_, transfer->easy) == CURLM_OK;
    if (!ready) {
        release(*transfer);
        open_.fetch_sub(1);
        end(transfer, base::Error{base::ErrorCode::internal, "libcurl took no request"});
        return;
    }
    running_.emplace(transfer->easy, transfer);
    ++resolving_;
    const std::lock_guard lock{transfer->mutex};
    transfer->last_activity = now();
}

bool HttpClient::Loop::configure(Transfer& transfer) {
    CURL* easy = transfer.easy;
    const auto& request = transfer.request;
    const auto milliseconds =
        std::chrono::duration_cast<std::chrono::milliseconds>(request.connect_timeout).count();
    bool good = true;
    const auto set = [&](CURLoption option, auto value) {
        good = curl_easy_setopt(easy, option, value) == CURLE_OK && good;
    };
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_PRIVATE, this);
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_CONNECTTIMEOUT_MS, std::clamp<long>(milliseconds, 1, 600'000));
    set(CURLOPT_TCP_NODELAY, 1L);
    set(CURLOPT_FRESH_CONNECT, request.once ? 1L : 0L);
    set(CURLOPT_NOPROXY, no_proxy_.c_str());
    set(CURLOPT_WRITEFUNCTION, &Loop::on_write);
    set(CURLOPT_WRITEDATA, &transfer);
    set(CURLOPT_HEADERFUNCTION, &Loop::on_header);
    set(CURLOPT_HEADERDATA, &transfer);
    set(CURLOPT_OPENSOCKETFUNCTION, &Loop::on_open);
    set(CURLOPT_OPENSOCKETDATA, &transfer);
    set(CURLOPT_PREREQFUNCTION, &Loop::on_connected);
    set(CURLOPT_PREREQDATA, &transfer);
    if (!options_.ca_file.empty()) {
        set(CURLOPT_CAINFO, options_.ca_file.c_str());
    }
    return good && configure_body(transfer);
}

bool HttpClient::Loop::configure_body(Transfer& transfer) {
    CURL* easy = transfer.easy;
    const auto& request = transfer.request;
    bool good = true;
    const auto set = [&](CURLoption option, auto value) {
        good = curl_easy_setopt(easy, option, value) == CURLE_OK && good;
    };
    if (request.method == "HEAD") {
        set(CURLOPT_NOBODY, 1L);
    } else if (!request.body.empty() || (request.method != "GET" && request.method != "DELETE")) {
        set(CURLOPT_POST, 1L);
        set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
        set(CURLOPT_POSTFIELDS, request.body.data());
    }
    if (request.method != "HEAD") {
        set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
    const auto add = [&](const std::string& line) {
        auto* longer = curl_slist_append(transfer.header_list, line.c_str());
        if (longer != nullptr) {
            transfer.header_list = longer;
        }
        good = longer != nullptr && good;
    };
    add("Expect:");  // no round trip of its own before a large body
    for (const auto& [name, value] : request.headers) {
        // "Name:" would remove a header of libcurl's, "Name;" sends an empty one.
        add(value.empty() ? name + ";" : name + ": " + value);
    }
    set(CURLOPT_HTTPHEADER, transfer.header_list);
    return good;
}

int HttpClient::Loop::wait_milliseconds() const {
    if (!timer_) {
        return kWaitMillisecondsMax;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*timer_ - now()).count();
    return static_cast<int>(std::clamp<long>(left, 0, kWaitMillisecondsMax));
}

void HttpClient::Loop::wait_and_act() {
    std::array<epoll_event, 256> events;
    const int count =
        epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait_milliseconds());
    int running = 0;
    for (int i = 0; i < count; ++i) {
        const auto& event = events[static_cast<std::size_t>(i)];
        if (event.data.fd == wake_) {
            std::uint64_t ignored = 0;
            (void)!read(wake_, &ignored, sizeof ignored);
            continue;
        }
        int ready = 0;
        if ((event.events & (EPOLLIN | EPOLLHUP)) != 0) {
            ready |= CURL_CSELECT_IN;
        }
        if ((event.events & EPOLLOUT) != 0) {
            ready |= CURL_CSELECT_OUT;
        }
        if ((event.events & EPOLLERR) != 0) {
            ready |= CURL_CSELECT_ERR;
        }
        curl_multi_socket_action(multi_, event.data.fd, ready, &running);
    }
    if (timer_ && now() >= *timer_) {
        timer_.reset();
        curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
    }
}

void HttpClient::Loop::read_finished() {
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        const auto at = running_.find(message->easy_handle);
        if (at == running_.end()) {
            continue;
        }
        const TransferPtr transfer = at->second;
        const CURLcode code = message->data.result;
        if (code == CURLE_OK) {
            finish(transfer, std::nullopt);
        } else {
            finish(transfer, error_of(code, *transfer));
        }
    }
}

void HttpClient::Loop::finish(const TransferPtr& transfer, std::optional<base::Error> failure) {
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    mark_resolved(*transfer);
    curl_multi_remove_handle(multi_, transfer->easy);
    running_.erase(transfer->easy);
    release(*transfer);
    {
        const std::lock_guard lock{transfer->mutex};
        transfer->response.status = static_cast<int>(status);
    }
    open_.fetch_sub(1);
    end(transfer, std::move(failure));
}

void HttpClient::Loop::release(Transfer& transfer) {
    curl_slist_free_all(std::exchange(transfer.header_list, nullptr));
    CURL* easy = std::exchange(transfer.easy, nullptr);
    if (easy == nullptr) {
        return;
    }
    if (spare_.size() >= kSpareHandlesMax) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    spare_.push_back(easy);
}

void HttpClient::Loop::mark_resolved(Transfer& transfer) noexcept {
    if (transfer.resolved) {
        return;
    }
    transfer.resolved = true;
    --resolving_;
}

int HttpClient::Loop::on_socket(CURL*, curl_socket_t socket, int what, void* self, void* seen) {
    auto& loop = *static_cast<Loop*>(self);
    epoll_event event{};
    event.data.fd = socket;
    if (what == CURL_POLL_REMOVE) {
        // Of one that was still connecting libcurl 7.88 says so when it is closed: the kernel finds
        // nothing then, even if another OS thread has been given the number.
        epoll_ctl(loop.epoll_, EPOLL_CTL_DEL, socket, &event);
        return 0;
    }
    if ((what & CURL_POLL_IN) != 0) {
        event.events |= EPOLLIN;
    }
    if ((what & CURL_POLL_OUT) != 0) {
        event.events |= EPOLLOUT;
    }
    if (seen == nullptr) {
        curl_multi_assign(loop.multi_, socket, &loop);  // any mark that the socket is watched
        return epoll_ctl(loop.epoll_, EPOLL_CTL_ADD, socket, &event) == 0 ? 0 : -1;
    }
    return epoll_ctl(loop.epoll_, EPOLL_CTL_MOD, socket, &event) == 0 ? 0 : -1;
}

int HttpClient::Loop::on_timer(CURLM*, long timeout_ms, void* self) {
    auto& loop = *static_cast<Loop*>(self);
    loop.timer_.reset();
    if (timeout_ms >= 0) {
        loop.timer_ = now() + std::chrono::milliseconds{timeout_ms};
    }
    return 0;
}

std::size_t HttpClient::Loop::on_write(char* data,
                                       std::size_t size,
                                       std::size_t count,
                                       void* of) try {
    auto& transfer = *static_cast<Transfer*>(of);
    const std::size_t bytes = size * count;
    long status = 0;
    curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
    const bool streamed = transfer.wants_pieces && status >= 200 && status < 300;
    void* self = nullptr;
    {
        const std::lock_guard lock{transfer.mutex};
        if (streamed && !transfer.buffer.empty() &&
            transfer.buffer.size() + bytes > kBufferedBytesMax) {
            transfer.paused = true;
            return CURL_WRITEFUNC_PAUSE;
        }
        transfer.received += bytes;
        if (transfer.received > transfer.request.response_bytes_max) {
            transfer.too_large = true;
            return 0;
        }
        transfer.last_activity = now();
        if (!streamed) {
            transfer.response.body.append(data, bytes);
            return bytes;
        }
        transfer.buffer.append(data, bytes);
    }
    curl_easy_getinfo(transfer.easy, CURLINFO_PRIVATE, &self);
    notify(static_cast<Loop*>(self)->running_.at(transfer.easy));
    return bytes;
} catch (...) {
    return 0;  // no memory: libcurl ends the transfer
}

std::size_t HttpClient::Loop::on_header(char* data,
                                        std::size_t size,
                                        std::size_t count,
                                        void* of) try {
    auto& transfer = *static_cast<Transfer*>(of);
    const std::size_t bytes = size * count;
    std::string_view line{data, bytes};
    const std::lock_guard lock{transfer.mutex};
    transfer.last_activity = now();
    transfer.header_bytes += bytes;
    if (transfer.header_bytes > kHeaderBytesMax) {
        return 0;
    }
    if (line.starts_with("HTTP/")) {  // also after an interim answer
        transfer.response.headers.clear();
        return bytes;
    }
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) {
        return bytes;
    }
    std::string name{line.substr(0, colon)};
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    auto value = line.substr(colon + 1);
    while (!value.empty() && std::isspace(static_cast<unsigned char>(value.front())) != 0) {
        value.remove_prefix(1);
    }
    while (!value.empty() && std::isspace(static_cast<unsigned char>(value.back())) != 0) {
        value.remove_suffix(1);
    }
    transfer.response.headers.emplace_back(std::move(name), std::string{value});
    return bytes;
} catch (...) {
    return 0;
}

curl_socket_t HttpClient::Loop::on_open(void* of, curlsocktype, curl_sockaddr* address) {
    on_connected(of, nullptr, nullptr, 0, 0);
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

int HttpClient::Loop::on_connected(void* of, char*, char*, int, int) {
    auto& transfer = *static_cast<Transfer*>(of);
    void* self = nullptr;
    curl_easy_getinfo(transfer.easy, CURLINFO_PRIVATE, &self);
    static_cast<Loop*>(self)->mark_resolved(transfer);
    return CURL_PREREQFUNC_OK;
}

}  // namespace heddle::net
