#include "bench/load_request.hpp"

#include <array>
#include <charconv>

namespace heddle::bench {
namespace {

constexpr std::string_view kUuidSlot = "{uuid}";
constexpr std::string_view kNumberSlot = "{n}";
constexpr std::size_t kUuidSize = 36;

std::string head_of(const Options& options) {
    std::string head = options.method + ' ' + options.target +
                       " HTTP/1.1\r\nHost: " + options.host + ':' + std::to_string(options.port) +
                       "\r\n";
    bool has_type = false;
    for (const auto& header : options.headers) {
        head += header + "\r\n";
        has_type = has_type || header.starts_with("Content-Type:");
    }
    if (!options.body.empty() && !has_type) {
        head += "Content-Type: application/json\r\n";
    }
    return head;
}

}  // namespace

Template::Template(std::string_view text) {
    while (true) {
        const auto uuid = text.find(kUuidSlot);
        const auto number = text.find(kNumberSlot);
        const auto at = uuid < number ? uuid : number;
        if (at == std::string_view::npos) {
            pieces_.push_back({std::string{text}, Slot::none});
            return;
        }
        const bool is_uuid = uuid < number;
        pieces_.push_back({std::string{text.substr(0, at)}, is_uuid ? Slot::uuid : Slot::number});
        text.remove_prefix(at + (is_uuid ? kUuidSlot : kNumberSlot).size());
    }
}

void Template::append_to(std::string& out, std::string_view uuid, std::string_view number) const {
    for (const auto& piece : pieces_) {
        out += piece.text;
        if (piece.after == Slot::uuid) {
            out += uuid;
        }
        if (piece.after == Slot::number) {
            out += number;
        }
    }
}

std::size_t Template::size(std::size_t uuid_size, std::size_t number_size) const {
    std::size_t size = 0;
    for (const auto& piece : pieces_) {
        size += piece.text.size();
        size += piece.after == Slot::uuid ? uuid_size : 0;
        size += piece.after == Slot::number ? number_size : 0;
    }
    return size;
}

RequestWriter::RequestWriter(const Options& options)
    : head_{head_of(options)},
      body_{options.body},
      random_{options.seed},
      has_body_{!options.body.empty()} {}

void RequestWriter::write_next(std::string& out) {
    std::array<char, kUuidSize> uuid;
    make_uuid(uuid.data());
    std::array<char, 20> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number_++).ptr;
    const std::string_view uuid_text{uuid.data(), uuid.size()};
    const std::string_view number_text{digits.data(),
                                       static_cast<std::size_t>(end - digits.data())};

    out.clear();
    head_.append_to(out, uuid_text, number_text);
    if (has_body_) {
        out += "Content-Length: ";
        out += std::to_string(body_.size(uuid_text.size(), number_text.size()));
        out += "\r\n";
    }
    out += "\r\n";
    if (has_body_) {
        body_.append_to(out, uuid_text, number_text);
    }
}

// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
std::uint64_t RequestWriter::next_random() {
    random_ += 0x9E3779B97F4A7C15U;
    std::uint64_t z = random_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

void RequestWriter::make_uuid(char* out) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::uint64_t high = next_random();
    std::uint64_t low = next_random();
    high = (high & ~std::uint64_t{0xF000}) | 0x4000;                     // version 4
    low = (low & ~(std::uint64_t{3} << 62)) | (std::uint64_t{2} << 62);  // RFC 4122 variant
    std::size_t at = 0;
    for (int nibble = 0; nibble < 32; ++nibble) {
        if (nibble == 8 || nibble == 12 || nibble == 16 || nibble == 20) {
            out[at++] = '-';
        }
        const std::uint64_t word = nibble < 16 ? high : low;
        out[at++] = kHex[(word >> (60 - 4 * (nibble % 16))) & 15];
    }
}

}  // namespace heddle::bench
