// The transport's OS thread: receive, forward, sleep. What a frame means is in loop_requests.cpp.
#include "engine/transport/loop.hpp"

#include <array>
#include <utility>

#include <poll.h>

#include "engine/observe/log.hpp"

namespace heddle::transport {
namespace {

// Frames read before the replies to them go out and the outbox gets its turn.
constexpr int kBatchMax = 256;
constexpr base::Duration kTickEvery = std::chrono::milliseconds{500};
// libzmq does not say which peer has room again, so full ones are tried this often.
constexpr base::Duration kBacklogRetry = std::chrono::milliseconds{5};

}  // namespace

Loop::Loop(const TransportOptions& options,
           RouterSocket& socket,
           Outbox& outbox,
           std::vector<std::unique_ptr<ShardSide>>& sides,
           api::Handler& handler,
           observe::Metrics& metrics)
    : options_{options},
      socket_{socket},
      outbox_{outbox},
      sides_{sides},
      handler_{handler},
      long_answer_{make_long_answer()},
      metrics_{metrics} {}

void Loop::run(std::function<std::string()> engine_id, std::string endpoint) {
    engine_id_ = std::move(engine_id);
    endpoint_ = std::move(endpoint);
    while (!stopping.load(std::memory_order_relaxed)) {
        now_ = base::system_clock().now();
        bool worked = receive_some();
        worked = forward_outbox() || worked;
        worked = tick() || worked;
        // A send may swallow the socket's wake-up: sleep only after a round that did nothing.
        if (!worked) {
            sleep();
        }
    }
    forward_outbox();
    for (auto& [serial, open] : open_) {
        if (open.session != nullptr) {
            open.session->post_gone(false);
        }
    }
}

bool Loop::receive_some() {
    std::string_view identity;
    std::string_view frame;
    int received = 0;
    for (; received < kBatchMax; ++received) {
        const auto what = socket_.receive(identity, frame);
        if (what == RouterSocket::Received::nothing) {
            break;
        }
        if (what == RouterSocket::Received::malformed) {
            drop("not one identity and one frame");
            continue;
        }
        on_frame(identity, frame);
    }
    for (auto& [peer, bytes] : replies_) {
        send(*peer, std::move(bytes));
    }
    replies_.clear();
    return received > 0;
}

bool Loop::forward_outbox() {
    taken_.clear();
    outbox_.take(taken_);
    for (auto& frame : taken_) {
        const auto at = open_.find(frame.serial);
        if (at == open_.end()) {
            continue;
        }  // cancelled: nobody waits for it any more
        if (!frame.bytes.empty()) {
            send(*at->second.peer, std::move(frame.bytes));
        }
        if (frame.last) {
            close(frame.serial);
        }
    }
    outbox_.sent(taken_.size());
    if (backlogs_ > 0) {
        for (auto& [identity, peer] : peers_) {
            if (!peer->backlog.empty()) {
                retry_backlog(*peer);
            }
        }
    }
    if (outbox_.take_full_seen()) {
        for (auto& side : sides_) {
            side->shard.post([&side = *side] { side.room.notify_all(); });
        }
    }
    return !taken_.empty();
}

void Loop::sleep() {
    if (!outbox_.prepare_sleep()) {
        return;
    }
    std::array<pollfd, 2> waiting{
        {{socket_.descriptor(), POLLIN, 0}, {outbox_.wake_fd(), POLLIN, 0}}};
    const auto most = backlogs_ > 0 ? kBacklogRetry : kTickEvery;
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(most).count();
    (void)::poll(waiting.data(), waiting.size(), static_cast<int>(ms));
    outbox_.woken((waiting[1].revents & POLLIN) != 0);
}

bool Loop::tick() {
    if (now_ < tick_at_) {
        return false;
    }
    tick_at_ = now_ + kTickEvery;
    std::vector<Peer*> silent;
    for (auto& [identity, peer] : peers_) {
        if (peer->gone || now_ - peer->heard_at > options_.peer_silence_max) {
            silent.push_back(peer.get());
        }
    }
    for (auto* peer : silent) {
        forget(*peer);
    }

    std::vector<std::uint64_t> late;
    for (auto& [serial, open] : open_) {
        const bool waits = open.arriving != nullptr || open.discarding;
        if (waits && now_ - open.touched_at > options_.body_wait_max) {
            late.push_back(serial);
        }
    }
    for (const auto serial : late) {
        auto& open = open_.at(serial);
        if (!open.discarding) {
            answer(
                *open.peer, open.id,
                api::error_response({base::ErrorCode::timeout, "the body did not arrive in time"}));
        }
        close(serial);
    }
    for (auto& [peer, bytes] : replies_) {
        send(*peer, std::move(bytes));
    }
    replies_.clear();
    return true;
}

void Loop::send(Peer& peer, std::string frame) {
    if (peer.gone) {
        return;
    }
    if (peer.backlog.empty()) {
        switch (socket_.send(peer.identity, frame)) {
            case RouterSocket::Sent::sent:
                return;
            case RouterSocket::Sent::gone:
                peer.gone = true;
                return;
            case RouterSocket::Sent::full:
                ++backlogs_;
                break;
        }
    }
    peer.backlog_bytes += frame.size();
    peer.backlog.push_back(std::move(frame));
    if (peer.backlog_bytes > options_.peer_backlog_bytes_max) {
        observe::log(observe::LogLevel::warn, "transport", "edge {} does not read; forgotten",
                     peer.edge_id);
        peer.gone = true;
    }
}

void Loop::retry_backlog(Peer& peer) {
    while (!peer.backlog.empty() && !peer.gone) {
        const auto sent = socket_.send(peer.identity, peer.backlog.front());
        if (sent == RouterSocket::Sent::full) {
            return;
        }
        if (sent == RouterSocket::Sent::gone) {
            peer.gone = true;
        }
        peer.backlog_bytes -= peer.backlog.front().size();
        peer.backlog.pop_front();
        if (peer.backlog.empty()) {
            --backlogs_;
        }
    }
}

void Loop::drop(const char* why) {
    metrics_.frames_dropped_total.fetch_add(1, std::memory_order_relaxed);
    observe::log(observe::LogLevel::debug, "transport", "frame dropped: {}", why);
}

}  // namespace heddle::transport
