#include "engine/tools/http/http_tools.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/base/signal.hpp"
#include "engine/tools/http/openapi.hpp"
#include "engine/tools/schema.hpp"
#include "engine/tools/source_settings.hpp"
#include "engine/yaml/yaml.hpp"

namespace heddle::tools {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

constexpr unsigned kAttemptsMax = 3;

/// What all tools of one entry share. Constant.
struct Backend {
    std::string base_url;  ///< without a slash at the end
    SourceSettings settings;
};

// How an argument stands in a URL or header.
std::string plain(const Json& value) {
    return value.is_string() ? value.get<std::string>() : base::dump_json(value);
}

Result<std::string> make_url(const Backend& backend, const Operation& operation, const Json& args) {
    std::string path = operation.path;
    for (const auto& name : operation.path_args) {
        const auto text = plain(args[name]);
        if (auto checked = check_plain(name, text); !checked) {
            return std::move(checked).error();
        }
        // Encoded or not, many a server takes these for a step upwards.
        if (text.empty() || text == "." || text == "..") {
            return base::invalid_field(name, "cannot be a part of a path");
        }
        const auto encoded = net::percent_encode(text);
        const auto hole = "{" + name + "}";
        for (auto at = path.find(hole); at != std::string::npos;
             at = path.find(hole, at + encoded.size())) {
            path.replace(at, hole.size(), encoded);
        }
    }
    std::string query;
    const auto add = [&](const std::string& name, const Json& value) -> base::Status {
        const auto text = plain(value);
        if (auto checked = check_plain(name, text); !checked) {
            return checked;
        }
        query += (query.empty() ? "?" : "&") + net::percent_encode(name) + "=" +
                 net::percent_encode(text);
        return base::ok();
    };
    for (const auto& name : operation.query_args) {
        const auto at = args.find(name);
        if (at == args.end() || at->is_null()) {
            continue;
        }
        base::Status added;
        if (at->is_array()) {
            for (const auto& element : *at) {
                if (added) {
                    added = add(name, element);
                }
            }
        } else {
            added = add(name, *at);
        }
        if (!added) {
            return std::move(added).error();
        }
    }
    return backend.base_url + path + query;
}

class HttpTool final : public Tool {
public:
    HttpTool(net::HttpClient& http,
             observe::Metrics& metrics,
             std::shared_ptr<const Backend> backend,
             Operation operation)
        : http_{http},
          metrics_{metrics},
          backend_{std::move(backend)},
          operation_{std::move(operation)} {}

    [[nodiscard]] const ToolSpec& spec() const noexcept override { return operation_.spec; }

    Task<Result<ToolAnswer>> call(ToolCall call, base::CancelSource& cancel) override {
        if (auto checked = validate_args(operation_.spec.parameters, call.args); !checked) {
            co_return std::move(checked).error();
        }
        const auto deadline =
            std::min(call.deadline, base::system_clock().now() + backend_->settings.timeout);
        auto request = make_request(call, deadline);
        if (!request) {
            co_return std::move(request).error();
        }
        metrics_.tool_calls_total.fetch_add(1, std::memory_order_relaxed);
        // Only what just reads is repeated; a change may have been made.
        const unsigned attempts = operation_.spec.recorded ? 1 : kAttemptsMax;
        for (unsigned number = 1;; ++number) {
            auto sent = *request;
            auto response = co_await http_.send(std::move(sent), {}, cancel);
            if (cancel.is_cancelled()) {
                co_return cancel.reason();
            }
            if (response && response->status < 500) {
                co_return to_answer(*std::move(response));
            }
            const bool hopeless =
                !response && response.error().code == ErrorCode::payload_too_large;
            const auto wake_at =
                base::system_clock().now() + std::chrono::milliseconds{100} * number;
            if (hopeless || number >= attempts || wake_at >= deadline) {
                co_return to_error(response);
            }
            co_await wait_or_cancel(wake_at, cancel);
            if (cancel.is_cancelled()) {
                co_return cancel.reason();
            }
        }
    }

private:
    static Task<> wait_or_cancel(base::Instant until, base::CancelSource& cancel) {
        base::Signal changed;
        const auto registration = cancel.on_cancel([&changed] { changed.notify_all(); });
        while (!cancel.is_cancelled() && base::system_clock().now() < until) {
            co_await changed.wait(until);
        }
    }

    [[nodiscard]] Result<net::HttpRequest> make_request(const ToolCall& call,
                                                        base::Instant deadline) const {
        auto url = make_url(*backend_, operation_, call.args);
        if (!url) {
            return std::move(url).error();
        }
        net::HttpRequest request;
        request.method = operation_.method;
        request.url = *std::move(url);
        request.headers = backend_->settings.headers;
        request.headers.emplace_back("accept", "application/json");
        for (const auto& name : operation_.header_args) {
            const auto at = call.args.find(name);
            if (at == call.args.end() || at->is_null()) {
                continue;
            }
            auto text = plain(*at);
            if (auto checked = check_plain(name, text); !checked) {
                return std::move(checked).error();
            }
            request.headers.emplace_back(name, std::move(text));
        }
        if (operation_.spec.recorded && !call.idempotency_key.empty()) {
            request.headers.emplace_back("idempotency-key", call.idempotency_key);
        }
        if (operation_.has_body) {
            Json body = Json::object();
            for (const auto& name : operation_.body_args) {
                const auto at = call.args.find(name);
                if (at != call.args.end()) {
                    body[name] = *at;
                }
            }
            request.body = base::dump_json(body);
            request.headers.emplace_back("content-type", "application/json");
        }
        request.once = operation_.spec.is_called_once();
        request.deadline = deadline;
        request.idle_timeout = backend_->settings.timeout;
        request.response_bytes_max = backend_->settings.answer_bytes_max;
        return request;
    }

    static ToolAnswer to_answer(net::HttpResponse response) {
        ToolAnswer answer;
        answer.is_error = response.status >= 300;
        // What is no UTF-8 could not be stored or sent on.
        answer.content =
            Json::parse(base::dump_json(Json(std::move(response.body)))).get<std::string>();
        if (answer.is_error && answer.content.empty()) {
            answer.content = fmt::format("HTTP status {}", response.status);
        }
        return answer;
    }

    [[nodiscard]] Error to_error(const Result<net::HttpResponse>& response) const {
        const auto& name = operation_.spec.name;
        if (response) {
            return {ErrorCode::tool_error,
                    fmt::format("{} failed with HTTP status {}", name, response->status)};
        }
        const auto& error = response.error();
        switch (error.code) {
            case ErrorCode::timeout:
            case ErrorCode::unavailable:
            case ErrorCode::overloaded:
            case ErrorCode::cancelled:
            case ErrorCode::in_doubt:
                return {error.code, fmt::format("{}: {}", name, error.message)};
            default:
                return {ErrorCode::tool_error, fmt::format("{}: {}", name, error.message)};
        }
    }

    net::HttpClient& http_;      // NOLINT: outlives the tool, see the factory
    observe::Metrics& metrics_;  // NOLINT: as above
    const std::shared_ptr<const Backend> backend_;
    const Operation operation_;
};

base::Status read_setting(const std::string& key, const Json& value, Backend& backend) {
    const auto known = read_source_setting(key, value, backend.settings);
    if (!known || *known) {
        return known ? base::ok() : base::Status{known.error()};
    }
    if (key == "base_url") {
        if (!value.is_string()) {
            return base::invalid_field(key, "expected a text");
        }
        backend.base_url = value.get<std::string>();
    } else if (key != "http") {
        return base::invalid_field(key, "unknown setting of http tools");
    }
    return base::ok();
}

// The host must be fixed before any argument comes in.
base::Status check_base_url(std::string& url) {
    while (url.ends_with('/')) {
        url.pop_back();
    }
    const auto scheme = url.starts_with("http://") ? 7U : url.starts_with("https://") ? 8U : 0U;
    if (scheme == 0 || url.size() == scheme) {
        return base::invalid_field("base_url", "expected http://HOST or https://HOST");
    }
    if (url.find_first_of("?#{} \\", scheme) != std::string::npos) {
        return base::invalid_field("base_url", "may hold no query, fragment, blank or brace");
    }
    return base::ok();
}

}  // namespace

Result<ToolSet> make_http_tools(net::HttpClient& http,
                                observe::Metrics& metrics,
                                const Json& settings,
                                const std::filesystem::path& base_dir) {
    if (!settings.is_object() || !settings.contains("http") || !settings["http"].is_string()) {
        return base::invalid_field("http", "expected the name of an OpenAPI file");
    }
    auto backend = std::make_shared<Backend>();  // NOLINT: constant once the tools have it
    for (const auto& item : settings.items()) {
        if (auto read = read_setting(item.key(), item.value(), *backend); !read) {
            return std::move(read).error();
        }
    }
    const auto file = base_dir / settings["http"].get<std::string>();
    auto document = yaml::load(file);
    if (!document) {
        auto error = std::move(document).error();
        return error.code == ErrorCode::not_found ? error
                                                  : base::invalid_field("http", error.message);
    }
    if (backend->base_url.empty()) {
        backend->base_url = first_server(*document);
    }
    if (auto checked = check_base_url(backend->base_url); !checked) {
        return std::move(checked).error();
    }
    auto operations = read_operations(*document);
    if (!operations) {
        const auto& error = operations.error();
        return base::invalid_field("http", fmt::format("{}: {}", file.string(), error.message));
    }
    ToolSet tools;
    const auto& chosen = backend->settings;
    std::vector<std::string> left = chosen.only;
    auto named = chosen.on_unknown_of;
    for (auto& operation : *operations) {
        const auto wanted = std::find(left.begin(), left.end(), operation.spec.name);
        if (!chosen.only.empty() && wanted == left.end()) {
            continue;
        }
        if (wanted != left.end()) {
            left.erase(wanted);
        }
        apply_on_unknown(chosen, operation.spec);
        named.erase(operation.spec.name);
        tools.push_back(std::make_shared<HttpTool>(http, metrics, backend, std::move(operation)));
    }
    if (!left.empty()) {
        return base::invalid_field("only", "no such operationId: " + left.front());
    }
    if (!named.empty()) {
        return base::invalid_field("on_unknown." + named.begin()->first,
                                   "no such operationId among the tools");
    }
    if (tools.empty()) {
        return base::invalid_field("http", file.string() + ": holds no operationId");
    }
    return tools;
}

}  // namespace heddle::tools
