#include "engine/net/http_client.hpp"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "engine/net/loop.hpp"
#include "engine/net/transfer.hpp"

namespace heddle::net {
namespace {

constexpr std::size_t kUrlBytesMax = 64U << 10U;

bool is_plain(std::string_view text) {
    return std::none_of(text.begin(), text.end(),
                        [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

bool is_header_name(std::string_view name) {
    constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
    return !name.empty() && std::all_of(name.begin(), name.end(), [&](unsigned char c) {
        return std::isalnum(c) != 0 || kOthers.find(static_cast<char>(c)) != std::string_view::npos;
    });
}

bool starts_like(std::string_view text, std::string_view prefix) {
    return text.size() >= prefix.size() &&
           std::equal(prefix.begin(), prefix.end(), text.begin(),
                      [](unsigned char a, unsigned char b) {
                          return a == static_cast<unsigned char>(std::tolower(b));
                      });
}

base::Status check(const HttpRequest& request) {
    using base::ErrorCode;
    const auto refuse = [](const char* field, std::string message) {
        return base::Error{ErrorCode::invalid_argument, std::move(message), field};
    };
    const auto& method = request.method;
    if (method.empty() || method.size() > 16 ||
        !std::all_of(method.begin(), method.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
        return refuse("method", "expected 1 to 16 capital letters");
    }
    if (!starts_like(request.url, "http://") && !starts_like(request.url, "https://")) {
        return refuse("url", "expected http:// or https://");
    }
    if (request.url.size() > kUrlBytesMax || !is_plain(request.url) ||
        request.url.find(' ') != std::string::npos) {
        return refuse("url", "too long, or holds a blank or a control character");
    }
    for (const auto& [name, value] : request.headers) {
        if (!is_header_name(name) || !is_plain(value)) {
            return refuse("headers",
                          "a header name or value holds a character HTTP does not allow");
        }
    }
    return base::ok();
}

/// What the shard sees of a transfer in one look.
struct Look {
    std::string piece;
    bool done = false;
    std::optional<base::Instant> last_activity;
};

Look look_at(Transfer& transfer, bool& was_paused) {
    const std::lock_guard lock{transfer.mutex};
    transfer.notified = false;
    was_paused = transfer.paused;
    Look look;
    look.piece = std::exchange(transfer.buffer, {});
    look.done = transfer.done;
    look.last_activity = transfer.last_activity;
    return look;
}

// The time a consumer took is not the server's silence.
void rest_idle_timer(Transfer& transfer) {
    const std::lock_guard lock{transfer.mutex};
    transfer.last_activity = base::system_clock().now();
}

base::Result<HttpResponse> outcome_of(Transfer& transfer) {
    const std::lock_guard lock{transfer.mutex};
    if (transfer.failure) {
        return *std::move(transfer.failure);
    }
    return std::move(transfer.response);
}

// Ends the transfer however its coroutine ends, also when the shard is destroyed with it. A loop
// that has finished with the transfer finds nothing to do.
template <class Loop>
struct Ender {
    Loop& loop;                   // NOLINT: on one frame with what it refers to
    const TransferPtr& transfer;  // NOLINT: as above
    ~Ender() { loop.abort(transfer); }
};

}  // namespace

const std::string* HttpResponse::find_header(std::string_view name) const noexcept {
    const auto at = std::find_if(headers.begin(), headers.end(),
                                 [&](const auto& header) { return header.first == name; });
    return at == headers.end() ? nullptr : &at->second;
}

HttpClient::HttpClient(HttpClientOptions options) : loop_{std::make_shared<Loop>(options)} {}
HttpClient::~HttpClient() {
    loop_->stop();
}

std::size_t HttpClient::open_transfers() const noexcept {
    return loop_->open_transfers();
}

base::Task<base::Result<HttpResponse>> HttpClient::send(HttpRequest request,
                                                        OnBody on_body,
                                                        base::CancelSource& cancel) {
    using base::Error;
    using base::ErrorCode;
    if (auto checked = check(request); !checked) {
        co_return std::move(checked).error();
    }
    if (cancel.is_cancelled()) {
        co_return cancel.reason();
    }
    const auto executor = co_await asio::this_coro::executor;
    const auto loop = loop_;
    const auto deadline = request.deadline;
    const auto idle_timeout = request.idle_timeout;
    const auto transfer =
        std::make_shared<Transfer>(std::move(request), static_cast<bool>(on_body), executor);
    if (auto submitted = loop->try_submit(transfer); !submitted) {
        co_return std::move(submitted).error();
    }
    const Ender<Loop> ender{*loop, transfer};
    const auto registration = cancel.on_cancel([&transfer] { transfer->changed.notify_all(); });
    for (;;) {
        bool was_paused = false;
        const Look look = look_at(*transfer, was_paused);
        if (cancel.is_cancelled()) {
            co_return cancel.reason();
        }
        const auto time = base::system_clock().now();
        if (time >= deadline && !(look.done && look.piece.empty())) {
            co_return Error{ErrorCode::timeout, "no complete answer before the deadline"};
        }
        if (!look.piece.empty()) {
            auto taken = co_await on_body(look.piece);
            if (!taken) {
                co_return std::move(taken).error();
            }
            rest_idle_timer(*transfer);
            if (was_paused) {
                loop->resume(transfer);
            }
            continue;
        }
        if (look.done) {
            co_return outcome_of(*transfer);
        }
        // Before it has started there is no silence yet, but it may start while we wait.
        auto wake_at = std::min(deadline, time + idle_timeout);
        if (look.last_activity) {
            const auto silent_until = *look.last_activity + idle_timeout;
            if (time >= silent_until) {
                co_return Error{ErrorCode::timeout, "the server was silent for too long"};
            }
            wake_at = std::min(deadline, silent_until);
        }
        co_await transfer->changed.wait(wake_at);
    }
}

std::string percent_encode(std::string_view text) {
    const bool dots = text == "." || text == "..";
    std::string out;
    for (const unsigned char c : text) {
        const bool keep =
            std::isalnum(c) != 0 || c == '-' || c == '_' || c == '~' || (c == '.' && !dots);
        if (keep) {
            out += static_cast<char>(c);
        } else {
            out += fmt::format("%{:02X}", c);
        }
    }
    return out;
}

}  // namespace heddle::net
