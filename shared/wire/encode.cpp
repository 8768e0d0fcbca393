#include <exception>
#include <utility>

#include <msgpack/pack.hpp>

#include "shared/wire/frame.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::wire {

namespace {

/// What msgpack's packer writes to.
struct Sink {
    std::string bytes;
    void write(const char* data, std::size_t length) { bytes.append(data, length); }
};

/// Writes one frame: the envelope, then fields, counting them into the map's header.
class Writer {
public:
    Writer(Kind kind, RequestId id, std::size_t payload_bytes) : packer_{sink_} {
        sink_.bytes.reserve(payload_bytes + kEnvelopeBytes);
        packer_.pack_array(3);
        packer_.pack_uint64(static_cast<std::uint8_t>(kind));
        packer_.pack_uint64(id);
        map_at_ = sink_.bytes.size();
        packer_.pack_map(0);
    }

    void number(std::uint8_t key, std::uint64_t value) {
        start(key);
        packer_.pack_uint64(value);
    }
    void number_unless(std::uint64_t usual, std::uint8_t key, std::uint64_t value) {
        if (value != usual) {
            number(key, value);
        }
    }
    void flag_unless(bool usual, std::uint8_t key, bool value) {
        if (value != usual) {
            start(key);
            value ? packer_.pack_true() : packer_.pack_false();
        }
    }
    void text(std::uint8_t key, std::string_view value) {
        if (!value.empty()) {
            start(key);
            pack_text(value);
        }
    }
    void binary(std::uint8_t key, std::string_view value) {
        if (!value.empty()) {
            start(key);
            pack_binary(value);
        }
    }
    void headers(std::uint8_t key, const Headers& headers) {
        if (headers.empty()) {
            return;
        }
        start(key);
        packer_.pack_array(static_cast<std::uint32_t>(headers.size() * 2));
        for (const auto& [name, value] : headers) {
            pack_text(name);
            pack_binary(value);
        }
    }

    std::string finish() {
        // No kind has more than 15 fields, so the map's header is always the one byte.
        sink_.bytes[map_at_] = static_cast<char>(0x80U | fields_);
        return std::move(sink_.bytes);
    }

private:
    // Envelope, keys, numbers and length prefixes of the largest kind, without its headers.
    static constexpr std::size_t kEnvelopeBytes = 96;

    void start(std::uint8_t key) {
        fields_++;
        packer_.pack_uint8(key);
    }
    void pack_text(std::string_view value) {
        packer_.pack_str(static_cast<std::uint32_t>(value.size()));
        packer_.pack_str_body(value.data(), static_cast<std::uint32_t>(value.size()));
    }
    void pack_binary(std::string_view value) {
        packer_.pack_bin(static_cast<std::uint32_t>(value.size()));
        packer_.pack_bin_body(value.data(), static_cast<std::uint32_t>(value.size()));
    }

    Sink sink_;
    msgpack::packer<Sink> packer_;
    std::size_t map_at_ = 0;
    std::uint8_t fields_ = 0;
};

std::size_t size_of(const Headers& headers) {
    constexpr std::size_t kPrefixes = 8;  // of a name and of its value
    std::size_t total = 0;
    for (const auto& [name, value] : headers) {
        total += name.size() + value.size() + kPrefixes;
    }
    return total;
}

std::string write(const Hello& m) {
    Writer w{Kind::hello, 0, m.edge_id.size()};
    w.number(1, m.version_min);
    w.number(2, m.version_max);
    w.text(3, m.edge_id);
    return w.finish();
}

std::string write(const Ping& m) {
    Writer w{Kind::ping, 0, 0};
    w.number_unless(0, 1, m.sequence);
    return w.finish();
}

std::string write(const Request& m) {
    Writer w{Kind::request, m.id,
             m.method.size() + m.path.size() + m.query.size() + size_of(m.headers) +
                 m.thread_id.size() + m.run_id.size() + m.body.size()};
    w.text(1, m.method);
    w.binary(2, m.path);
    w.binary(3, m.query);
    w.headers(4, m.headers);
    w.text(5, m.thread_id);
    w.text(6, m.run_id);
    w.number_unless(0, 7, m.deadline_ms);
    w.number_unless(0, 8, m.credit);
    w.number_unless(0, 9, m.hop);
    w.binary(10, m.body);
    w.flag_unless(true, 11, m.body_complete);
    w.flag_unless(false, 12, m.accepted);
    return w.finish();
}

std::string write(const Body& m) {
    Writer w{Kind::body, m.id, m.bytes.size()};
    w.binary(1, m.bytes);
    w.flag_unless(false, 2, m.last);
    return w.finish();
}

std::string write(const Credit& m) {
    Writer w{Kind::credit, m.id, 0};
    w.number_unless(0, 1, m.bytes);
    return w.finish();
}

std::string write(const Cancel& m) {
    Writer w{Kind::cancel, m.id, 0};
    w.flag_unless(false, 1, m.detach);
    return w.finish();
}

std::string write(const Welcome& m) {
    Writer w{Kind::welcome, 0, m.engine_id.size() + m.endpoint.size()};
    w.number(1, m.version);
    w.text(2, m.engine_id);
    w.text(3, m.endpoint);
    w.flag_unless(false, 4, m.draining);
    return w.finish();
}

std::string write(const Pong& m) {
    Writer w{Kind::pong, 0, m.engine_id.size()};
    w.number_unless(0, 1, m.sequence);
    w.text(2, m.engine_id);
    w.flag_unless(false, 3, m.draining);
    w.number_unless(0, 4, m.threads_owned);
    w.number_unless(0, 5, m.runs_running);
    w.number_unless(0, 6, m.runs_waiting);
    return w.finish();
}

std::string write(const HelloWanted& /*unused*/) {
    return Writer{Kind::hello_wanted, 0, 0}.finish();
}

std::string write(const Accepted& m) {
    Writer w{Kind::accepted, m.id, 0};
    w.number_unless(0, 1, m.epoch);
    return w.finish();
}

std::string write(const Head& m) {
    Writer w{Kind::head, m.id, size_of(m.headers) + m.body.size()};
    w.number_unless(0, 1, m.epoch);
    w.number_unless(200, 2, m.status);
    w.headers(3, m.headers);
    w.binary(4, m.body);
    w.flag_unless(false, 5, m.last);
    return w.finish();
}

std::string write(const Data& m) {
    Writer w{Kind::data, m.id, m.bytes.size()};
    w.binary(1, m.bytes);
    w.flag_unless(false, 2, m.last);
    return w.finish();
}

std::string write(const End& m) {
    Writer w{Kind::end, m.id, m.error.size()};
    w.text(1, m.error);
    return w.finish();
}

std::string write(const Moved& m) {
    Writer w{Kind::moved, m.id, m.engine_id.size() + m.endpoint.size()};
    w.text(1, m.engine_id);
    w.text(2, m.endpoint);
    return w.finish();
}

std::string write(const Refused& m) {
    Writer w{Kind::refused, m.id, m.code.size()};
    w.text(1, m.code);
    return w.finish();
}

template <class Message>
std::string encode_any(const Message& message) noexcept try {
    return std::visit([](const auto& m) { return write(m); }, message);
} catch (const std::exception&) {  // no memory; the header promises an empty frame for it
    return {};
}

}  // namespace

std::string encode(const EdgeMessage& message) {
    return encode_any(message);
}
std::string encode(const EngineMessage& message) {
    return encode_any(message);
}

}  // namespace heddle::wire
