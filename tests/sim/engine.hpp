#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/api/api.hpp"
#include "engine/scheduler/ownership.hpp"
#include "engine/transport/from_edge.hpp"
#include "engine/transport/session.hpp"
#include "shared/wire/messages.hpp"
#include "tests/sim/database.hpp"

namespace heddle::sim {

/// One end of a connection, as the engine sees it: where its frames go.
using SendFrame = std::function<void(std::string)>;

/// A heddle-engine: the engine's own classes joined as in engine/app, with the database's port for
/// a driver and, in place of transport::Loop and its socket, the few lines that hand frames to
/// sessions. Destroying it is a crash: whatever waits is gone.
class Engine {
public:
    Engine(World& world,
           Database& database,
           const StoreWatch& watch,
           const scheduler::Catalog& catalog,
           std::size_t slot);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    /// Where it listens: the same after every restart.
    static std::string endpoint_of(std::size_t slot) { return fmt::format("sim:{}", slot); }
    [[nodiscard]] Process& process() noexcept { return process_; }
    /// Registered in the store: takes requests.
    [[nodiscard]] bool is_ready() const noexcept { return ready_; }

    // ---- frames; delayed while the process is paused
    void connect(std::uint64_t connection, SendFrame send);
    void receive(std::uint64_t connection, std::string frame);
    void disconnect(std::uint64_t connection);

    /// As SIGTERM does. Call is_drained() now and then, then leave().
    void start_draining();
    [[nodiscard]] bool is_drained() const;
    void leave(std::function<void()> gone);

private:
    struct Peer {
        SendFrame send;
        transport::Hearing hearing;
        bool greeted = false;
        std::map<wire::RequestId, std::uint64_t> open;  ///< to serial
    };
    struct Open {
        std::uint64_t connection = 0;
        wire::RequestId id = 0;
        transport::Session::Ptr session;
        std::string run_id;
    };

    void take(std::uint64_t connection, const std::string& frame);
    void on_request(std::uint64_t connection, wire::Request request);
    void on_cancel(Peer& peer, const wire::Cancel& cancel);
    void answer(Peer& peer, const wire::EngineMessage& message);
    void let_go(Peer& peer);
    void drain_outbox();
    void check_frame(const Open& open, const std::string& frame);
    void run_start();
    void tick();

    World& world_;
    const StoreWatch& watch_;
    Process process_;
    std::size_t slot_;
    observe::Metrics metrics_;
    std::unique_ptr<storage::Store> store_;
    std::unique_ptr<base::ShardPool> shards_;
    std::unique_ptr<scheduler::Scheduler> scheduler_;
    std::unique_ptr<scheduler::Ownership> ownership_;
    std::unique_ptr<api::Api> api_;
    std::unique_ptr<transport::Outbox> outbox_;
    std::atomic<std::size_t> bodies_bytes_{0};
    std::vector<std::unique_ptr<transport::ShardSide>> sides_;

    bool ready_ = false;
    bool draining_ = false;
    std::map<std::uint64_t, Peer> peers_;
    std::map<std::uint64_t, Open> open_;  ///< by serial
    std::uint64_t serials_ = 0;
    std::vector<std::pair<std::uint64_t, std::string>> inbox_;  ///< while paused
    std::shared_ptr<const bool> life_ = std::make_shared<const bool>(true);
};

}  // namespace heddle::sim
