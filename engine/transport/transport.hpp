#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "engine/api/http.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/shard.hpp"
#include "engine/observe/metrics.hpp"

namespace heddle::transport {

struct TransportOptions {
    std::string listen;      ///< ipc:///path or tcp://address:port
    std::string advertised;  ///< as other machines reach it; empty: as bound
    std::size_t open_requests_max = 20'000;
    std::size_t request_body_bytes_max = 32U << 20U;  ///< of one request; past it 413
    /// Of all requests together that are incomplete, or answered with neither a frame nor a run
    /// that is stored; past it (see base::has_room) `overloaded`.
    std::size_t bodies_bytes_max = 512U << 20U;
    std::size_t outbox_frames_max = 65'536;
    std::size_t peers_max = 1024;
    std::size_t peer_backlog_bytes_max = 64U << 20U;  ///< past it the peer is forgotten
    base::Duration peer_silence_max = std::chrono::seconds{10};
    base::Duration body_wait_max = std::chrono::seconds{60};  ///< between two frames of one body
};

/// The engine's side of the wire (shared/wire/README.md): one ROUTER socket and one OS thread that
/// alone touches it. Knows peers, assembles bodies, hands complete requests to the shard of their
/// thread, forwards what the shards have encoded. Requests that need neither thread nor store are
/// answered on that OS thread itself. Nothing that arrives can stop it: what cannot be read is
/// counted in Metrics::frames_dropped_total.
class Transport {
public:
    /// Binds. Everything borrowed must outlive the transport's OS thread, but requests live on the
    /// shards: those are destroyed before the transport.
    /// @return conflict  the endpoint is in use; invalid_argument  it cannot be used
    static base::Result<std::unique_ptr<Transport>> bind(TransportOptions options,
                                                         api::Handler& handler,
                                                         base::ShardPool& shards,
                                                         observe::Metrics& metrics);
    ~Transport();
    Transport(const Transport&) = delete;
    Transport& operator=(const Transport&) = delete;

    /// As edges and other engines reach it.
    [[nodiscard]] const std::string& endpoint() const noexcept;
    /// Starts the OS thread. @param engine_id  asked for at every Welcome and Pong; any OS thread
    void start(std::function<std::string()> engine_id);
    /// Refuses from now on what starts work; everything else goes on. Any OS thread.
    void start_draining() noexcept;
    /// Requests that have not had their last frame. Any OS thread.
    [[nodiscard]] std::size_t open_requests() const noexcept;
    /// Ends the OS thread. Idempotent. @param linger  for frames already sent to be written
    void stop(base::Duration linger);

private:
    struct Impl;
    explicit Transport(std::unique_ptr<Impl> impl);

    std::unique_ptr<Impl> impl_;
};

}  // namespace heddle::transport
