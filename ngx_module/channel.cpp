#include "ngx_module/channel.hpp"

#include <algorithm>

#include <zmq.h>

#include "ngx_module/barrier.hpp"
#include "ngx_module/pool_peers.hpp"
#include "ngx_module/route_key.hpp"
#include "ngx_module/worker.hpp"

namespace heddle::ngx {

namespace {

constexpr ngx_msec_t kSilenceMax = 2'500;
constexpr ngx_msec_t kHelloEvery = 1'000;
constexpr int kFramesQueuedMax = 4'096;
constexpr int kReconnectMs = 100;
constexpr int kReconnectMsMax = 500;
// Frames read in one go. After them the other events of this worker get their turn.
constexpr int kBatchMax = 1'024;

struct OwnedFrame {
    std::string bytes;
    BodyBudget* budget;
};

void free_frame(void* /*data*/, void* hint) noexcept {
    auto* frame = static_cast<OwnedFrame*>(hint);
    frame->budget->add(-static_cast<std::int64_t>(frame->bytes.size()));
    frame->budget->release();
    delete frame;
}

bool set_option(void* socket, int option, int value) {
    return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0;
}

/// One received message part.
class Part {
public:
    Part() noexcept { zmq_msg_init(&message_); }
    ~Part() { zmq_msg_close(&message_); }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

    bool receive(void* socket) noexcept {
        return zmq_msg_recv(&message_, socket, ZMQ_DONTWAIT) >= 0;
    }
    [[nodiscard]] bool more() noexcept { return zmq_msg_more(&message_) != 0; }
    [[nodiscard]] std::string_view bytes() noexcept {
        return {static_cast<const char*>(zmq_msg_data(&message_)), zmq_msg_size(&message_)};
    }

private:
    zmq_msg_t message_{};
};

}  // namespace

BodyBudget* BodyBudget::make() {
    return new BodyBudget;
}

void BodyBudget::release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        delete this;
    }
}

Channel::Channel(PoolPeers& peers,
                 const EngineConf& conf,
                 std::size_t index,
                 EngineFigures& figures)
    : peers_{peers},
      conf_{conf},
      index_{index},
      endpoint_hash_{hash_of(view(conf.endpoint))},
      figures_{figures} {}

Channel::~Channel() {
    if (posted_.posted) {
        ngx_delete_posted_event(&posted_);
    }
    if (connection_ != nullptr) {
        // The descriptor is ZeroMQ's: nginx must forget it without closing it.
        ngx_del_event(connection_->read, NGX_READ_EVENT, 0);
        ngx_free_connection(connection_);
        connection_->fd = static_cast<ngx_socket_t>(-1);
    }
    if (socket_ != nullptr) {
        zmq_close(socket_);
    }
}

bool Channel::open(void* context, ngx_cycle_t* cycle) {
    socket_ = zmq_socket(context, ZMQ_DEALER);
    ngx_socket_t descriptor = -1;
    std::size_t size = sizeof(descriptor);
    const std::int64_t frame_max = wire::kFrameBytesMax;
    // IMMEDIATE: without it frames for an engine that is away would wait in a queue of ZeroMQ's
    // instead of going to another engine.
    if (socket_ == nullptr || !set_option(socket_, ZMQ_LINGER, 0) ||
        !set_option(socket_, ZMQ_IMMEDIATE, 1) ||
        !set_option(socket_, ZMQ_SNDHWM, kFramesQueuedMax) ||
        !set_option(socket_, ZMQ_RCVHWM, kFramesQueuedMax) ||
        !set_option(socket_, ZMQ_RECONNECT_IVL, kReconnectMs) ||
        !set_option(socket_, ZMQ_RECONNECT_IVL_MAX, kReconnectMsMax) ||
        zmq_setsockopt(socket_, ZMQ_MAXMSGSIZE, &frame_max, sizeof(frame_max)) != 0 ||
        zmq_connect(socket_, reinterpret_cast<const char*>(conf_.endpoint.data)) != 0 ||
        zmq_getsockopt(socket_, ZMQ_FD, &descriptor, &size) != 0) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, 0, "heddle: cannot connect to \"%V\": %s",
                      &conf_.endpoint, zmq_strerror(zmq_errno()));
        return false;
    }
    connection_ = ngx_get_connection(descriptor, cycle->log);
    if (connection_ == nullptr) {
        return false;
    }
    connection_->data = this;
    connection_->log = cycle->log;
    connection_->read->log = cycle->log;
    connection_->write->log = cycle->log;
    connection_->read->handler = on_event;
    posted_.data = connection_;
    posted_.log = cycle->log;
    posted_.handler = on_posted;
    // Level-triggered: the descriptor stays readable until ZeroMQ has taken its commands.
    if (ngx_add_event(connection_->read, NGX_READ_EVENT, 0) != NGX_OK) {
        return false;
    }
    set_state(EngineState::connecting);
    post_drain();
    return true;
}

void Channel::on_event(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Channel*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "receiving", [&] { self.receive_all(); });
}

void Channel::on_posted(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Channel*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "sending", [&] { self.flush_queue(); });
    guarded(event->log, "receiving", [&] { self.receive_all(); });
}

void Channel::queue_request(wire::RequestId id, std::string frame) {
    queue_.push_back({id, std::move(frame)});
    post_drain();
}

void Channel::flush_queue() {
    if (queue_.empty()) {
        return;
    }
    // What a frame that cannot be sent sets off may queue others here: those wait for the next
    // turn.
    std::swap(queue_, flushing_);
    for (const Queued& queued : flushing_) {
        if (peers_.is_queued(queued.id, *this)) {
            peers_.on_flushed(queued.id, *this, try_send(queued.frame));
        }
    }
    flushing_.clear();
}

void Channel::post_drain() noexcept {
    if (connection_ != nullptr && !posted_.posted) {
        ngx_post_event(&posted_, &ngx_posted_events);
    }
}

bool Channel::try_send(std::string_view frame) noexcept {
    if (socket_ == nullptr || frame.empty()) {
        return false;
    }
    const bool sent = zmq_send(socket_, frame.data(), frame.size(), ZMQ_DONTWAIT) >= 0;
    // A send may take in what the descriptor announced, and then it does not announce it again.
    post_drain();
    return sent;
}

bool Channel::try_send_body(std::string frame, BodyBudget& budget) noexcept {
    auto* owned = new (std::nothrow) OwnedFrame{std::move(frame), &budget};
    if (owned == nullptr || owned->bytes.empty() || socket_ == nullptr) {
        delete owned;
        return false;
    }
    budget.hold();
    budget.add(static_cast<std::int64_t>(owned->bytes.size()));
    zmq_msg_t message;
    if (zmq_msg_init_data(&message, owned->bytes.data(), owned->bytes.size(), free_frame, owned) !=
        0) {
        free_frame(nullptr, owned);
        return false;
    }
    const bool sent = zmq_msg_send(&message, socket_, ZMQ_DONTWAIT) >= 0;
    if (!sent) {
        zmq_msg_close(&message);
    }
    post_drain();
    return sent;
}

void Channel::receive_all() {
    // One object for all frames of the worker's life would be a mutable global; initialising one
    // costs nothing.
    Part part;
    int received = 0;
    for (; received < kBatchMax && part.receive(socket_); received++) {
        if (!part.more()) {
            on_frame(part.bytes());
            continue;
        }
        while (part.more() && part.receive(socket_)) {
        }
        figures_.frames_dropped.fetch_add(1, std::memory_order_relaxed);
    }
    if (received == kBatchMax && !posted_.posted) {
        ngx_post_event(&posted_, &ngx_posted_next_events);
    }
    // What woke us may be the connection itself. Not more often: an engine of another version
    // answers every Hello, which would wake us again.
    if (!is_usable() && !hello_pending_ &&
        (hello_serial_ == 0 || ngx_current_msec - hello_at_ >= kHelloEvery) && is_writable()) {
        say_hello();
    }
}

void Channel::on_frame(std::string_view frame) {
    auto decoded = wire::decode_engine(frame);
    auto* message = std::get_if<wire::EngineMessage>(&decoded);
    if (message == nullptr) {
        figures_.frames_dropped.fetch_add(1, std::memory_order_relaxed);
        const auto reason = std::get<wire::DecodeError>(decoded).reason;
        ngx_str_t text = as_ngx(reason);
        ngx_log_error(NGX_LOG_INFO, ngx_cycle->log, 0, "heddle: frame of \"%V\" dropped: %V",
                      &conf_.endpoint, &text);
        return;
    }
    heard_at_ = ngx_current_msec;
    if (const auto* welcome = std::get_if<wire::Welcome>(message)) {
        on(*welcome);
    } else if (const auto* pong = std::get_if<wire::Pong>(message)) {
        on(*pong);
    } else if (const auto* wanted = std::get_if<wire::HelloWanted>(message)) {
        on(*wanted);
    } else {
        peers_.on_message(*this, std::move(*message));
    }
}

void Channel::say_hello() {
    wire::Hello hello;
    hello.edge_id = peers_.worker().edge_id();
    // Before the send, whatever comes of it: a peer that is gone can look writable and still
    // refuse, and the drain posted after the attempt would try again within the same turn, for
    // ever.
    hello_at_ = ngx_current_msec;
    hello_serial_++;
    hello_pending_ = try_send(wire::encode(wire::EdgeMessage{std::move(hello)}));
}

void Channel::on(const wire::HelloWanted& /*unused*/) {
    // Each frame of ours that the engine did not expect asks again; one Hello answers them all.
    if (!hello_pending_) {
        say_hello();
    }
}

void Channel::on(const wire::Welcome& welcome) {
    const bool asked = hello_pending_;
    hello_pending_ = false;
    if (welcome.version != wire::kVersion) {
        mark_down("it speaks another version of the protocol");
        return;
    }
    meet(welcome.engine_id, welcome.draining);
    if (asked) {
        peers_.on_forgotten(*this);
    }
}

void Channel::on(const wire::Pong& pong) {
    if (hello_pending_ || !is_usable()) {
        // It answers, so it knows this connection; Welcome settles the rest.
        return;
    }
    meet(pong.engine_id, pong.draining);
    constexpr auto kRelaxed = std::memory_order_relaxed;
    figures_.pong_at.store(ngx_current_msec, kRelaxed);
    figures_.threads_owned.store(pong.threads_owned, kRelaxed);
    figures_.runs_running.store(pong.runs_running, kRelaxed);
    figures_.runs_waiting.store(pong.runs_waiting, kRelaxed);
}

void Channel::meet(const std::string& engine_id, bool draining) {
    if (engine_id_ != engine_id) {
        const bool restarted = !engine_id_.empty();
        engine_id_ = engine_id;
        const ZoneLock lock{peers_.slab()};
        const auto length = std::min(engine_id.size(), EngineFigures::kIdBytes - 1);
        std::memcpy(figures_.engine_id, engine_id.data(), length);
        figures_.engine_id[length] = '\0';
        if (restarted) {
            ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "heddle: engine \"%V\" has restarted",
                          &conf_.endpoint);
        }
    }
    set_state(draining ? EngineState::draining : EngineState::up);
}

void Channel::set_state(EngineState state) {
    if (state_ == state && since_ != 0) {
        return;
    }
    if (since_ != 0) {
        ngx_str_t name = as_ngx(name_of(state));
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "heddle: engine \"%V\" is %V",
                      &conf_.endpoint, &name);
    }
    state_ = state;
    since_ = ngx_current_msec;
    figures_.state.store(static_cast<std::uint64_t>(state), std::memory_order_relaxed);
    if (is_usable()) {
        peers_.on_engine_up();
    }
}

void Channel::mark_down(const char* why) {
    hello_pending_ = false;
    if (state_ == EngineState::down) {
        return;
    }
    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "heddle: engine \"%V\" is lost: %s",
                  &conf_.endpoint, why);
    set_state(EngineState::down);
    peers_.on_lost(*this);
}

bool Channel::is_writable() noexcept {
    int events = 0;
    std::size_t size = sizeof(events);
    return zmq_getsockopt(socket_, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLOUT) != 0;
}

bool Channel::may_come_soon(ngx_msec_t patience) const noexcept {
    return state_ == EngineState::connecting ||
           (state_ == EngineState::down && ngx_current_msec - since_ < patience);
}

void Channel::tick(bool ping) {
    if (socket_ == nullptr) {
        return;
    }
    const ngx_msec_t now = ngx_current_msec;
    if (hello_pending_ && now - hello_at_ >= kHelloEvery) {
        hello_pending_ = false;
    }
    if (!is_usable()) {
        if (state_ == EngineState::connecting && now - since_ >= kSilenceMax) {
            mark_down("it does not answer");
        }
        if (!hello_pending_) {
            say_hello();
        }
        return;
    }
    // A peer that is gone can still look writable and refuse what is sent.
    bool writable = is_writable();
    bool refused = false;
    if (ping && writable) {
        const wire::Ping message{++ping_serial_};
        refused = !try_send(wire::encode(wire::EdgeMessage{message}));
    }
    writable = writable && !refused;
    post_drain();
    // With its process a peer's connection ends at once; a hung one is found by its silence. Two
    // ticks for the first, because a queue may be full for a moment.
    if (!writable && (refused || !was_writable_) && now - heard_at_ >= kHelloEvery / 2) {
        mark_down("the connection is gone");
    } else if (now - heard_at_ > kSilenceMax) {
        mark_down("it is silent");
    }
    was_writable_ = writable;
}

}  // namespace heddle::ngx
