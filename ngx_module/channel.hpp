#pragma once

#include <cstdint>
#include <string>

#include "ngx_module/endpoint.hpp"
#include "ngx_module/shared_state.hpp"
#include "shared/wire/messages.hpp"
#include "shared/wire/zmtp.hpp"

namespace heddle::ngx {

class PoolPeers;

/// The connection to one engine: a ZeroMQ DEALER spoken in nginx's own event loop (ADR 0010). Says
/// Hello, pings, knows whether the engine lives, connects again; what frames mean for requests is
/// PoolPeers' affair. Never waits. Belongs to the worker's only thread.
class Channel {
public:
    /// `peers`, `conf` and `figures` must outlive it.
    Channel(PoolPeers& peers, const EngineConf& conf, std::size_t index, EngineFigures& figures);
    ~Channel();
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    /// Begins to connect, in init process.
    void open();
    /// Queues a frame; all of one turn of the event loop leave in one write at its end.
    /// false: the engine is not connected or too much waits for it; nothing was sent.
    [[nodiscard]] bool try_send(std::string frame);
    /// The same for a Cancel, which always has room. What these can take beyond the bound of the
    /// rest is bounded: while no request gets in, there is one for each that is open, and no more.
    /// Without a connection there is nothing to cancel: the engine has let go.
    void send_cancel(const wire::Cancel& cancel);
    /// Twice a second: hello, ping, and the verdict on silence.
    void tick(bool ping);
    /// An engine that would not say who it is, or says it in another version, is not used.
    void mark_down(const char* why);

    [[nodiscard]] EngineState state() const noexcept { return state_; }
    [[nodiscard]] bool is_usable() const noexcept {
        return state_ == EngineState::up || state_ == EngineState::draining;
    }
    /// Connecting or lost so lately that waiting for it makes sense.
    [[nodiscard]] bool may_come_soon(ngx_msec_t patience) const noexcept;
    [[nodiscard]] std::size_t index() const noexcept { return index_; }
    [[nodiscard]] std::string_view endpoint() const noexcept { return view(conf_.endpoint); }
    [[nodiscard]] const ngx_str_t& endpoint_text() const noexcept { return conf_.endpoint; }
    [[nodiscard]] double weight() const noexcept { return static_cast<double>(conf_.weight); }
    [[nodiscard]] std::uint64_t endpoint_hash() const noexcept { return endpoint_hash_; }
    /// Counts Hellos. A request sent before the latest one is unknown to an engine that asked for
    /// it.
    [[nodiscard]] std::uint64_t hello_serial() const noexcept { return hello_serial_; }
    /// Bytes ever queued for the engine, and how many of them have left or are given up.
    [[nodiscard]] std::uint64_t queued_total() const noexcept { return out_.pushed_total(); }
    [[nodiscard]] std::uint64_t written_total() const noexcept { return out_.written_total(); }
    /// Whether what was queued at that count cannot have reached the engine, and never will.
    [[nodiscard]] bool is_lost_unsent(std::uint64_t queued_at) const noexcept {
        return connection_ == nullptr && out_.written_total() <= queued_at;
    }
    [[nodiscard]] EngineFigures& figures() noexcept { return figures_; }

private:
    static void on_readable(ngx_event_t* event) noexcept;
    static void on_writable(ngx_event_t* event) noexcept;
    static void on_flush(ngx_event_t* event) noexcept;
    static void on_timer(ngx_event_t* event) noexcept;

    void connect();
    void connect_to(SocketAddress& address);
    void on_connected();
    void retry_later();
    void lose_connection(const char* why);
    void receive_all();
    /// @return false if the connection is no more
    bool handle_received();
    void push(std::string frame);
    void flush();
    void post_flush() noexcept;
    void stop_watching_writes();

    void on_frame(std::string_view frame);
    void on(const wire::Welcome& welcome);
    void on(const wire::Pong& pong);
    void on(const wire::HelloWanted& wanted);
    void say_hello();
    void meet(const std::string& engine_id, bool draining);
    void set_state(EngineState state);

    PoolPeers& peers_;
    const EngineConf& conf_;
    const std::size_t index_;
    const std::uint64_t endpoint_hash_;
    EngineFigures& figures_;

    // The connection.
    Lookup lookup_;
    ngx_log_t log_{};  ///< quiet: nginx would log each attempt to connect as an error
    ngx_connection_t* connection_ = nullptr;
    ngx_connection_t no_connection_{};  ///< nginx logs the descriptor of timers through it
    ngx_event_t flush_{};
    ngx_event_t timer_{};  ///< of the next attempt, or the deadline of this one
    ngx_msec_t retry_after_ = 0;
    bool connected_ = false;  ///< the socket is
    bool ready_ = false;      ///< hands are shaken: frames may go
    wire::ZmtpReader reader_{wire::SocketKind::dealer};
    wire::ZmtpSendQueue out_;

    // The engine.
    EngineState state_ = EngineState::connecting;
    std::string engine_id_;
    ngx_msec_t since_ = 0;     ///< of the state
    ngx_msec_t heard_at_ = 0;  ///< the latest frame
    ngx_msec_t hello_at_ = 0;
    bool hello_pending_ = false;
    std::uint64_t hello_serial_ = 0;
    std::uint64_t ping_serial_ = 0;
};

}  // namespace heddle::ngx
