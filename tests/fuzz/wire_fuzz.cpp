// libFuzzer's entry for shared/wire: whatever the bytes, decoding ends without a crash, and what it
// accepts survives being encoded and decoded again. The bytes are also what a peer says on a ZMTP
// connection: from its first byte, and behind a proper handshake, in pieces.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "shared/wire/messages.hpp"
#include "shared/wire/zmtp.hpp"

namespace {

template <class Message, class Decode>
void check(std::string_view frame, Decode decode) {
    using heddle::wire::encode;
    const auto decoded = decode(frame);
    const auto* message = std::get_if<Message>(&decoded);
    if (message == nullptr) {
        return;
    }
    const auto once = encode(*message);
    const auto again = decode(once);
    const auto* same = std::get_if<Message>(&again);
    if (same == nullptr || encode(*same) != once) {
        std::abort();
    }
}

/// @return the payloads of all frames, one after the other
std::string frames_in(std::string_view bytes, std::size_t piece) {
    using heddle::wire::ZmtpReader;
    ZmtpReader reader{heddle::wire::SocketKind::router};
    std::string frames;
    while (!bytes.empty()) {
        const auto room = reader.room();
        const auto taken = std::min({piece, room.size(), bytes.size()});
        if (taken == 0) {
            std::abort();
        }
        std::memcpy(room.data(), bytes.data(), taken);
        reader.filled(taken);
        bytes.remove_prefix(taken);
        for (auto event = reader.next(); event != ZmtpReader::Event::none; event = reader.next()) {
            if (event == ZmtpReader::Event::broken) {
                return frames;
            }
            if (event == ZmtpReader::Event::frame) {
                frames.append(reader.payload()).push_back('|');
            }
        }
    }
    return frames;
}

/// What frames a connection carries does not depend on how its bytes are cut.
void check_connection(std::string_view bytes) {
    const std::size_t piece = bytes.empty() ? 1 : 1 + static_cast<std::uint8_t>(bytes[0]) % 16;
    if (frames_in(bytes, piece) != frames_in(bytes, bytes.size())) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view frame{reinterpret_cast<const char*>(data), size};
    check<heddle::wire::EdgeMessage>(frame, heddle::wire::decode_edge);
    check<heddle::wire::EngineMessage>(frame, heddle::wire::decode_engine);
    check_connection(frame);
    check_connection(heddle::wire::zmtp_greeting() +
                     heddle::wire::zmtp_ready(heddle::wire::SocketKind::dealer) +
                     std::string{frame});
    return 0;
}
