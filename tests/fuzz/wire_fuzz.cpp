// libFuzzer's entry for shared/wire: whatever the bytes, decoding ends without a crash, and what it
// accepts survives being encoded and decoded again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "shared/wire/messages.hpp"

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view frame{reinterpret_cast<const char*>(data), size};
    check<heddle::wire::EdgeMessage>(frame, heddle::wire::decode_edge);
    check<heddle::wire::EngineMessage>(frame, heddle::wire::decode_engine);
    return 0;
}
