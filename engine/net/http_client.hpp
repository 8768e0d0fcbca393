#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"
#include "engine/base/unique_function.hpp"

/// HTTP towards others: model providers, tools. One OS thread and one connection pool per process.
namespace heddle::net {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
    std::string method = "GET";  ///< 1 to 16 of A-Z
    std::string url;             ///< http:// or https:// only
    HttpHeaders headers;         ///< a name or value with a control character is refused
    std::string body;
    base::Duration connect_timeout = std::chrono::seconds{10};
    base::Instant deadline{};  ///< the answer is complete by then; waiting for a slot counts
    base::Duration idle_timeout = std::chrono::seconds{60};  ///< longest silence of the server
    std::size_t response_bytes_max = 8U << 20U;              ///< of the body, streamed or not
    /// Must not arrive twice: a connection of its own, see send(). Costs a connection's set-up.
    bool once = false;
};

struct HttpResponse {
    int status = 0;
    HttpHeaders headers;  ///< names in lower case, in the order of arrival, at most 64 KB
    std::string body;     ///< empty if it went to OnBody

    /// @param name  in lower case
    /// @return the first value, or nullptr
    [[nodiscard]] const std::string* find_header(std::string_view name) const noexcept;
};

/// Takes one piece of a 2xx body on the caller's shard; the next piece comes when the task is done.
/// While it waits at most 256 KB are buffered, then the transfer is paused. An error ends the
/// transfer and is what send() returns. The view lives until the task is done.
using OnBody = base::UniqueFunction<base::Task<base::Status>(std::string_view piece)>;

struct HttpClientOptions {
    std::size_t in_flight_max = 4096;         ///< transfers at once, each at most one socket
    std::size_t waiting_max = 8192;           ///< transfers that wait for a slot, in order
    std::size_t idle_connections_max = 2048;  ///< kept open for reuse
    std::string ca_file;                      ///< PEM bundle instead of the system's; may be empty
};

/// Any shard may call. Obeys https_proxy, http_proxy and no_proxy, loopback excepted. Follows no
/// redirect, decodes no compression, keeps no cookie, logs no header and no body. Destroy it before
/// the shards: what is in flight ends with `cancelled`, and its OS thread is joined.
class HttpClient {
public:
    explicit HttpClient(HttpClientOptions options = {});
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    /// Sends once; any status is an answer. Only a kept connection that the server closes before
    /// the first byte of an answer is replaced by a new one, whatever the method: libcurl sends the
    /// request again then, which may have arrived. HttpRequest::once rules that out. Only
    /// a 2xx body goes to `on_body`, every other body (or all, if on_body is empty) is in
    /// HttpResponse::body.
    /// @return invalid_argument   the request cannot be sent (`field` names the member)
    ///         overloaded         in_flight_max and waiting_max are used up; nothing was sent
    ///         unavailable        no connection (name, refused, TLS, connect_timeout); nothing sent
    ///         timeout            deadline or idle_timeout passed
    ///         in_doubt           the connection broke, or what came was not HTTP
    ///         payload_too_large  the answer is larger than response_bytes_max
    ///         cancelled          (or cancel's reason) the connection is closed at once
    base::Task<base::Result<HttpResponse>> send(HttpRequest request,
                                                OnBody on_body,
                                                base::CancelSource& cancel);

    /// Transfers that have not ended, waiting ones included. Any OS thread.
    [[nodiscard]] std::size_t open_transfers() const noexcept;

private:
    class Loop;
    // Transfers refer to the loop until they end, which may be after the client is gone.
    std::shared_ptr<Loop> loop_;  // NOLINT: shared with the loop's own OS thread and transfers
};

/// Percent-encodes all but RFC 3986's unreserved characters ("/", "." in "..", "?" and "#" too when
/// they would change the path: "." and ".." become %2E and %2E%2E).
std::string percent_encode(std::string_view text);

}  // namespace heddle::net
