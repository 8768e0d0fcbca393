#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "ngx_module/channel.hpp"
#include "ngx_module/conf.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::ngx {

class PoolPeers;
struct Call;

/// Parts of one body, of kChunkBytesMax, that may wait for the engine to read them.
inline constexpr std::size_t kBodyPartsQueuedMax = 4;

/// A timer that knows its call. nginx logs a timer's descriptor through event.data, so that must be
/// the connection and cannot be the call.
struct CallTimer {
    ngx_event_t event;  ///< must come first: nginx hands out only this
    Call* call;
};

/// What is known of one HTTP request between its body and its last byte. Lives in the request's
/// pool; r->ctx points to it. Whoever is called back by the engine or a timer finds it by `id`.
struct Call {
    explicit Call(ngx_http_request_t* r) noexcept : request{r}, conf{loc_conf(r)} {}
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    ngx_http_request_t* request;
    const LocConf* conf;
    PoolPeers* peers = nullptr;

    // Routing.
    wire::RequestId id = 0;      ///< 0: not with an engine
    Channel* channel = nullptr;  ///< the latest engine; null before the first
    std::uint64_t hello_serial = 0;
    std::uint64_t queued_at = 0;  ///< the channel's queued_total() before this
    ngx_str_t path{};             ///< what the engine sees
    ngx_str_t thread_id{};        ///< routing key, empty if none
    ngx_str_t run_id{};           ///< minted, or empty
    std::uint64_t key_hash = 0;
    std::uint64_t tried = 0;       ///< bit i: engine i has had it and cannot have it again
    std::uint64_t ask_later = 0;   ///< bit i: engine i could not have it; asked again at a tick
    std::uint32_t hop = 0;         ///< engines that have had it; asking again adds none
    bool retry_safe = false;       ///< may be repeated though an engine may have done it already
    bool with_engine = false;      ///< `channel` counts it among its own
    bool waiting = false;          ///< for an engine to come up
    bool was_refused = false;      ///< by at least one engine, which lives
    bool was_overload = false;     ///< one of them had too much to do
    ngx_msec_t waiting_since = 0;  ///< the first time; the patience for all of it counts from then
    bool accepted = false;         ///< by an engine, durably: its run goes on whoever dies
    bool taken = false;            ///< the present engine has said that it has the run
    bool kept = false;             ///< though its client has left: an engine is to be told so
    bool done = false;             ///< nothing more is to be done for it
    std::string_view error{};      ///< code of the error that the module answered

    // The request's body on its way to the engine.
    ngx_chain_t* body_at = nullptr;  ///< the buffer to send next
    off_t body_offset = 0;           ///< bytes of it that have been sent
    off_t body_left = 0;
    /// Where the latest parts end among what the channel has queued: so many may wait, no more.
    std::array<std::uint64_t, kBodyPartsQueuedMax> part_ends{};
    std::size_t part_turn = 0;

    // The response on its way to the client.
    std::uint64_t epoch = 0;  ///< the highest of the thread that an engine has named
    bool head_sent = false;   ///< to the client
    bool answering = false;   ///< the present engine has sent a head
    bool is_event_stream = false;
    bool between_events = true;     ///< the bytes so far end where an event ends
    bool body_begun = false;        ///< more than white space has been sent of another body
    std::string tail;               ///< the newest bytes of an event stream
    std::string last_event_id;      ///< of the newest whole event that was sent
    std::uint64_t credit_left = 0;  ///< bytes of Data that the engine may still send
    /// Bytes that have left since the last grant; below 0 by those that needed no credit.
    std::int64_t consumed = 0;
    ngx_chain_t* free = nullptr;
    ngx_chain_t* busy = nullptr;

    ngx_queue_t stream{};  ///< among the event streams of its worker and pool; prev null: not one

    CallTimer timeout{};  ///< connect_timeout while waiting, then read_timeout
    CallTimer pump{};     ///< goes on with the body or with a grant that did not fit
};

[[nodiscard]] inline Call* call_of(ngx_http_request_t* r) noexcept {
    return static_cast<Call*>(ngx_http_get_module_ctx(r, ngx_http_heddle_module));
}

}  // namespace heddle::ngx
