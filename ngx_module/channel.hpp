#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "ngx_module/shared_state.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::ngx {

class PoolPeers;

/// How many bytes of one request's body wait in ZeroMQ's queue. Counted up by the worker, down by
/// ZeroMQ's I/O thread when a frame has been written, which may be after the request has gone:
/// hence the references.
class BodyBudget {
public:
    static BodyBudget* make();
    void hold() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept;
    void add(std::int64_t bytes) noexcept { waiting_.fetch_add(bytes, std::memory_order_relaxed); }
    [[nodiscard]] std::int64_t waiting() const noexcept {
        return waiting_.load(std::memory_order_relaxed);
    }

private:
    std::atomic<std::int64_t> waiting_{0};
    std::atomic<int> references_{1};
};

/// The connection to one engine: one DEALER socket in nginx's event loop. Says Hello, pings, knows
/// whether the engine lives; what frames mean for requests is PoolPeers' affair. Never blocks.
/// Belongs to the worker's only thread.
class Channel {
public:
    /// `peers`, `conf` and `figures` must outlive it.
    Channel(PoolPeers& peers, const EngineConf& conf, std::size_t index, EngineFigures& figures);
    ~Channel();
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    /// Connects, in init process. false, with a message in the log, if that cannot be.
    bool open(void* context, ngx_cycle_t* cycle);
    /// false: the engine is not connected or its queue is full; nothing was sent.
    bool try_send(std::string_view frame) noexcept;
    /// Sends a whole Request at the end of this turn of the event loop, so that all of a turn wake
    /// ZeroMQ's I/O thread once. One that cannot be sent then comes back through
    /// PoolPeers::on_flushed(); one whose call is gone by then is not sent.
    void queue_request(wire::RequestId id, std::string frame);
    /// As try_send(), for a frame whose bytes count against `budget` until they are written.
    bool try_send_body(std::string frame, BodyBudget& budget) noexcept;
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
    [[nodiscard]] EngineFigures& figures() noexcept { return figures_; }

private:
    static void on_event(ngx_event_t* event) noexcept;
    static void on_posted(ngx_event_t* event) noexcept;

    void flush_queue();
    void receive_all();
    void on_frame(std::string_view frame);
    void on(const wire::Welcome& welcome);
    void on(const wire::Pong& pong);
    void on(const wire::HelloWanted& wanted);
    void say_hello();
    [[nodiscard]] bool is_writable() noexcept;
    void meet(const std::string& engine_id, bool draining);
    void set_state(EngineState state);
    void post_drain() noexcept;

    PoolPeers& peers_;
    const EngineConf& conf_;
    const std::size_t index_;
    const std::uint64_t endpoint_hash_;
    EngineFigures& figures_;

    struct Queued {
        wire::RequestId id;
        std::string frame;
    };

    void* socket_ = nullptr;
    std::vector<Queued> queue_;
    std::vector<Queued> flushing_;  ///< kept for its memory
    ngx_connection_t* connection_ = nullptr;
    ngx_event_t posted_{};
    EngineState state_ = EngineState::connecting;
    std::string engine_id_;
    ngx_msec_t since_ = 0;     ///< of the state
    ngx_msec_t heard_at_ = 0;  ///< the latest frame
    ngx_msec_t hello_at_ = 0;
    bool hello_pending_ = false;
    bool was_writable_ = true;  ///< at the tick before
    std::uint64_t hello_serial_ = 0;
    std::uint64_t ping_serial_ = 0;
};

}  // namespace heddle::ngx
