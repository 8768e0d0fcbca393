#include <algorithm>
#include <exception>
#include <limits>

#include "shared/wire/frame.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::wire {

namespace {

/// nullptr: read. Otherwise why the frame is refused.
using Reason = const char*;

/// read_field() of a message answers this for a number that it does not know.
constexpr Reason kUnknownField = "unknown field";

constexpr std::uint64_t number_of(Kind kind) {
    return static_cast<std::uint64_t>(kind);
}

enum class Text { visible, any_byte };

bool is_visible(std::string_view text) {
    for (const char c : text) {
        if (c < 0x21 || c > 0x7e) {
            return false;
        }
    }
    return true;
}

Reason read_text(Cursor& in, std::string& out, std::size_t bytes_max, Text kind, Reason reason) {
    std::string_view bytes;
    if (!in.read_bytes(bytes) || bytes.size() > bytes_max) {
        return reason;
    }
    if (kind == Text::visible && !is_visible(bytes)) {
        return reason;
    }
    out.assign(bytes);
    return nullptr;
}

Reason read_name(Cursor& in, std::string& out, Reason reason) {
    return read_text(in, out, kNameBytesMax, Text::visible, reason);
}

Reason read_chunk(Cursor& in, std::string& out, Reason reason) {
    return read_text(in, out, kChunkBytesMax, Text::any_byte, reason);
}

template <class Number>
Reason read_number(Cursor& in, Number& out, std::uint64_t most, Reason reason) {
    std::uint64_t value = 0;
    if (!in.read_uint(value) || value > most) {
        return reason;
    }
    out = static_cast<Number>(value);
    return nullptr;
}

template <class Number>
Reason read_number(Cursor& in, Number& out, Reason reason) {
    return read_number(in, out, std::numeric_limits<Number>::max(), reason);
}

Reason read_flag(Cursor& in, bool& out, Reason reason) {
    return in.read_bool(out) ? nullptr : reason;
}

/// RFC 9110 "token" without capitals.
bool is_header_name(std::string_view name) {
    constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
    for (const char c : name) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!plain && kMarks.find(c) == std::string_view::npos) {
            return false;
        }
    }
    return !name.empty();
}

/// A line break or NUL in a value would let one side write headers of its own for the other.
bool is_header_value(std::string_view value) {
    for (const char c : value) {
        if (c == '\r' || c == '\n' || c == '\0') {
            return false;
        }
    }
    return true;
}

Reason read_headers(Cursor& in, Headers& out) {
    std::uint32_t count = 0;
    if (!in.read_array(count) || count % 2 != 0 || count / 2 > kHeadersMax) {
        return "headers: not a list of at most 64 pairs";
    }
    out.reserve(count / 2);
    std::size_t total = 0;
    for (std::uint32_t i = 0; i < count; i += 2) {
        std::string_view name;
        std::string_view value;
        if (!in.read_bytes(name) || !is_header_name(name)) {
            return "headers: bad name";
        }
        if (!in.read_bytes(value) || !is_header_value(value)) {
            return "headers: bad value";
        }
        total += name.size() + value.size();
        if (total > kHeaderBytesMax) {
            return "headers: too long";
        }
        out.emplace_back(name, value);
    }
    return nullptr;
}

Reason read_field(Cursor& in, std::uint64_t key, Hello& m) {
    switch (key) {
        case 1:
            return read_number(in, m.version_min, "version_min: not a number");
        case 2:
            return read_number(in, m.version_max, "version_max: not a number");
        case 3:
            return read_name(in, m.edge_id, "edge_id: not a name");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, Ping& m) {
    return key == 1 ? read_number(in, m.sequence, "sequence: not a number") : kUnknownField;
}

Reason read_target(Cursor& in, std::string& out, std::size_t other_bytes, Reason reason) {
    return read_text(in, out, kTargetBytesMax - std::min(kTargetBytesMax, other_bytes),
                     Text::any_byte, reason);
}

Reason read_field(Cursor& in, std::uint64_t key, Request& m) {
    switch (key) {
        case 1:
            return read_name(in, m.method, "method: not a name");
        case 2:
            return read_target(in, m.path, m.query.size(), "path: not bytes within bounds");
        case 3:
            return read_target(in, m.query, m.path.size(), "query: not bytes within bounds");
        case 4:
            return read_headers(in, m.headers);
        case 5:
            return read_name(in, m.thread_id, "thread_id: not a name");
        case 6:
            return read_name(in, m.run_id, "run_id: not a name");
        case 7:
            return read_number(in, m.deadline_ms, "deadline_ms: not a number");
        case 8:
            return read_number(in, m.credit, kCreditMax, "credit: out of bounds");
        case 9:
            return read_number(in, m.hop, "hop: not a number");
        case 10:
            return read_chunk(in, m.body, "body: not bytes within bounds");
        case 11:
            return read_flag(in, m.body_complete, "body_complete: not a flag");
        case 12:
            return read_flag(in, m.accepted, "accepted: not a flag");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, Body& m) {
    switch (key) {
        case 1:
            return read_chunk(in, m.bytes, "bytes: not bytes within bounds");
        case 2:
            return read_flag(in, m.last, "last: not a flag");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, Credit& m) {
    return key == 1 ? read_number(in, m.bytes, kCreditMax, "bytes: out of bounds") : kUnknownField;
}

Reason read_field(Cursor& in, std::uint64_t key, Cancel& m) {
    return key == 1 ? read_flag(in, m.detach, "detach: not a flag") : kUnknownField;
}

Reason read_field(Cursor& in, std::uint64_t key, Welcome& m) {
    switch (key) {
        case 1:
            return read_number(in, m.version, "version: not a number");
        case 2:
            return read_name(in, m.engine_id, "engine_id: not a name");
        case 3:
            return read_name(in, m.endpoint, "endpoint: not a name");
        case 4:
            return read_flag(in, m.draining, "draining: not a flag");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, Pong& m) {
    switch (key) {
        case 1:
            return read_number(in, m.sequence, "sequence: not a number");
        case 2:
            return read_name(in, m.engine_id, "engine_id: not a name");
        case 3:
            return read_flag(in, m.draining, "draining: not a flag");
        case 4:
            return read_number(in, m.threads_owned, "threads_owned: not a number");
        case 5:
            return read_number(in, m.runs_running, "runs_running: not a number");
        case 6:
            return read_number(in, m.runs_waiting, "runs_waiting: not a number");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& /*in*/, std::uint64_t /*key*/, HelloWanted& /*m*/) {
    return kUnknownField;
}

Reason read_field(Cursor& in, std::uint64_t key, Accepted& m) {
    return key == 1 ? read_number(in, m.epoch, "epoch: not a number") : kUnknownField;
}

Reason read_field(Cursor& in, std::uint64_t key, Head& m) {
    switch (key) {
        case 1:
            return read_number(in, m.epoch, "epoch: not a number");
        case 2:
            return read_number(in, m.status, "status: not a number");
        case 3:
            return read_headers(in, m.headers);
        case 4:
            return read_chunk(in, m.body, "body: not bytes within bounds");
        case 5:
            return read_flag(in, m.last, "last: not a flag");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, Data& m) {
    switch (key) {
        case 1:
            return read_chunk(in, m.bytes, "bytes: not bytes within bounds");
        case 2:
            return read_flag(in, m.last, "last: not a flag");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, End& m) {
    return key == 1 ? read_name(in, m.error, "error: not a name") : kUnknownField;
}

Reason read_field(Cursor& in, std::uint64_t key, Moved& m) {
    switch (key) {
        case 1:
            return read_name(in, m.engine_id, "engine_id: not a name");
        case 2:
            return read_name(in, m.endpoint, "endpoint: not a name");
        default:
            return kUnknownField;
    }
}

Reason read_field(Cursor& in, std::uint64_t key, Refused& m) {
    return key == 1 ? read_name(in, m.code, "code: not a name") : kUnknownField;
}

// What a message must have, once all its fields are read.
template <class Message>
Reason check(const Message& /*m*/) {
    return nullptr;
}

Reason check(const Hello& m) {
    if (m.edge_id.empty()) {
        return "edge_id: missing";
    }
    return m.version_min > m.version_max ? "version_min: above version_max" : nullptr;
}

Reason check(const Request& m) {
    if (m.method.empty()) {
        return "method: missing";
    }
    return m.path.empty() || m.path.front() != '/' ? "path: does not begin with /" : nullptr;
}

Reason check(const Welcome& m) {
    return m.engine_id.empty() ? "engine_id: missing" : nullptr;
}
Reason check(const Pong& m) {
    return m.engine_id.empty() ? "engine_id: missing" : nullptr;
}
Reason check(const Credit& m) {
    return m.bytes == 0 ? "bytes: missing" : nullptr;
}
Reason check(const Moved& m) {
    return m.endpoint.empty() ? "endpoint: missing" : nullptr;
}
Reason check(const Refused& m) {
    return m.code.empty() ? "code: missing" : nullptr;
}

Reason check(const Head& m) {
    return m.status < 200 || m.status > 599 ? "status: not within 200 to 599" : nullptr;
}

/// Reads the fields' map into `m`, and that nothing follows it.
template <class Message>
Reason read_fields(Cursor& in, Message& m) {
    std::uint32_t count = 0;
    if (!in.read_map(count)) {
        return "frame: fields are not a map";
    }
    std::uint64_t seen = 0;
    for (std::uint32_t i = 0; i < count; i++) {
        std::uint64_t key = 0;
        if (!in.read_uint(key)) {
            return "frame: a field's key is not a number";
        }
        if (key < 64) {
            const std::uint64_t bit = std::uint64_t{1} << key;
            if ((seen & bit) != 0) {
                return "frame: a field is repeated";
            }
            seen |= bit;
        }
        Reason reason = read_field(in, key, m);
        if (reason == kUnknownField) {
            reason = in.skip() ? nullptr : "frame: an unknown field cannot be skipped";
        }
        if (reason != nullptr) {
            return reason;
        }
    }
    if (!in.at_end()) {
        return "frame: bytes follow it";
    }
    return check(m);
}

template <class Variant, class Message>
Decoded<Variant> read_message(Cursor& in, RequestId id) {
    Message m;
    if constexpr (requires { m.id; }) {
        if (id == 0) {
            return DecodeError{"request_id: 0"};
        }
        m.id = id;
    } else if (id != 0) {
        return DecodeError{"request_id: not 0"};
    }
    if (const Reason reason = read_fields(in, m); reason != nullptr) {
        return DecodeError{reason};
    }
    return Variant{std::move(m)};
}

/// The array's header, the kind and the request's id.
Reason read_envelope(std::string_view frame, Cursor& in, std::uint64_t& kind, RequestId& id) {
    if (frame.size() > kFrameBytesMax) {
        return "frame: too long";
    }
    std::uint32_t count = 0;
    if (!in.read_array(count) || count != 3) {
        return "frame: not a list of three";
    }
    if (!in.read_uint(kind)) {
        return "kind: not a number";
    }
    return in.read_uint(id) ? nullptr : "request_id: not a number";
}

Decoded<EdgeMessage> decode_edge_or_throw(std::string_view frame) {
    Cursor in{frame};
    std::uint64_t kind = 0;
    RequestId id = 0;
    if (const Reason reason = read_envelope(frame, in, kind, id); reason != nullptr) {
        return DecodeError{reason};
    }
    switch (kind) {
        case number_of(Kind::hello):
            return read_message<EdgeMessage, Hello>(in, id);
        case number_of(Kind::ping):
            return read_message<EdgeMessage, Ping>(in, id);
        case number_of(Kind::request):
            return read_message<EdgeMessage, Request>(in, id);
        case number_of(Kind::body):
            return read_message<EdgeMessage, Body>(in, id);
        case number_of(Kind::credit):
            return read_message<EdgeMessage, Credit>(in, id);
        case number_of(Kind::cancel):
            return read_message<EdgeMessage, Cancel>(in, id);
        default:
            return DecodeError{"unknown kind"};
    }
}

Decoded<EngineMessage> decode_engine_or_throw(std::string_view frame) {
    Cursor in{frame};
    std::uint64_t kind = 0;
    RequestId id = 0;
    if (const Reason reason = read_envelope(frame, in, kind, id); reason != nullptr) {
        return DecodeError{reason};
    }
    switch (kind) {
        case number_of(Kind::welcome):
            return read_message<EngineMessage, Welcome>(in, id);
        case number_of(Kind::pong):
            return read_message<EngineMessage, Pong>(in, id);
        case number_of(Kind::hello_wanted):
            return read_message<EngineMessage, HelloWanted>(in, id);
        case number_of(Kind::accepted):
            return read_message<EngineMessage, Accepted>(in, id);
        case number_of(Kind::head):
            return read_message<EngineMessage, Head>(in, id);
        case number_of(Kind::data):
            return read_message<EngineMessage, Data>(in, id);
        case number_of(Kind::end):
            return read_message<EngineMessage, End>(in, id);
        case number_of(Kind::moved):
            return read_message<EngineMessage, Moved>(in, id);
        case number_of(Kind::refused):
            return read_message<EngineMessage, Refused>(in, id);
        default:
            return DecodeError{"unknown kind"};
    }
}

}  // namespace

Decoded<EdgeMessage> decode_edge(std::string_view frame) noexcept try {
    return decode_edge_or_throw(frame);
} catch (const std::exception&) {
    return DecodeError{"frame: no memory for it"};
}

Decoded<EngineMessage> decode_engine(std::string_view frame) noexcept try {
    return decode_engine_or_throw(frame);
} catch (const std::exception&) {
    return DecodeError{"frame: no memory for it"};
}

}  // namespace heddle::wire
