#include "engine/tools/mcp/client.hpp"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "engine/base/timer.hpp"

namespace heddle::tools::mcp {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;
using base::Task;

constexpr std::size_t kPagesMax = 32;
constexpr std::size_t kListBytesMax = 8U << 20U;
constexpr std::size_t kHandshakeBytesMax = 1U << 20U;
constexpr auto kEndWaitMax = std::chrono::seconds{1};

// What a caller may be told of the way to the server; anything else is a failure of the tool.
Error of_transport(Error error) {
    switch (error.code) {
        case ErrorCode::timeout:
        case ErrorCode::unavailable:
        case ErrorCode::overloaded:
        case ErrorCode::cancelled:
        case ErrorCode::in_doubt:
            return error;
        default:
            return {ErrorCode::tool_error, std::move(error.message)};
    }
}

Error of_status(int status, bool in_session) {
    const bool unknown = status == 404 && in_session;
    return {unknown ? ErrorCode::not_found : ErrorCode::tool_error,
            fmt::format("the server answered with HTTP status {}", status)};
}

Result<Json> result_of(Result<Answer> answer) {
    if (!answer) {
        return std::move(answer).error();
    }
    if (const auto* refusal = std::get_if<Refusal>(&answer->value)) {
        return Error{ErrorCode::tool_error, "the server refused: " + refusal->message};
    }
    return std::get<Json>(std::move(answer->value));
}

}  // namespace

Task<Result<Link>> McpClient::open(base::Instant deadline, base::CancelSource& cancel) {
    const Bounds bounds{deadline, kHandshakeBytesMax};
    const auto id = ++last_id_;
    auto http_request =
        make_request({}, write_request(id, "initialize", initialize_params()), bounds);
    // The session's id stands in a header, which is at hand only when the body has ended.
    auto answer = co_await exchange(std::move(http_request), id, false, cancel);
    Link link;
    if (answer) {
        link.session_id = std::move(answer->session_id);
    }
    const auto result = result_of(std::move(answer));
    if (!result) {
        co_return result.error();
    }
    if (!link.session_id.empty() && !is_session_id(link.session_id)) {
        co_return Error{ErrorCode::tool_error, "the server's session id cannot be used"};
    }
    auto version = read_version(*result);
    if (!version) {
        co_return std::move(version).error();
    }
    link.version = *std::move(version);
    if (auto told = co_await notify(link, "notifications/initialized", bounds, cancel); !told) {
        co_return std::move(told).error();
    }
    co_return link;
}

Task<Result<Offer>> McpClient::list_tools(const Link& link,
                                          base::Instant deadline,
                                          base::CancelSource& cancel) {
    Offer offer;
    Json params = Json::object();
    std::size_t bytes_left = kListBytesMax;
    for (std::size_t pages = 0; pages < kPagesMax; ++pages) {
        auto answer =
            co_await request(link, "tools/list", params, Bounds{deadline, bytes_left}, cancel);
        bytes_left -= answer ? std::min(answer->bytes, bytes_left) : 0;
        auto result = result_of(std::move(answer));
        if (!result) {
            co_return std::move(result).error();
        }
        auto page = read_tool_page(*std::move(result));
        if (!page) {
            co_return std::move(page).error();
        }
        offer.left_out += page->left_out;
        std::move(page->tools.begin(), page->tools.end(), std::back_inserter(offer.tools));
        if (page->next_cursor.empty()) {
            co_return offer;
        }
        params["cursor"] = std::move(page->next_cursor);
    }
    co_return Error{ErrorCode::tool_error,
                    fmt::format("the server's list of tools has more than {} pages", kPagesMax)};
}

Task<Result<Answer>> McpClient::request(const Link& link,
                                        std::string_view method,
                                        Json params,
                                        Bounds bounds,
                                        base::CancelSource& cancel) {
    const auto id = ++last_id_;
    auto http_request = make_request(link, write_request(id, method, std::move(params)), bounds);
    co_return co_await exchange(std::move(http_request), id, true, cancel);
}

Task<Status> McpClient::notify(const Link& link,
                               std::string_view method,
                               Bounds bounds,
                               base::CancelSource& cancel) {
    auto http_request = make_request(link, write_notification(method), bounds);
    const auto response = co_await http_.send(std::move(http_request), {}, cancel);
    if (cancel.is_cancelled()) {
        co_return cancel.reason();
    }
    if (!response) {
        co_return of_transport(response.error());
    }
    const bool taken = response->status >= 200 && response->status < 300;
    co_return taken ? base::ok() : Status{of_status(response->status, false)};
}

net::HttpRequest McpClient::make_request(const Link& link,
                                         std::string body,
                                         const Bounds& bounds) const {
    net::HttpRequest request;
    request.method = "POST";
    request.url = settings_.url;
    request.headers = settings_.source.headers;
    request.headers.emplace_back("content-type", "application/json");
    request.headers.emplace_back("accept", "application/json, text/event-stream");
    if (!link.session_id.empty()) {
        request.headers.emplace_back("mcp-session-id", link.session_id);
    }
    if (!link.version.empty()) {
        request.headers.emplace_back("mcp-protocol-version", link.version);
    }
    request.body = std::move(body);
    request.once = bounds.once;
    request.deadline = bounds.deadline;
    request.idle_timeout = settings_.source.timeout;
    request.response_bytes_max = bounds.bytes_max;
    return request;
}

Task<Result<Answer>> McpClient::exchange(net::HttpRequest request,
                                         std::int64_t id,
                                         bool ends_early,
                                         base::CancelSource& cancel) {
    AnswerReader reader{id, request.response_bytes_max};
    const bool in_session =
        std::any_of(request.headers.begin(), request.headers.end(),
                    [](const auto& header) { return header.first == "mcp-session-id"; });
    // Shared with a timer whose handler may be on its way when all else is over.
    const auto stop = std::make_shared<base::CancelSource>();  // NOLINT
    const auto registration = cancel.on_cancel([&stop, &cancel] { stop->cancel(cancel.reason()); });
    base::Timer end_wait{co_await asio::this_coro::executor};
    std::size_t bytes = 0;
    net::OnBody on_body = [&](std::string_view piece) -> Task<Status> {
        const bool had_answer = reader.has_answer();
        bytes += piece.size();
        auto fed = reader.feed(piece);
        // A server may keep the stream open for ever; most end it at once, and then the connection
        // can be used again.
        if (!had_answer && reader.has_answer() && ends_early) {
            end_wait.expires_after(kEndWaitMax);
            end_wait.async_wait([stop](const asio::error_code& failure) {
                if (!failure) {
                    stop->cancel({ErrorCode::cancelled, "the response is there"});
                }
            });
        }
        co_return fed;
    };
    auto response = co_await http_.send(std::move(request), std::move(on_body), *stop);
    Answer answer;
    if (response && (response->status < 200 || response->status >= 300)) {
        co_return of_status(response->status, in_session);
    }
    if (response) {
        if (auto finished = reader.finish(); !finished) {
            co_return std::move(finished).error();
        }
        const auto* session = response->find_header("mcp-session-id");
        answer.session_id = session != nullptr ? *session : std::string{};
    } else if (!reader.has_answer() || !ends_early) {
        co_return cancel.is_cancelled() ? cancel.reason()
                                        : of_transport(std::move(response).error());
    }
    answer.value = reader.take_answer();
    answer.list_changed = reader.saw_list_changed();
    answer.bytes = bytes;
    co_return answer;
}

}  // namespace heddle::tools::mcp
