#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include <curl/curl.h>

#include "engine/net/http_client.hpp"
#include "engine/net/transfer.hpp"

namespace heddle::net {

/// libcurl's multi interface on epoll, on one OS thread. curl_multi_poll would ask the kernel about
/// every open connection at each step; here a step costs what became ready.
class HttpClient::Loop {
public:
    explicit Loop(const HttpClientOptions& options);
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // Any OS thread.
    /// @return overloaded if the bounds are used up, cancelled if the loop has stopped
    [[nodiscard]] base::Status try_submit(TransferPtr transfer);
    /// Closes it, if it has not ended. Nothing is posted to its shard any more, which may
    /// be destroyed before this client if all its transfers were given up.
    void abort(TransferPtr transfer);
    /// Its buffer has room again.
    void resume(TransferPtr transfer);
    [[nodiscard]] std::size_t open_transfers() const noexcept { return open_; }
    /// Ends every transfer with `cancelled` and joins. Idempotent.
    void stop();

private:
    enum class Order : std::uint8_t { start, abort, resume };
    struct Command {
        Order order;
        TransferPtr transfer;
    };

    bool post(Order order, TransferPtr transfer);
    void run();
    [[nodiscard]] bool take_commands();
    void abort_now(const TransferPtr& transfer);
    void resume_now(Transfer& transfer);
    void start_waiting();
    void start(const TransferPtr& transfer);
    void wait_and_act();
    void read_finished();
    void finish(const TransferPtr& transfer, std::optional<base::Error> failure);
    void release(Transfer& transfer);
    void mark_resolved(Transfer& transfer) noexcept;
    [[nodiscard]] int wait_milliseconds() const;
    [[nodiscard]] bool configure(Transfer& transfer);
    [[nodiscard]] bool configure_body(Transfer& transfer);

    static int on_socket(CURL* easy, curl_socket_t socket, int what, void* self, void* seen);
    static int on_timer(CURLM* multi, long timeout_ms, void* self);
    static std::size_t on_write(char* data, std::size_t size, std::size_t count, void* transfer);
    static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* transfer);
    static curl_socket_t on_open(void* transfer, curlsocktype purpose, curl_sockaddr* address);
    static int on_connected(void* transfer, char* to, char* from, int to_port, int from_port);

    const HttpClientOptions options_;
    std::string no_proxy_;
    int epoll_ = -1;
    int wake_ = -1;
    std::atomic<std::size_t> open_{0};

    std::mutex mutex_;
    std::deque<Command> commands_;
    bool stopping_ = false;

    // The loop's OS thread only.
    CURLM* multi_ = nullptr;
    std::optional<base::Instant> timer_;
    std::deque<TransferPtr> waiting_;
    std::unordered_map<CURL*, TransferPtr> running_;
    std::vector<CURL*> spare_;
    std::size_t resolving_ = 0;

    std::thread os_thread_;  // last: it uses everything above
};

}  // namespace heddle::net
