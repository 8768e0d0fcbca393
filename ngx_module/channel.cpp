#include "ngx_module/channel.hpp"

#include <algorithm>
#include <array>

#include <sys/uio.h>

#include "ngx_module/barrier.hpp"
#include "ngx_module/pool_peers.hpp"
#include "ngx_module/route_key.hpp"
#include "ngx_module/worker.hpp"

namespace heddle::ngx {

namespace {

constexpr ngx_msec_t kSilenceMax = 2'500;
constexpr ngx_msec_t kHelloEvery = 1'000;
// A connection that says nothing for so long is given up for a new one.
constexpr ngx_msec_t kConnectionSilenceMax = 10'000;
constexpr ngx_msec_t kHandshakeMax = 2'500;
constexpr ngx_msec_t kRetryMin = 50;
constexpr ngx_msec_t kRetryMax = 500;
constexpr ngx_msec_t kLookEvery = 10;  // at a lookup under way
// What may wait for one engine. Small frames (cancel, credit, ping) have room of their own, so that
// bodies cannot keep them out.
constexpr std::size_t kQueuedBytesMax = std::size_t{16} << 20U;
constexpr std::size_t kSmallBytes = 1'024;
constexpr std::size_t kSmallRoom = std::size_t{4} << 20U;
// Bytes read in one go. After them the other events of this worker get their turn.
constexpr std::size_t kReadMax = std::size_t{1} << 20U;

}  // namespace

Channel::Channel(PoolPeers& peers,
                 const EngineConf& conf,
                 std::size_t index,
                 EngineFigures& figures)
    : peers_{peers},
      conf_{conf},
      index_{index},
      endpoint_hash_{hash_of(view(conf.endpoint))},
      figures_{figures} {
    no_connection_.fd = static_cast<ngx_socket_t>(-1);
    no_connection_.data = this;
    flush_.data = &no_connection_;
    flush_.handler = on_flush;
    timer_.data = &no_connection_;
    timer_.handler = on_timer;
    timer_.cancelable = 1;  // a worker that is leaving does not wait for it
}

Channel::~Channel() {
    if (flush_.posted) {
        ngx_delete_posted_event(&flush_);
    }
    if (timer_.timer_set) {
        ngx_del_timer(&timer_);
    }
    if (connection_ != nullptr) {
        ngx_close_connection(connection_);
    }
}

void Channel::open() {
    log_ = *ngx_cycle->log;
    log_.log_level = NGX_LOG_ALERT;
    flush_.log = ngx_cycle->log;
    timer_.log = ngx_cycle->log;
    set_state(EngineState::connecting);
    connect();
}

void Channel::connect() {
    SocketAddress address = conf_.address.address;
    if (conf_.address.host.len > 0) {
        switch (lookup_.state()) {
            case Lookup::State::found:
                address = lookup_.take();
                break;
            case Lookup::State::failed:
                (void)lookup_.take();
                retry_later();
                return;
            case Lookup::State::idle:
                if (!lookup_.start(conf_.address)) {
                    retry_later();
                    return;
                }
                [[fallthrough]];
            case Lookup::State::busy:
                ngx_add_timer(&timer_, kLookEvery);
                return;
        }
    }
    connect_to(address);
}

void Channel::connect_to(SocketAddress& address) {
    ngx_str_t name = conf_.endpoint;
    ngx_peer_connection_t peer{};
    peer.sockaddr = address.generic();
    peer.socklen = address.length;
    peer.name = &name;
    peer.get = ngx_event_get_peer;
    peer.log = &log_;
    peer.log_error = NGX_ERROR_ERR;
    const ngx_int_t rc = address.length == 0 ? NGX_ERROR : ngx_event_connect_peer(&peer);
    if (rc != NGX_OK && rc != NGX_AGAIN) {
        if (peer.connection != nullptr) {
            ngx_close_connection(peer.connection);
        }
        retry_later();
        return;
    }
    connection_ = peer.connection;
    connection_->data = this;
    connection_->read->handler = on_readable;
    connection_->write->handler = on_writable;
    ngx_add_timer(&timer_, kHandshakeMax);
    if (rc == NGX_OK) {
        on_connected();
    }
}

void Channel::on_connected() {
    connected_ = true;
    if (conf_.address.port != 0) {
        (void)ngx_tcp_nodelay(connection_);
    }
    out_.push_raw(wire::zmtp_greeting());
    post_flush();
    stop_watching_writes();
}

// nginx watches new connections for both. But a UNIX socket tells of room each time its peer has
// read: the worker would wake for nothing with every request that an engine takes.
void Channel::stop_watching_writes() {
    ngx_event_t* write = connection_->write;
    if ((ngx_event_flags & NGX_USE_EPOLL_EVENT) != 0 && write->active && write->ready &&
        ngx_del_event(write, NGX_WRITE_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
        lose_connection("it cannot be watched");
    }
}

void Channel::retry_later() {
    retry_after_ = std::clamp(2 * retry_after_, kRetryMin, kRetryMax);
    ngx_add_timer(&timer_, retry_after_);
}

void Channel::lose_connection(const char* why) {
    ngx_log_error(NGX_LOG_INFO, ngx_cycle->log, 0, "heddle: connection to \"%V\" ended: %s",
                  &conf_.endpoint, why);
    ngx_close_connection(connection_);
    connection_ = nullptr;
    connected_ = false;
    const bool was_ready = std::exchange(ready_, false);
    hello_pending_ = false;
    if (was_ready) {
        retry_after_ = 0;
        if (is_usable()) {
            mark_down("the connection is gone");
        }
    }
    // Only now: what had not left is told from what had by it.
    reader_ = wire::ZmtpReader{wire::SocketKind::dealer};
    out_.clear();
    retry_later();
}

void Channel::on_readable(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Channel*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "receiving", [&] { self.receive_all(); });
}

void Channel::on_writable(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Channel*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "sending", [&] {
        if (!self.connected_) {
            int failed = 0;
            socklen_t size = sizeof(failed);
            if (getsockopt(self.connection_->fd, SOL_SOCKET, SO_ERROR, &failed, &size) == -1 ||
                failed != 0) {
                self.lose_connection("it cannot be made");
                return;
            }
            self.on_connected();
        }
        self.flush();
    });
}

void Channel::on_flush(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Channel*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "sending", [&] { self.flush(); });
}

void Channel::on_timer(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Channel*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "connecting", [&] {
        if (self.connection_ == nullptr) {
            self.connect();
        } else if (!self.ready_) {
            self.lose_connection("hands were not shaken in time");
        }
    });
}

void Channel::post_flush() noexcept {
    if (!flush_.posted) {
        ngx_post_event(&flush_, &ngx_posted_events);
    }
}

bool Channel::try_send(std::string frame) {
    const std::size_t room = kQueuedBytesMax + (frame.size() <= kSmallBytes ? kSmallRoom : 0);
    if (!ready_ || frame.empty() || out_.bytes() + frame.size() > room) {
        return false;
    }
    push(std::move(frame));
    return true;
}

void Channel::send_cancel(const wire::Cancel& cancel) {
    std::string frame = wire::encode(wire::EdgeMessage{cancel});
    if (ready_ && !frame.empty()) {
        push(std::move(frame));
    }
}

void Channel::push(std::string frame) {
    out_.push(std::move(frame));
    post_flush();
}

void Channel::flush() {
    if (connection_ == nullptr || !connected_ || !connection_->write->ready) {
        return;
    }
    std::array<iovec, wire::ZmtpSendQueue::kVectorsMax> vectors{};
    while (const std::size_t count = out_.peek(vectors)) {
        msghdr message{};
        message.msg_iov = vectors.data();
        message.msg_iovlen = count;
        const ssize_t sent = sendmsg(connection_->fd, &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            out_.written(static_cast<std::size_t>(sent));
            continue;
        }
        if (ngx_socket_errno == NGX_EINTR) {
            continue;
        }
        if (ngx_socket_errno != NGX_EAGAIN) {
            lose_connection("it cannot be written");
            return;
        }
        connection_->write->ready = 0;
        if (ngx_handle_write_event(connection_->write, 0) != NGX_OK) {
            lose_connection("it cannot be watched");
        }
        return;
    }
    stop_watching_writes();
}

void Channel::receive_all() {
    std::size_t received = 0;
    while (connection_ != nullptr && connected_ && connection_->read->ready) {
        if (received >= kReadMax) {
            ngx_post_event(connection_->read, &ngx_posted_next_events);
            return;
        }
        const auto room = reader_.room();
        const ssize_t got =
            connection_->recv(connection_, reinterpret_cast<u_char*>(room.data()), room.size());
        if (got == NGX_AGAIN) {
            break;
        }
        if (got <= 0) {
            lose_connection(got == 0 ? "the engine closed it" : "it cannot be read");
            return;
        }
        received += static_cast<std::size_t>(got);
        reader_.filled(static_cast<std::size_t>(got));
        if (!handle_received()) {
            return;
        }
    }
    if (connection_ != nullptr && ngx_handle_read_event(connection_->read, 0) != NGX_OK) {
        lose_connection("it cannot be watched");
    }
}

bool Channel::handle_received() {
    const ngx_connection_t* connection = connection_;
    while (connection_ == connection) {
        switch (reader_.next()) {
            case wire::ZmtpReader::Event::none:
                return true;
            case wire::ZmtpReader::Event::greeted:
                out_.push_raw(wire::zmtp_ready(wire::SocketKind::dealer));
                post_flush();
                break;
            case wire::ZmtpReader::Event::ready:
                ready_ = true;
                retry_after_ = 0;
                heard_at_ = ngx_current_msec;
                if (timer_.timer_set) {
                    ngx_del_timer(&timer_);
                }
                say_hello();
                break;
            case wire::ZmtpReader::Event::ping:
                if (out_.bytes() <= kQueuedBytesMax) {
                    out_.push_raw(wire::zmtp_pong(reader_.payload()));
                    post_flush();
                }
                break;
            case wire::ZmtpReader::Event::multipart:
                figures_.frames_dropped.fetch_add(1, std::memory_order_relaxed);
                break;
            case wire::ZmtpReader::Event::frame:
                on_frame(reader_.payload());
                break;
            case wire::ZmtpReader::Event::broken:
                ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "heddle: \"%V\" is no engine: %s",
                              &conf_.endpoint, reader_.reason());
                lose_connection("it broke the protocol");
                return false;
        }
    }
    return false;
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
        peers_.on_engine_up(*this);
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

bool Channel::may_come_soon(ngx_msec_t patience) const noexcept {
    return state_ == EngineState::connecting ||
           (state_ == EngineState::down && ngx_current_msec - since_ < patience);
}

void Channel::tick(bool ping) {
    const ngx_msec_t now = ngx_current_msec;
    if (hello_pending_ && now - hello_at_ >= kHelloEvery) {
        hello_pending_ = false;
    }
    if (!is_usable()) {
        if (state_ == EngineState::connecting && now - since_ >= kSilenceMax) {
            mark_down("it does not answer");
        }
        if (ready_ && now - heard_at_ > kConnectionSilenceMax) {
            lose_connection("it is silent");
        } else if (ready_ && !hello_pending_) {
            say_hello();
        }
        return;
    }
    if (ping) {
        const wire::Ping message{++ping_serial_};
        (void)try_send(wire::encode(wire::EdgeMessage{message}));
    }
    if (now - heard_at_ > kSilenceMax) {
        mark_down("it is silent");
    }
}

}  // namespace heddle::ngx
