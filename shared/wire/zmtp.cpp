#include "shared/wire/zmtp.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include <sys/uio.h>

#include "shared/wire/messages.hpp"

namespace heddle::wire {
namespace {

constexpr std::size_t kGreetingBytes = 64;
constexpr std::size_t kSignatureBytes = 10;
constexpr std::size_t kMajorAt = 10;
constexpr std::size_t kMechanismAt = 12;
constexpr std::size_t kMechanismBytes = 20;
constexpr std::string_view kMechanism = "NULL";
constexpr char kMajor = 3;

constexpr std::uint8_t kMore = 1;
constexpr std::uint8_t kLong = 2;
constexpr std::uint8_t kCommand = 4;
constexpr std::size_t kShortHeader = 2;
constexpr std::size_t kLongHeader = 9;
constexpr std::size_t kShortMax = 255;
// A peer's READY may carry properties of its own; nothing in NULL needs more.
constexpr std::size_t kCommandBytesMax = 4'096;
constexpr std::size_t kPingTtlBytes = 2;
constexpr std::size_t kPingContextMax = 16;

constexpr std::size_t kReadBytes = std::size_t{64} << 10U;
constexpr std::size_t kReadBytesMin = std::size_t{16} << 10U;
// One large frame does not keep its memory for the life of the connection.
constexpr std::size_t kKeptBytesMax = std::size_t{512} << 10U;
// A frame of this size or more is handed to the socket where it lies; a smaller one is copied.
constexpr std::size_t kOwnChunkMin = std::size_t{8} << 10U;
constexpr std::size_t kJoinedMax = std::size_t{64} << 10U;

std::uint8_t byte_at(std::string_view bytes, std::size_t at) noexcept {
    return static_cast<std::uint8_t>(bytes[at]);
}

std::uint64_t big_endian(std::string_view bytes) noexcept {
    std::uint64_t value = 0;
    for (const char byte : bytes) {
        value = (value << 8U) | static_cast<std::uint8_t>(byte);
    }
    return value;
}

void append_big_endian(std::string& out, std::uint64_t value, std::size_t width) {
    for (std::size_t i = width; i-- > 0;) {
        out.push_back(static_cast<char>((value >> (8U * i)) & 0xffU));
    }
}

void append_header(std::string& out, std::uint8_t flags, std::size_t bytes) {
    if (bytes <= kShortMax) {
        out.push_back(static_cast<char>(flags));
        out.push_back(static_cast<char>(bytes));
        return;
    }
    out.push_back(static_cast<char>(flags | kLong));
    append_big_endian(out, bytes, 8);
}

std::string command(std::string_view name, std::string_view data) {
    std::string out;
    append_header(out, kCommand, 1 + name.size() + data.size());
    out.push_back(static_cast<char>(name.size()));
    out.append(name).append(data);
    return out;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string zmtp_greeting() {
    std::string out(kGreetingBytes, '\0');
    out[0] = '\xff';
    out[kSignatureBytes - 1] = '\x7f';
    out[kMajorAt] = kMajor;
    std::memcpy(&out[kMechanismAt], kMechanism.data(), kMechanism.size());
    return out;
}

std::string zmtp_ready(SocketKind self) {
    constexpr std::string_view kName = "Socket-Type";
    const std::string_view kind = self == SocketKind::dealer ? "DEALER" : "ROUTER";
    std::string properties;
    properties.push_back(static_cast<char>(kName.size()));
    properties.append(kName);
    append_big_endian(properties, kind.size(), 4);
    properties.append(kind);
    return command("READY", properties);
}

std::string zmtp_pong(std::string_view context) {
    return command("PONG", context);
}

std::span<char> ZmtpReader::room() {
    payload_ = {};
    if (begin_ == end_) {
        begin_ = end_ = 0;
        if (buffer_.size() > kKeptBytesMax) {
            buffer_ = {};
        }
    }
    if (buffer_.size() - end_ < kReadBytesMin && begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
    }
    if (buffer_.size() - end_ < kReadBytesMin) {
        // By doubling, not to what is announced: a peer must send much before it costs much.
        buffer_.resize(std::max(kReadBytes, std::min(2 * end_, wanted_) + kReadBytesMin));
    }
    return {buffer_.data() + end_, buffer_.size() - end_};
}

ZmtpReader::Event ZmtpReader::break_off(const char* reason) noexcept {
    state_ = State::broken;
    reason_ = reason;
    payload_ = {};
    return Event::broken;
}

ZmtpReader::Event ZmtpReader::read_greeting() noexcept {
    const auto have = unread();
    if (!have.empty() && byte_at(have, 0) != 0xff) {
        return break_off("it does not speak ZMTP");
    }
    if (have.size() >= kSignatureBytes && (byte_at(have, kSignatureBytes - 1) & 1U) == 0) {
        return break_off("it does not speak ZMTP");
    }
    if (have.size() > kMajorAt && have[kMajorAt] < kMajor) {
        return break_off("it speaks an older ZMTP than 3");
    }
    if (have.size() < kGreetingBytes) {
        return Event::none;
    }
    std::array<char, kMechanismBytes> mechanism{};
    std::memcpy(mechanism.data(), kMechanism.data(), kMechanism.size());
    if (have.substr(kMechanismAt, kMechanismBytes) !=
        std::string_view{mechanism.data(), mechanism.size()}) {
        return break_off("it wants a security mechanism other than NULL");
    }
    begin_ += kGreetingBytes;
    state_ = State::handshake;
    return Event::greeted;
}

bool ZmtpReader::is_ready_from_our_kind(std::string_view properties) const noexcept {
    bool fits = false;
    while (!properties.empty()) {
        const std::size_t name_bytes = byte_at(properties, 0);
        properties.remove_prefix(1);
        if (properties.size() < name_bytes + 4) {
            return false;
        }
        const auto name = properties.substr(0, name_bytes);
        const auto value_bytes = big_endian(properties.substr(name_bytes, 4));
        properties.remove_prefix(name_bytes + 4);
        if (properties.size() < value_bytes) {
            return false;
        }
        const auto value = properties.substr(0, value_bytes);
        properties.remove_prefix(value_bytes);
        if (equals_ignoring_case(name, "Socket-Type")) {
            fits = value == "ROUTER" || (self_ == SocketKind::router && value == "DEALER");
        }
    }
    return fits;
}

ZmtpReader::Event ZmtpReader::on_command(std::string_view body) noexcept {
    const std::size_t name_bytes = body.empty() ? 0 : byte_at(body, 0);
    if (name_bytes == 0 || body.size() < 1 + name_bytes) {
        return break_off("it sent a command without a name");
    }
    const auto name = body.substr(1, name_bytes);
    const auto data = body.substr(1 + name_bytes);
    if (state_ == State::handshake) {
        if (name == "READY" && is_ready_from_our_kind(data)) {
            state_ = State::open;
            return Event::ready;
        }
        return break_off(name == "ERROR" ? "it refused the handshake"
                                         : "it is no socket that this one can talk to");
    }
    if (name == "PING" && data.size() >= kPingTtlBytes &&
        data.size() - kPingTtlBytes <= kPingContextMax) {
        payload_ = data.substr(kPingTtlBytes);
        return Event::ping;
    }
    return Event::none;  // commands that a later version may bring
}

ZmtpReader::Event ZmtpReader::next() {
    payload_ = {};
    if (state_ == State::broken) {
        return Event::broken;
    }
    if (state_ == State::greeting) {
        return read_greeting();
    }
    for (;;) {
        const auto have = unread();
        wanted_ = 0;
        if (have.size() < kShortHeader) {
            return Event::none;
        }
        const std::uint8_t flags = byte_at(have, 0);
        const bool is_command = (flags & kCommand) != 0;
        const bool is_long = (flags & kLong) != 0;
        const std::size_t header = is_long ? kLongHeader : kShortHeader;
        if ((flags & ~(kMore | kLong | kCommand)) != 0 || (is_command && (flags & kMore) != 0)) {
            return break_off("it set flags that ZMTP does not have");
        }
        if (have.size() < header) {
            return Event::none;
        }
        const std::uint64_t bytes = is_long ? big_endian(have.substr(1, 8)) : byte_at(have, 1);
        if (bytes > (is_command ? kCommandBytesMax : kFrameBytesMax)) {
            return break_off("it sent a frame over the limit");
        }
        if (have.size() < header + bytes) {
            wanted_ = header + bytes;
            return Event::none;
        }
        const auto body = have.substr(header, bytes);
        begin_ += header + bytes;
        if (is_command) {
            const Event event = on_command(body);
            if (event != Event::none) {
                return event;
            }
            continue;
        }
        if (state_ != State::open) {
            return break_off("it sent a message before it was ready");
        }
        const bool more = (flags & kMore) != 0;
        if (more || in_multipart_) {
            in_multipart_ = more;
            if (more) {
                continue;
            }
            return Event::multipart;
        }
        payload_ = body;
        return Event::frame;
    }
}

std::string& ZmtpSendQueue::joinable(std::size_t bytes) {
    if (chunks_.empty() || chunks_.back().size() + bytes > kJoinedMax) {
        chunks_.push_back(std::move(spare_));
        spare_.clear();
        chunks_.back().clear();
    }
    return chunks_.back();
}

void ZmtpSendQueue::push_raw(std::string_view bytes) {
    joinable(bytes.size()).append(bytes);
    pushed_total_ += bytes.size();
}

void ZmtpSendQueue::push(std::string_view frame) {
    std::string& chunk = joinable(frame.size() + kLongHeader);
    const std::size_t before = chunk.size();
    append_header(chunk, 0, frame.size());
    chunk.append(frame);
    pushed_total_ += chunk.size() - before;
}

void ZmtpSendQueue::push(std::string&& frame) {
    if (frame.size() < kOwnChunkMin) {
        push(std::string_view{frame});
        return;
    }
    std::string& chunk = joinable(kLongHeader);
    const std::size_t before = chunk.size();
    append_header(chunk, 0, frame.size());
    pushed_total_ += chunk.size() - before + frame.size();
    chunks_.push_back(std::move(frame));
    chunks_.emplace_back();  // what follows must not be appended to a chunk that may be large
}

std::size_t ZmtpSendQueue::peek(std::array<iovec, kVectorsMax>& vectors) const noexcept {
    std::size_t count = 0;
    std::size_t offset = first_at_;
    for (const auto& chunk : chunks_) {
        if (count == vectors.size()) {
            break;
        }
        if (chunk.size() > offset) {
            // iovec is for reading as well, hence its pointer to what is not const.
            vectors[count++] = {const_cast<char*>(chunk.data()) + offset,  // NOLINT
                                chunk.size() - offset};
        }
        offset = 0;
    }
    return count;
}

void ZmtpSendQueue::written(std::size_t bytes) noexcept {
    written_total_ += bytes;
    while (!chunks_.empty()) {
        std::string& first = chunks_.front();
        const std::size_t left = first.size() - first_at_;
        if (bytes < left) {
            first_at_ += bytes;
            return;
        }
        bytes -= left;
        first_at_ = 0;
        if (first.capacity() > spare_.capacity() && first.capacity() <= 2 * kJoinedMax) {
            spare_ = std::move(first);
        }
        chunks_.pop_front();
    }
}

void ZmtpSendQueue::clear() noexcept {
    chunks_.clear();
    first_at_ = 0;
    written_total_ = pushed_total_;
}

}  // namespace heddle::wire
