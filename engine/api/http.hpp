#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"
#include "engine/base/uuid.hpp"

/// HTTP as the API sees it: no sockets, no wire. engine/transport turns frames into these and back.
namespace heddle::api {

/// Names in lower case, in order of appearance.
using Headers = std::vector<std::pair<std::string, std::string>>;

struct Route;

/// One HTTP request, complete with its body. Hostile in every field.
struct Request {
    std::string method;  ///< upper case
    std::string path;    ///< decoded, begins with '/'
    std::string query;   ///< raw, without '?'
    Headers headers;
    std::string thread_id;  ///< the routing key that the edge found or minted, or empty
    std::string run_id;     ///< minted by the edge for what starts a run, or empty
    std::uint32_t hop = 0;  ///< how many engines have refused it or died with it
    bool late = false;      ///< it waited on its way; others may have had it meanwhile
    bool accepted = false;  ///< one of those had accepted its run: it is stored
    base::Instant deadline = base::Instant::max();  ///< the client waits no longer
    std::string body;

    /// thread_id and run_id are those that its Idempotency-Key stands for; set by a handler.
    bool key_claimed = false;
    bool key_is_new = false;          ///< no request with it came before
    const Route* route = nullptr;     ///< set by Handler::plan
    std::vector<std::string> params;  ///< path parameters, in order; set by Handler::plan

    /// @return nullptr if there is none; the first of several
    [[nodiscard]] const std::string* find_header(std::string_view name) const noexcept;
};

struct Response {
    std::uint16_t status = 200;
    Headers headers;
    std::string body;
};

/// A whole JSON answer; `json` is compact JSON text.
Response json_response(std::uint16_t status, std::string json);
/// {"detail", "code"} and "field" if known, with the status of error_traits.
Response error_response(const base::Error& error);
/// The body of error_response.
std::string error_json(const base::Error& error);

/// Most that may go out with a response's head: it is one frame, and needs no credit.
inline constexpr std::size_t kHeadBodyBytesMax = 64U << 10U;

/// Where one request is answered: either respond(), or start(), write()s and end(), or one of
/// moved() and refused(). Lives on the request's shard at least as long as its handler.
class ResponseSink {
public:
    virtual ~ResponseSink() = default;
    /// The request's run is on disk: nobody else may be given this request any more. Its body is
    /// let go of, as with the first of the response.
    /// @param epoch  of the thread; goes into all later frames
    virtual void accepted(std::int64_t epoch) = 0;
    /// Another engine owns the thread; nothing was done. Not after accepted().
    virtual void moved(std::string engine_id, std::string endpoint) = 0;
    /// Not taken; nothing was done, another engine may be tried. After accepted(): the run is not
    /// this engine's any more and goes on elsewhere.
    virtual void refused(base::ErrorCode code) = 0;
    /// The whole response. Suspends only when the body is too long for one frame.
    /// @return cancelled if the client is gone
    virtual base::Task<base::Status> respond(Response response) = 0;
    /// Status, headers and first bytes (at most kHeadBodyBytesMax) of a response that goes on.
    virtual void start(Response head) = 0;
    /// More bytes. Suspends until the client has room for them: a slow reader stops only its own
    /// stream. @return cancelled if the client is gone
    virtual base::Task<base::Status> write(std::string bytes) = 0;
    virtual void end() = 0;
    /// Breaks a started response off: the client sees that it is incomplete.
    virtual void fail(base::ErrorCode code) = 0;
    /// Cancelled when nobody waits for the answer any more: the client is gone (`cancelled`), or
    /// only the edge that it came through (`unavailable`).
    [[nodiscard]] virtual base::CancelSource& gone() noexcept = 0;
};

/// What to do with a request that has arrived, decided without a thread or a store.
struct Plan {
    std::optional<Response> answer;  ///< the whole answer; nothing else is to be done
    bool starts_work = false;        ///< refused while the engine drains
    base::ThreadId shard_key;        ///< it is handled on the shard of this thread
};

/// What the transport calls. Implemented by Api; tests have others.
class Handler {
public:
    virtual ~Handler() = default;
    /// On the transport's OS thread, microseconds at most. Fills request.route and request.params.
    virtual Plan plan(Request& request) = 0;
    /// Answers through `sink`, on the shard of Plan::shard_key. Both must outlive the task.
    /// @return a thread whose shard must handle it instead (the body named another one): nothing
    ///         was done, call again there
    virtual base::Task<std::optional<base::ThreadId>> handle(Request& request,
                                                             ResponseSink& sink) = 0;
};

/// The query string, decoded. '+' is a space; a broken escape stands for itself.
class Query {
public:
    explicit Query(std::string_view raw);

    /// @return nullptr if absent; the last of several
    [[nodiscard]] const std::string* find(std::string_view name) const noexcept;
    /// All values of a list parameter: repeated keys, or one JSON array as text (SDK 1.x
    /// and 2.0.0).
    [[nodiscard]] std::vector<std::string> list(std::string_view name) const;
    /// "1", "true", "0", "false". @return invalid_argument naming the parameter
    [[nodiscard]] base::Result<bool> flag(std::string_view name, bool otherwise) const;
    /// @return invalid_argument naming the parameter unless it is an integer in [least, most]
    [[nodiscard]] base::Result<std::int64_t> integer(std::string_view name,
                                                     std::int64_t otherwise,
                                                     std::int64_t least,
                                                     std::int64_t most) const;

private:
    std::vector<std::pair<std::string, std::string>> pairs_;
};

}  // namespace heddle::api
