#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/transport/from_edge.hpp"
#include "engine/transport/outbox.hpp"
#include "engine/transport/router_socket.hpp"
#include "engine/transport/session.hpp"
#include "engine/transport/transport.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::transport {

/// What the transport does. Everything but the atomics belongs to whoever holds the turn: the
/// transport's OS thread, except while it waits for the socket. Then a shard may send its answer
/// itself, which saves waking another OS thread for it.
class Loop {
public:
    Loop(const TransportOptions& options,
         RouterSocket& socket,
         Outbox& outbox,
         std::vector<std::unique_ptr<ShardSide>>& sides,
         api::Handler& handler,
         observe::Metrics& metrics);

    void run(std::function<std::string()> engine_id, std::string endpoint);

    std::atomic<bool> draining{false};
    std::atomic<bool> stopping{false};
    std::atomic<std::size_t> open_requests{0};
    std::atomic<std::size_t> bodies_bytes{0};  ///< see TransportOptions::bodies_bytes_max

private:
    struct Peer {
        Peer(PeerId its_id, base::Instant now) : id{its_id}, hearing{now} {}

        PeerId id;
        std::string edge_id;
        Hearing hearing;
        bool gone = false;
        std::unordered_map<wire::RequestId, std::uint64_t> open;  ///< to the serial
        std::deque<std::string> backlog;  ///< frames for which the socket had no room
        std::size_t backlog_bytes = 0;
    };
    struct Open {
        Peer* peer = nullptr;
        wire::RequestId id = 0;
        std::unique_ptr<wire::Request> arriving;  ///< until the body is complete
        bool discarding = false;                  ///< answered already; its body may still come
        bool late = false;                        ///< see Hearing
        base::Instant touched_at{};
        Session::Ptr session;
    };
    /// @return whether there may be more
    bool receive_some();
    void forward_outbox();
    void sleep(bool receive_more, std::unique_lock<std::mutex>& turn);
    /// On a shard's OS thread: sends what it has just put into the outbox, if the transport sleeps
    /// and there is nothing to gather it with. @return false if the transport has to
    bool try_send_for_sleeper();
    void tick();

    void on_frame(PeerId from, std::string_view frame);
    void on(Peer& peer, wire::Request request);
    void on(Peer& peer, wire::Body body);
    void on(Peer& peer, const wire::Credit& credit);
    void on(Peer& peer, const wire::Cancel& cancel);
    void on(Peer& peer, const wire::Ping& ping);
    void on(Peer& peer, const wire::Hello& hello);
    void greet(PeerId from, const wire::Hello& hello);

    void on_complete(Peer& peer, wire::Request request, bool late);
    void dispatch(Peer& peer,
                  wire::RequestId id,
                  std::uint64_t credit,
                  api::Request request,
                  api::Handler& handler,
                  const base::ThreadId& shard_key);
    void answer(Peer& peer, wire::RequestId id, api::Response response);
    void refuse(Peer& peer, wire::RequestId id, base::ErrorCode code);
    /// @param of_it_held  what bodies_bytes has of this body already
    [[nodiscard]] bool has_room_for(std::size_t body_bytes,
                                    std::size_t of_it_held = 0) const noexcept;
    Open& open(Peer& peer, wire::RequestId id);
    void close(std::uint64_t serial);
    void let_go(Peer& peer);
    void forget(Peer& peer);

    void reply(Peer& peer, const wire::EngineMessage& message);
    void send(Peer& peer, std::string frame);
    void retry_backlog(Peer& peer);
    void drop(const char* why);
    static std::unique_ptr<api::Handler> make_long_answer();

    const TransportOptions& options_;
    RouterSocket& socket_;
    Outbox& outbox_;
    std::vector<std::unique_ptr<ShardSide>>& sides_;
    api::Handler& handler_;
    std::unique_ptr<api::Handler> long_answer_;
    observe::Metrics& metrics_;
    std::function<std::string()> engine_id_;
    std::string endpoint_;

    std::mutex turn_;
    bool sleeps_ = false;  // whoever else has the turn has it from the sleeper

    std::unordered_map<PeerId, std::unique_ptr<Peer>> peers_;
    std::unordered_map<std::uint64_t, Open> open_;
    std::uint64_t next_serial_ = 1;
    std::size_t backlogs_ = 0;                            ///< peers that have one
    std::vector<std::pair<Peer*, std::string>> replies_;  ///< of this batch, sent after it
    std::vector<OutFrame> taken_;
    base::Instant now_{};
    base::Instant tick_at_{};
};

}  // namespace heddle::transport
