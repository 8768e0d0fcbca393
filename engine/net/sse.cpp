#include "engine/net/sse.hpp"

#include <fmt/format.h>

namespace heddle::net {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

base::Status SseDecoder::feed(std::string_view piece, OnEvent& on_event) {
    while (!piece.empty()) {
        if (after_cr_ && piece.front() == '\n') {
            piece.remove_prefix(1);
        }
        after_cr_ = false;
        const auto end = piece.find_first_of("\r\n");
        const auto part = piece.substr(0, end);
        if (line_.size() + data_.size() + part.size() > event_bytes_max_) {
            return base::Error{
                base::ErrorCode::payload_too_large,
                fmt::format("an event of the stream is larger than {} bytes", event_bytes_max_)};
        }
        line_ += part;
        if (end == std::string_view::npos) {
            return base::ok();
        }
        after_cr_ = piece[end] == '\r';
        piece.remove_prefix(end + 1);
        const std::string line = std::exchange(line_, {});
        if (auto taken = take_line(line, on_event); !taken) {
            return taken;
        }
    }
    return base::ok();
}

base::Status SseDecoder::take_line(std::string_view line, OnEvent& on_event) {
    if (std::exchange(at_start_, false) && line.starts_with(kByteOrderMark)) {
        line.remove_prefix(kByteOrderMark.size());
    }
    if (line.empty()) {
        const std::string name = std::exchange(name_, {});
        const std::string data = std::exchange(data_, {});
        if (!std::exchange(has_data_, false)) {
            return base::ok();
        }
        return on_event(name, data);
    }
    const auto colon = line.find(':');
    const auto field = line.substr(0, colon);
    auto value = colon == std::string_view::npos ? std::string_view{} : line.substr(colon + 1);
    if (value.starts_with(' ')) {
        value.remove_prefix(1);
    }
    if (field == "data") {
        if (has_data_) {
            data_ += '\n';
        }
        data_ += value;
        has_data_ = true;
    } else if (field == "event") {
        name_ = value;
    }
    return base::ok();  // comments, ids and unknown fields do not matter here
}

}  // namespace heddle::net
