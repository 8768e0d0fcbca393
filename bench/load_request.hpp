#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load_options.hpp"

namespace heddle::bench {

/// A text with {uuid} and {n} in it, cut once so that filling it in is only copying.
class Template {
public:
    explicit Template(std::string_view text);

    /// Appends the text with the two values in place.
    void append_to(std::string& out, std::string_view uuid, std::string_view number) const;
    [[nodiscard]] std::size_t size(std::size_t uuid_size, std::size_t number_size) const;

private:
    enum class Slot { none, uuid, number };
    struct Piece {
        std::string text;
        Slot after;
    };
    std::vector<Piece> pieces_;
};

/// Writes requests: one version 4 UUID and one count per request, the same in target and body.
/// Equal seeds give equal UUIDs.
class RequestWriter {
public:
    explicit RequestWriter(const Options& options);

    /// Replaces `out` by the next request, head and body.
    void write_next(std::string& out);

private:
    std::uint64_t next_random();
    void make_uuid(char* out);

    Template head_;
    Template body_;
    std::uint64_t random_;
    std::uint64_t number_ = 0;
    bool has_body_;
};

}  // namespace heddle::bench
