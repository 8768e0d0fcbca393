#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace heddle::bench {

/// Reads one HTTP/1.1 response after another from bytes as they come: by Content-Length, chunked,
/// without a body (1xx, 204, 304, HEAD) or until the connection ends.
class ResponseReader {
public:
    static constexpr std::size_t kLineBytesMax = 64 * 1024;
    static constexpr std::uint64_t kBodyBytesMax = std::uint64_t{1} << 30;

    /// @param keep_body  false: bodies are counted, not kept
    /// @param is_head    answers to HEAD have no body
    ResponseReader(bool keep_body, bool is_head) : keep_body_{keep_body}, is_head_{is_head} {}

    /// Begins the next response.
    void reset();
    /// Takes bytes up to the end of the response; returns how many it took. Less than all means
    /// that the response is complete (or broken) and bytes follow that nobody asked for.
    std::size_t feed(std::string_view bytes);
    /// The peer closed its side; completes a body that has no length.
    void end_of_stream();

    [[nodiscard]] bool done() const { return state_ == State::done; }
    /// Why the response is not HTTP/1.1; nullptr while it is.
    [[nodiscard]] const char* fault() const { return fault_; }
    [[nodiscard]] int status() const { return status_; }
    /// True if the connection may not be used again.
    [[nodiscard]] bool closes() const { return closes_; }
    [[nodiscard]] const std::string& body() const { return body_; }
    [[nodiscard]] std::uint64_t body_bytes() const { return body_bytes_; }

private:
    enum class State {
        status,
        header,
        body,
        until_close,
        chunk_size,
        chunk,
        chunk_end,
        trailer,
        done
    };

    std::size_t take_line(std::string_view bytes);
    void on_line(std::string_view line);
    void on_status(std::string_view line);
    void on_header(std::string_view line);
    void on_head_end();
    void on_chunk_size(std::string_view line);
    std::size_t take_body(std::string_view bytes);
    void fail(const char* fault);

    bool keep_body_;
    bool is_head_;
    State state_ = State::status;
    const char* fault_ = nullptr;
    int status_ = 0;
    bool closes_ = false;
    bool chunked_ = false;
    bool has_length_ = false;
    std::uint64_t left_ = 0;  // bytes of the body or chunk that are still to come
    std::uint64_t body_bytes_ = 0;
    std::string line_;  // a line that began in an earlier piece
    std::string body_;
};

}  // namespace heddle::bench
