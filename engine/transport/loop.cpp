// The transport's OS thread: receive, forward, sleep. What a frame means is in loop_requests.cpp.
#include "engine/transport/loop.hpp"

#include <utility>

#include "engine/observe/log.hpp"

namespace heddle::transport {
namespace {

// Frames read before the replies to them go out and the outbox gets its turn.
constexpr int kBatchMax = 256;
constexpr base::Duration kTickEvery = std::chrono::milliseconds{500};
// Peers whose queue was full are tried again this often.
constexpr base::Duration kBacklogRetry = std::chrono::milliseconds{5};
// With more requests open than these, answers that come together leave in one write.
constexpr std::size_t kLonelyMax = 2;

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
      metrics_{metrics} {
    outbox_.set_stand_in([this] { return try_send_for_sleeper(); });
}

void Loop::run(std::function<std::string()> engine_id, std::string endpoint) {
    engine_id_ = std::move(engine_id);
    endpoint_ = std::move(endpoint);
    std::unique_lock turn{turn_};
    while (!stopping.load(std::memory_order_relaxed)) {
        now_ = base::system_clock().now();
        const bool receive_more = receive_some();
        forward_outbox();
        tick();
        socket_.flush();
        sleep(receive_more, turn);
    }
    forward_outbox();
    socket_.flush();
    for (auto& [serial, open] : open_) {
        if (open.session != nullptr) {
            open.session->post_gone(false);
        }
    }
}

bool Loop::receive_some() {
    PeerId from = 0;
    std::string_view frame;
    auto what = RouterSocket::Received::frame;
    for (int i = 0; i < kBatchMax && what != RouterSocket::Received::nothing; ++i) {
        what = socket_.receive(from, frame);
        if (what == RouterSocket::Received::frame) {
            on_frame(from, frame);
        } else if (what == RouterSocket::Received::malformed) {
            drop("a message of several parts");
        } else if (what == RouterSocket::Received::closed) {
            if (const auto at = peers_.find(from); at != peers_.end()) {
                forget(*at->second);
            }
        }
    }
    for (auto& [peer, bytes] : replies_) {
        send(*peer, std::move(bytes));
    }
    replies_.clear();
    return what != RouterSocket::Received::nothing;
}

void Loop::forward_outbox() {
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
        for (auto& [id, peer] : peers_) {
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
}

void Loop::sleep(bool receive_more, std::unique_lock<std::mutex>& turn) {
    const bool may_sleep = outbox_.prepare_sleep() && !receive_more;
    const auto most = backlogs_ > 0 ? kBacklogRetry : kTickEvery;
    sleeps_ = true;
    const bool is_woken = socket_.wait(may_sleep ? most : base::Duration::zero(), turn);
    sleeps_ = false;
    outbox_.woken(is_woken);
}

bool Loop::try_send_for_sleeper() {
    if (open_requests.load(std::memory_order_relaxed) > kLonelyMax) {
        return false;
    }
    const std::unique_lock turn{turn_, std::try_to_lock};
    if (!turn || !sleeps_) {
        return false;
    }
    // As the transport's own turn ends: asleep only if nothing came meanwhile.
    do {
        forward_outbox();
        socket_.flush();
    } while (!outbox_.prepare_sleep());
    return !socket_.has_closed() && backlogs_ == 0;
}

void Loop::tick() {
    if (now_ < tick_at_) {
        return;
    }
    tick_at_ = now_ + kTickEvery;
    socket_.tick(now_);
    std::vector<Peer*> silent;
    for (auto& [id, peer] : peers_) {
        if (peer->gone || peer->hearing.silence(now_) > options_.peer_silence_max) {
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
}

void Loop::send(Peer& peer, std::string frame) {
    if (peer.gone) {
        return;
    }
    if (peer.backlog.empty()) {
        switch (socket_.send(peer.id, std::move(frame))) {
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
        const std::size_t bytes = peer.backlog.front().size();
        const auto sent = socket_.send(peer.id, std::move(peer.backlog.front()));
        if (sent == RouterSocket::Sent::full) {
            return;
        }
        if (sent == RouterSocket::Sent::gone) {
            peer.gone = true;
        }
        peer.backlog_bytes -= bytes;
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
