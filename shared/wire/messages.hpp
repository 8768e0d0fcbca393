#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// The messages of the Heddle wire protocol, version 1. shared/wire/README.md is normative; this is
/// its C++ form, compiled into the engine and into the nginx module. No exception leaves this
/// library and nothing here keeps state.
namespace heddle::wire {

inline constexpr std::uint32_t kVersion = 1;

// Bounds of the protocol; a frame outside them is refused whole.
inline constexpr std::size_t kFrameBytesMax = 1U << 20U;    ///< one encoded frame
inline constexpr std::size_t kChunkBytesMax = 256U << 10U;  ///< payload of body and data
inline constexpr std::size_t kHeadersMax = 64;              ///< pairs in request and head
inline constexpr std::size_t kHeaderBytesMax = 64U << 10U;  ///< all header names and values
inline constexpr std::size_t kTargetBytesMax = 16U << 10U;  ///< path plus query
inline constexpr std::size_t kNameBytesMax = 256;           ///< ids, endpoints, codes
inline constexpr std::uint64_t kCreditMax = 16U << 20U;     ///< outstanding bytes of one stream

/// Chosen by the edge: unique among its open requests on one connection, never 0. 0 stands for
/// "the connection itself".
using RequestId = std::uint64_t;
using Headers = std::vector<std::pair<std::string, std::string>>;  // names in lower case

// ---- edge -> engine

/// First on every connection and again whenever an engine asks (HelloWanted).
struct Hello {
    std::uint32_t version_min = kVersion;
    std::uint32_t version_max = kVersion;
    std::string edge_id;  ///< new at each start of an nginx worker
};

/// Once a second and connection; an engine forgets an edge after 10 s of silence.
struct Ping {
    std::uint64_t sequence = 0;
};

/// One HTTP request. What does not fit the first frame follows in Body frames.
struct Request {
    RequestId id = 0;
    std::string method;             ///< upper case
    std::string path;               ///< location prefix stripped, normalised, begins with '/'
    std::string query;              ///< raw, without '?'
    Headers headers;                ///< those the engine may see
    std::string thread_id;          ///< the routing key, or empty
    std::string run_id;             ///< minted by the edge for what starts a run, or empty
    std::uint64_t deadline_ms = 0;  ///< from receipt; 0 is none
    std::uint64_t credit = 0;       ///< bytes of Data the engine may send before more is granted
    std::uint32_t hop = 0;          ///< how many engines have answered `moved` or died so far
    std::string body;               ///< the first part
    bool body_complete = true;      ///< false: Body frames follow
    bool accepted = false;          ///< an engine has said Accepted for this run_id before
};

struct Body {
    RequestId id = 0;
    std::string bytes;  ///< at most kChunkBytesMax
    bool last = false;
};

/// The client has taken `bytes` more: the engine may send as many again.
struct Credit {
    RequestId id = 0;
    std::uint64_t bytes = 0;
};

/// Nothing more is wanted for this id. Unknown ids are ignored.
struct Cancel {
    RequestId id = 0;
    bool detach = false;  ///< the edge lets go, not the client: its run is not to be cancelled
};

// ---- engine -> edge

/// Answers Hello, and first thing to an edge that the engine does not know.
struct Welcome {
    std::uint32_t version = kVersion;
    std::string engine_id;  ///< new at each start of the engine
    std::string endpoint;   ///< as other engines name it in `moved`
    bool draining = false;
};

/// Answers Ping. The figures are for balancing and for heddle_status.
struct Pong {
    std::uint64_t sequence = 0;
    std::string engine_id;
    bool draining = false;
    std::uint64_t threads_owned = 0;
    std::uint64_t runs_running = 0;
    std::uint64_t runs_waiting = 0;
};

/// A frame came from an edge that has not said Hello (the engine restarted): say it, then resend.
struct HelloWanted {};

/// The request's run is durably accepted: from here on nobody else may be given this request.
struct Accepted {
    RequestId id = 0;
    std::uint64_t epoch = 0;
};

struct Head {
    RequestId id = 0;
    std::uint64_t epoch = 0;  ///< of the thread, 0 if none: the edge drops frames of older epochs
    std::uint16_t status = 200;
    Headers headers;
    std::string body;   ///< first bytes of the response; not counted against credit
    bool last = false;  ///< the response is complete with this frame
};

struct Data {
    RequestId id = 0;
    std::string bytes;  ///< at most kChunkBytesMax; whole events, so that the edge flushes each
    bool last = false;
};

/// The response is complete, or broken off with `error` (a code of the HTTP API) after Head.
struct End {
    RequestId id = 0;
    std::string error;
};

/// Another engine owns the thread; nothing was done.
struct Moved {
    RequestId id = 0;
    std::string engine_id;
    std::string endpoint;
};

/// Not taken (draining or overloaded); nothing was done, another engine may be tried.
struct Refused {
    RequestId id = 0;
    std::string code;
};

using EdgeMessage = std::variant<Hello, Ping, Request, Body, Credit, Cancel>;
using EngineMessage =
    std::variant<Welcome, Pong, HelloWanted, Accepted, Head, Data, End, Moved, Refused>;

/// Appends nothing, returns the frame. Fields past their bounds are our own bug: the receiver will
/// refuse the frame, so callers cut them first. Without memory the frame is empty. Any OS thread.
std::string encode(const EdgeMessage& message);
std::string encode(const EngineMessage& message);

/// Why a frame was refused: a short English phrase naming the field. Static storage.
struct DecodeError {
    std::string_view reason;
};
template <class T>
using Decoded = std::variant<T, DecodeError>;

/// Reads one frame from outside. Never throws, never reads past `frame`, allocates at most a small
/// multiple of its size. Unknown fields are skipped; an unknown kind gives "unknown kind" (skip the
/// frame and count it); anything else out of bounds refuses the frame.
Decoded<EdgeMessage> decode_edge(std::string_view frame) noexcept;
Decoded<EngineMessage> decode_engine(std::string_view frame) noexcept;

}  // namespace heddle::wire
