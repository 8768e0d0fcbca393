#include "bench/load_response.hpp"

#include <algorithm>
#include <charconv>

namespace heddle::bench {
namespace {

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

bool equals_ignoring_case(std::string_view text, std::string_view lowercase) {
    return text.size() == lowercase.size() &&
           std::equal(text.begin(), text.end(), lowercase.begin(),
                      [](char a, char b) { return lower(a) == b; });
}

std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

template <class Number>
bool parse_whole(std::string_view text, Number& value, int base) {
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value, base);
    return !text.empty() && result.ec == std::errc{} && result.ptr == text.data() + text.size();
}

}  // namespace

void ResponseReader::reset() {
    state_ = State::status;
    fault_ = nullptr;
    status_ = 0;
    closes_ = chunked_ = has_length_ = false;
    left_ = body_bytes_ = 0;
    line_.clear();
    body_.clear();
}

std::size_t ResponseReader::feed(std::string_view bytes) {
    const std::size_t all = bytes.size();
    while (!bytes.empty() && state_ != State::done && fault_ == nullptr) {
        const bool in_body =
            state_ == State::body || state_ == State::chunk || state_ == State::until_close;
        bytes.remove_prefix(in_body ? take_body(bytes) : take_line(bytes));
    }
    return all - bytes.size();
}

void ResponseReader::end_of_stream() {
    if (state_ == State::until_close) {
        state_ = State::done;
    } else if (state_ != State::done) {
        fail("the connection ended inside a response");
    }
}

std::size_t ResponseReader::take_line(std::string_view bytes) {
    const auto end = bytes.find('\n');
    const auto taken = end == std::string_view::npos ? bytes.size() : end + 1;
    if (line_.size() + taken > kLineBytesMax) {
        fail("a line of the head is too long");
        return taken;
    }
    std::string_view line = bytes.substr(0, taken);
    if (end == std::string_view::npos || !line_.empty()) {
        line_ += line;
        line = line_;
    }
    if (end == std::string_view::npos) {
        return taken;
    }
    line.remove_suffix(1);
    if (line.ends_with('\r')) {
        line.remove_suffix(1);
    }
    on_line(line);
    line_.clear();
    return taken;
}

void ResponseReader::on_line(std::string_view line) {
    switch (state_) {
        case State::status:
            on_status(line);
            break;
        case State::header:
            line.empty() ? on_head_end() : on_header(line);
            break;
        case State::chunk_size:
            on_chunk_size(line);
            break;
        case State::chunk_end:
            if (!line.empty()) {
                fail("a chunk is longer than its size says");
            }
            state_ = State::chunk_size;
            break;
        case State::trailer:
            if (line.empty()) {
                state_ = State::done;
            }
            break;
        default:
            break;
    }
}

void ResponseReader::on_status(std::string_view line) {
    if (!line.starts_with("HTTP/1.") || line.size() < 12 ||
        !parse_whole(line.substr(9, 3), status_, 10)) {
        fail("the status line is not HTTP/1.1");
        return;
    }
    closes_ = line[7] == '0';
    state_ = State::header;
}

void ResponseReader::on_header(std::string_view line) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) {
        fail("a header has no colon");
        return;
    }
    const auto name = line.substr(0, colon);
    const auto value = trimmed(line.substr(colon + 1));
    if (equals_ignoring_case(name, "content-length")) {
        has_length_ = parse_whole(value, left_, 10) && left_ <= kBodyBytesMax;
        if (!has_length_) {
            fail("Content-Length is not a number");
        }
    } else if (equals_ignoring_case(name, "transfer-encoding")) {
        chunked_ = equals_ignoring_case(value, "chunked");
        if (!chunked_) {
            fail("the transfer encoding is not chunked");
        }
    } else if (equals_ignoring_case(name, "connection")) {
        closes_ = closes_ || equals_ignoring_case(value, "close");
    }
}

void ResponseReader::on_head_end() {
    if (status_ >= 100 && status_ < 200) {  // an interim response: the final one follows
        state_ = State::status;
    } else if (is_head_ || status_ == 204 || status_ == 304) {
        state_ = State::done;
    } else if (chunked_) {
        state_ = State::chunk_size;
    } else if (has_length_) {
        state_ = left_ == 0 ? State::done : State::body;
    } else {
        closes_ = true;
        state_ = State::until_close;
    }
}

void ResponseReader::on_chunk_size(std::string_view line) {
    line = trimmed(line.substr(0, line.find(';')));
    if (!parse_whole(line, left_, 16) || left_ > kBodyBytesMax) {
        fail("a chunk size is not a number");
        return;
    }
    state_ = left_ == 0 ? State::trailer : State::chunk;
}

std::size_t ResponseReader::take_body(std::string_view bytes) {
    std::size_t taken = bytes.size();
    if (state_ != State::until_close) {
        taken = static_cast<std::size_t>(std::min<std::uint64_t>(left_, taken));
        left_ -= taken;
    }
    body_bytes_ += taken;
    if (body_bytes_ > kBodyBytesMax) {
        fail("the body is too long");
        return taken;
    }
    if (keep_body_) {
        body_ += bytes.substr(0, taken);
    }
    if (state_ == State::body && left_ == 0) {
        state_ = State::done;
    }
    if (state_ == State::chunk && left_ == 0) {
        state_ = State::chunk_end;
    }
    return taken;
}

void ResponseReader::fail(const char* fault) {
    if (fault_ == nullptr) {
        fault_ = fault;
    }
}

}  // namespace heddle::bench
