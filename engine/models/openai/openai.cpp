#include "engine/models/openai/openai.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "engine/base/signal.hpp"
#include "engine/models/call_limiter.hpp"
#include "engine/models/messages.hpp"
#include "engine/models/openai/answer.hpp"
#include "engine/models/openai/settings.hpp"
#include "engine/net/sse.hpp"
#include "engine/observe/log.hpp"

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;
using base::Task;

constexpr std::size_t kEventBytesMax = 1U << 20U;
constexpr std::size_t kErrorBytesShownMax = 64U << 10U;
constexpr base::JsonLimits kChunkLimits{.depth_max = 32, .bytes_max = kEventBytesMax};

/// What one attempt came to.
struct Attempt {
    std::optional<AiMessage> answer;
    Error error;
    bool repeatable = false;
    std::optional<base::Duration> retry_after;
};

Attempt failed(Error error, bool repeatable) {
    Attempt attempt;
    attempt.error = std::move(error);
    attempt.repeatable = repeatable;
    return attempt;
}

Attempt of_transport(Error error) {
    switch (error.code) {
        case ErrorCode::unavailable:
        case ErrorCode::in_doubt:
            return failed({ErrorCode::unavailable, "the model provider: " + error.message}, true);
        case ErrorCode::timeout:
            return failed({ErrorCode::timeout, "the model provider: " + error.message}, true);
        case ErrorCode::payload_too_large:
        case ErrorCode::invalid_argument:
            return failed({ErrorCode::model_error, "the model provider: " + error.message}, false);
        default:
            return failed(std::move(error), false);
    }
}

Attempt of_status(const net::HttpResponse& response, const std::string& api_key) {
    const int status = response.status;
    const bool repeatable = status == 408 || status == 429 || status >= 500;
    std::string words;
    if (response.body.size() <= kErrorBytesShownMax) {
        if (const auto body = base::parse_json(response.body, "error body"); body) {
            words = provider_message(*body);
        }
    }
    // A provider may quote the key it refused.
    const bool quotes_key = !api_key.empty() && words.find(api_key) != std::string::npos;
    if (status == 401 || status == 403 || quotes_key) {
        words = "the API key was refused";
    }
    auto attempt = failed({repeatable ? ErrorCode::unavailable : ErrorCode::model_error,
                           fmt::format("the model provider answered {}{}{}", status,
                                       words.empty() ? "" : ": ", words)},
                          repeatable);
    if (const auto* value = response.find_header("retry-after"); value != nullptr) {
        attempt.retry_after = parse_retry_after(*value, base::unix_microseconds());
    }
    return attempt;
}

// Waits, or until cancel fires. Every run that waits for a provider must be able to end at once.
Task<> wait_or_cancel(base::Instant until, base::CancelSource& cancel) {
    base::Signal changed;
    const auto registration = cancel.on_cancel([&changed] { changed.notify_all(); });
    while (!cancel.is_cancelled() && base::system_clock().now() < until) {
        co_await changed.wait(until);
    }
}

/// One streamed answer on its way.
struct Stream {
    Stream(std::string message_id, OnChunk& chunks)
        : reader{std::move(message_id)}, on_chunk{chunks} {}

    Status take(std::string_view data) {
        if (data == "[DONE]") {
            done = true;
            return base::ok();
        }
        if (done) {
            return base::ok();
        }
        auto chunk = base::parse_json(data, "an event of the model's stream", kChunkLimits);
        if (!chunk) {
            return Error{ErrorCode::model_error, chunk.error().message};
        }
        auto read = reader.read_chunk(*chunk, on_chunk);
        provider_failed = !read && read.error().code == ErrorCode::unavailable;
        return read;
    }

    AnswerReader reader;
    OnChunk& on_chunk;  // NOLINT: both live on the frame of one attempt
    net::SseDecoder decoder{kEventBytesMax};
    bool done = false;
    bool provider_failed = false;  ///< it said so itself, in mid-stream
};

// The provider's words may quote the conversation: they are logged for debugging only.
void log_failure(const Error& error, bool again) {
    observe::log(observe::LogLevel::warn, "openai", "call failed: {}{}",
                 base::error_traits(error.code).wire_name, again ? "; trying again" : "");
    observe::log(observe::LogLevel::debug, "openai", "call failed: {}", error.message);
}

class OpenAiModel final : public ChatModel {
public:
    OpenAiModel(net::HttpClient& http,
                RetryBudget& retries,
                observe::Metrics& metrics,
                OpenAiSettings settings)
        : http_{http},
          retries_{retries},
          metrics_{metrics},
          settings_{std::move(settings)},
          limiter_{settings_.concurrency_max, settings_.waiting_max} {}

    Task<Result<ChatReply>> call(ChatRequest request,
                                 OnChunk on_chunk,
                                 base::CancelSource& cancel) override {
        const auto begun = base::system_clock().now();
        const auto deadline = std::min(request.deadline, begun + settings_.timeout);
        auto body = make_body(request);
        if (!body) {
            co_return std::move(body).error();
        }
        const auto permit = co_await limiter_.acquire(deadline, cancel);
        if (!permit) {
            co_return permit.error();
        }
        metrics_.model_calls_total.fetch_add(1, std::memory_order_relaxed);
        retries_.count_call();
        for (unsigned number = 1;; ++number) {
            auto http_request = make_request(*body, request.stream, deadline);
            auto attempt =
                co_await try_once(std::move(http_request), request.stream, on_chunk, cancel);
            if (attempt.answer) {
                co_return to_reply(*attempt.answer);
            }
            if (cancel.is_cancelled()) {
                co_return cancel.reason();
            }
            const auto wake_at =
                base::system_clock().now() + retry_delay(number, attempt.retry_after);
            const bool again = attempt.repeatable && number <= settings_.retries_max &&
                               wake_at < deadline && retries_.try_retry();
            log_failure(attempt.error, again);
            if (!again) {
                co_return std::move(attempt.error);
            }
            metrics_.model_retries_total.fetch_add(1, std::memory_order_relaxed);
            co_await wait_or_cancel(wake_at, cancel);
            if (cancel.is_cancelled()) {
                co_return cancel.reason();
            }
        }
    }

private:
    static Result<ChatReply> to_reply(const AiMessage& answer) {
        ChatReply reply;
        reply.message = make_ai_message(answer);
        reply.usage = answer.usage.value_or(Usage{});
        return reply;
    }

    [[nodiscard]] Result<std::string> make_body(const ChatRequest& request) const {
        auto messages = to_openai_messages(request.messages);
        if (!messages) {
            return std::move(messages).error();
        }
        Json body = settings_.body;
        body["messages"] = *std::move(messages);
        if (!request.tools.empty()) {
            body["tools"] = to_openai_tools(request.tools);
        }
        if (request.stream) {
            body["stream"] = true;
            body["stream_options"] = Json{{"include_usage", true}};
        }
        return base::dump_json(body);
    }

    [[nodiscard]] net::HttpRequest make_request(const std::string& body,
                                                bool stream,
                                                base::Instant deadline) const {
        net::HttpRequest request;
        request.method = "POST";
        request.url = settings_.url;
        request.headers = {{"content-type", "application/json"},
                           {"accept", stream ? "text/event-stream" : "application/json"}};
        if (!settings_.api_key.empty()) {
            request.headers.emplace_back("authorization", "Bearer " + settings_.api_key);
        }
        request.body = body;
        request.connect_timeout = settings_.connect_timeout;
        request.deadline = deadline;
        // A provider that does not stream is silent until the whole answer is there.
        request.idle_timeout = stream ? settings_.idle_timeout : settings_.timeout;
        request.response_bytes_max = settings_.answer_bytes_max;
        return request;
    }

    Task<Attempt> try_once(net::HttpRequest request,
                           bool stream,
                           OnChunk& on_chunk,
                           base::CancelSource& cancel) {
        if (stream) {
            auto attempt = co_await try_streamed(std::move(request), on_chunk, cancel);
            co_return attempt;
        }
        auto response = co_await http_.send(std::move(request), {}, cancel);
        if (!response) {
            co_return of_transport(std::move(response).error());
        }
        if (response->status != 200) {
            co_return of_status(*response, settings_.api_key);
        }
        AnswerReader reader{make_message_id()};
        const auto body =
            base::parse_json(response->body, "the model's answer",
                             {.depth_max = 32, .bytes_max = settings_.answer_bytes_max});
        if (!body) {
            co_return failed({ErrorCode::model_error, body.error().message}, false);
        }
        if (auto read = reader.read_whole(*body); !read) {
            co_return failed(std::move(read).error(), false);
        }
        Attempt attempt;
        attempt.answer = reader.answer();
        co_return attempt;
    }

    Task<Attempt> try_streamed(net::HttpRequest request,
                               OnChunk& on_chunk,
                               base::CancelSource& cancel) {
        Stream stream{make_message_id(), on_chunk};
        base::UniqueFunction<Status(std::string_view, std::string_view)> on_event =
            [&stream](std::string_view, std::string_view data) { return stream.take(data); };
        net::OnBody on_body = [&stream, &on_event](std::string_view piece) -> Task<Status> {
            co_return stream.decoder.feed(piece, on_event);
        };
        auto response = co_await http_.send(std::move(request), std::move(on_body), cancel);
        if (!response) {
            auto error = std::move(response).error();
            if (stream.provider_failed) {
                co_return failed(std::move(error), true);
            }
            // Complete is complete, however the connection ends after it.
            if (!(stream.done && stream.reader.is_complete())) {
                co_return of_transport(std::move(error));
            }
        } else if (response->status != 200) {
            co_return of_status(*response, settings_.api_key);
        }
        // Some servers end a stream without a reason; then [DONE] is what counts.
        if (!stream.reader.has_choice()) {
            co_return failed({ErrorCode::model_error,
                              "the model provider's answer is unusable: it holds no choices"},
                             false);
        }
        if (!stream.reader.is_complete() && !stream.done) {
            co_return failed({ErrorCode::unavailable,
                              "the model provider's stream ended before the answer was complete"},
                             true);
        }
        Attempt attempt;
        attempt.answer = stream.reader.answer();
        co_return attempt;
    }

    net::HttpClient& http_;      // NOLINT: outlives the model, see the factory
    RetryBudget& retries_;       // NOLINT: as above
    observe::Metrics& metrics_;  // NOLINT: as above
    const OpenAiSettings settings_;
    CallLimiter limiter_;
};

}  // namespace

Result<std::shared_ptr<ChatModel>> make_openai_model(net::HttpClient& http,  // NOLINT
                                                     RetryBudget& retries,
                                                     observe::Metrics& metrics,
                                                     const Json& settings) {
    auto read = read_openai_settings(settings);
    if (!read) {
        return std::move(read).error();
    }
    std::shared_ptr<ChatModel> model =  // NOLINT: see the header
        std::make_shared<OpenAiModel>(http, retries, metrics, *std::move(read));
    return model;
}

}  // namespace heddle::models
