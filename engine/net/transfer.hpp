#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include <curl/curl.h>

#include "engine/base/signal.hpp"
#include "engine/net/http_client.hpp"

namespace heddle::net {

/// How much of a streamed body waits for its consumer before the transfer is paused.
inline constexpr std::size_t kBufferedBytesMax = 256U << 10U;
inline constexpr std::size_t kHeaderBytesMax = 64U << 10U;

/// One request on its way, shared by the shard that awaits it and the loop's OS thread. Which of
/// the two may touch a member is said at the member.
struct Transfer {
    Transfer(HttpRequest asked, bool streamed, base::Executor caller)
        : request{std::move(asked)}, wants_pieces{streamed}, executor{std::move(caller)} {}

    // Constant once submitted.
    const HttpRequest request;
    const bool wants_pieces;
    const base::Executor executor;

    // Shard only.
    base::Signal changed;

    // Both, under mutex.
    std::mutex mutex;
    std::string buffer;  ///< pieces the consumer has not seen
    bool paused = false;
    bool notified = false;  ///< a wake-up is on its way to the shard
    bool awaited = true;    ///< if not, its coroutine has ended and its shard may be gone
    bool done = false;
    std::optional<base::Error> failure;  ///< set with done, or the answer is complete
    HttpResponse response;
    std::optional<base::Instant> last_activity;  ///< empty while it waits for a slot

    // Loop only.
    CURL* easy = nullptr;
    curl_slist* header_list = nullptr;
    std::size_t received = 0;
    std::size_t header_bytes = 0;
    bool too_large = false;
    bool resolved = false;
};

using TransferPtr = std::shared_ptr<Transfer>;  // NOLINT: two OS threads, the later one frees it

}  // namespace heddle::net
