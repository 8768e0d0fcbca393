#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/api/http.hpp"
#include "engine/base/shard.hpp"
#include "engine/base/signal.hpp"
#include "engine/transport/outbox.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::transport {

/// What all sessions of one shard share. `room` belongs to the shard; it is notified when the
/// outbox was full and is no longer.
struct ShardSide {
    ShardSide(base::Shard& its_shard, Outbox& frames, std::atomic<std::size_t>& bodies)
        : shard{its_shard}, outbox{frames}, bodies_bytes{bodies} {}

    base::Shard& shard;
    Outbox& outbox;
    std::atomic<std::size_t>& bodies_bytes;  ///< of all shards' requests
    base::Signal room;
};

/// One request between a complete body and its last frame: encodes the response and keeps its
/// credit. Belongs to one shard; the transport's OS thread only hands it over and posts to it. Held
/// by shared pointers because the transport's table and the handler's coroutine end independently.
class Session final : public api::ResponseSink, public std::enable_shared_from_this<Session> {
public:
    using Ptr = std::shared_ptr<Session>;  // NOLINT: see above

    Session(std::uint64_t serial,
            wire::RequestId id,
            std::uint64_t credit,
            api::Request request,
            ShardSide& side);
    ~Session() override;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // ---- any OS thread

    /// Answers with `handler` on the session's shard. The session must be in the outbox's table.
    /// @return false if the shard's mailbox is full: nothing will happen
    [[nodiscard]] bool try_start(api::Handler& handler,
                                 std::vector<std::unique_ptr<ShardSide>>& all);
    /// The client has room for more.
    void post_credit(std::uint64_t bytes);
    /// @param left  the client itself is gone, not the edge that it came through
    void post_gone(bool left);

    // ---- the session's shard

    void accepted(std::int64_t epoch) override;
    void moved(std::string engine_id, std::string endpoint) override;
    void refused(base::ErrorCode code) override;
    base::Task<base::Status> respond(api::Response response) override;
    void start(api::Response head) override;
    base::Task<base::Status> write(std::string bytes) override;
    void end() override;
    void fail(base::ErrorCode code) override;
    [[nodiscard]] base::CancelSource& gone() noexcept override { return gone_; }

private:
    base::Task<> serve(api::Handler& handler, std::vector<std::unique_ptr<ShardSide>>& all);
    void post(void (*what)(Session&, std::uint64_t), std::uint64_t argument);
    void close();
    void let_go_of_body();
    void send(wire::EngineMessage message, bool last);
    void send_head(api::Response response, bool last);

    const std::uint64_t serial_;
    const wire::RequestId id_;
    ShardSide& home_;  ///< where the transport posts to
    ShardSide* side_;  ///< where it lives now; changes at most once, written on home_
    api::Request request_;
    std::size_t body_bytes_;  ///< of the request, counted in bodies_bytes
    std::uint64_t credit_;
    std::uint64_t epoch_ = 0;
    bool accepted_ = false;
    bool head_sent_ = false;
    bool ended_ = false;  ///< the last frame is in the outbox
    base::CancelSource gone_;
    base::Signal credit_changed_;
};

}  // namespace heddle::transport
