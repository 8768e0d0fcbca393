#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/load_histogram.hpp"
#include "bench/load_options.hpp"
#include "bench/load_request.hpp"
#include "bench/load_response.hpp"

namespace heddle::bench {

/// What was seen. "Measured" is what completed between the end of the warm-up and the end of the
/// measurement; "all" includes the warm-up and what was still open at the end.
struct LoadResult {
    Histogram latency;                  ///< measured, right answers only
    std::vector<std::uint64_t> series;  ///< the same in order of completion, if it was asked for
    double measured_s = 0;
    double cpu_s = 0;  ///< processor time of this process while measuring
    std::uint64_t sent_all = 0;
    std::uint64_t answered_all = 0;
    std::uint64_t connects = 0;
    std::uint64_t body_bytes = 0;                 ///< of all answers
    std::map<int, std::uint64_t> statuses;        ///< of all answers
    std::map<std::string, std::uint64_t> errors;  ///< by kind, warm-up included
    std::map<std::string, std::string> examples;  ///< the first error of each kind

    [[nodiscard]] std::uint64_t error_count() const;
};

/// Closed loop: each connection sends its next request when the last answer is complete. Only one
/// OS thread may use an object; run() blocks until all is done, at most a timeout past the end.
class LoadLoop {
public:
    explicit LoadLoop(const Options& options);
    ~LoadLoop();
    LoadLoop(const LoadLoop&) = delete;
    LoadLoop& operator=(const LoadLoop&) = delete;

    [[nodiscard]] LoadResult run();

private:
    enum class Phase { warmup, measure, drain };
    struct Connection;

    bool open(Connection& connection);
    void close(Connection& connection);
    void start_request(Connection& connection);
    void write_more(Connection& connection);
    void read_more(Connection& connection);
    void take_bytes(Connection& connection, std::size_t size);
    void on_stream_end(Connection& connection);
    void on_response(Connection& connection);
    bool is_right(const Connection& connection);
    void request_failed(Connection& connection, const std::string& kind, const std::string& what);
    void next(Connection& connection);
    void watch(Connection& connection, bool for_writing);
    void note_error(const std::string& kind, const std::string& what);
    void count_answer(std::uint64_t now, std::uint64_t latency);
    void begin_measuring(std::uint64_t now);
    void stop_measuring(std::uint64_t now);
    void on_time(std::uint64_t now);
    [[nodiscard]] bool may_send() const;
    [[nodiscard]] int wait_ms(std::uint64_t now) const;

    const Options& options_;
    RequestWriter writer_;
    std::vector<std::unique_ptr<Connection>> connections_;
    std::vector<char> buffer_;
    LoadResult result_;
    int epoll_ = -1;
    Phase phase_ = Phase::warmup;
    std::uint64_t in_flight_ = 0;
    std::uint64_t answered_in_phase_ = 0;
    std::uint64_t phase_began_ = 0;
    std::uint64_t last_check_ = 0;
    double cpu_at_start_ = 0;
};

}  // namespace heddle::bench
