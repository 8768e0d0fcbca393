#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ngx_module/call.hpp"
#include "ngx_module/channel.hpp"
#include "ngx_module/moved_cache.hpp"

namespace heddle::ngx {

class Worker;

/// One pool in one worker: its engines, which of them gets a request, and what happens to requests
/// when an engine refuses them or is lost. Belongs to the worker's only thread.
class PoolPeers {
public:
    PoolPeers(Worker& worker, PoolConf& conf);
    ~PoolPeers();
    PoolPeers(const PoolPeers&) = delete;
    PoolPeers& operator=(const PoolPeers&) = delete;

    /// Begins to connect, in init process.
    void open();
    void tick(bool ping);

    /// Sends the call to the engine it belongs to, or lets it wait for one, or answers that there
    /// is none: then the request may be gone on return.
    void submit(Call& call);
    /// Ends the call's stay with its engine. Its id finds nothing from then on.
    /// @param tell_engine  send Cancel, because the engine may still be at work on it
    /// @param client_left  false: the engine is told that only this edge lets go
    void release(Call& call, bool tell_engine, bool client_left = true) noexcept;
    void stop_waiting(Call& call) noexcept;
    /// Its engine says that the run goes on elsewhere: looks for that engine. false: the response
    /// cannot be gone on with, or the call never had a run.
    [[nodiscard]] bool try_go_on(Call& call);
    /// From now on end_streams() ends it. Until the call is destroyed.
    void add_stream(Call& call) noexcept;
    /// A worker that is leaving ends its event streams where clients can take them up again.
    /// @param at_once  wherever they are, and calls that are only kept for a Cancel too
    void end_streams(bool at_once);

    // From the channels.
    void on_message(Channel& channel, wire::EngineMessage&& message);
    void on_lost(Channel& channel);       ///< the engine is down
    void on_forgotten(Channel& channel);  ///< the engine knows nothing sent before its last Hello
    void on_engine_up(const Channel& channel);

    [[nodiscard]] Worker& worker() noexcept { return worker_; }
    [[nodiscard]] ngx_slab_pool_t* slab() noexcept { return zone_.slab; }

private:
    static constexpr std::size_t kWaitingMax = 4'096;

    enum class Sent : std::uint8_t { yes, engine_full, cannot };

    [[nodiscard]] Channel* pick(const Call& call);
    [[nodiscard]] Channel* pick_by_key(const Call& call, EngineState state);
    [[nodiscard]] Channel* pick_least_loaded(const Call& call, EngineState state);
    [[nodiscard]] Channel* find_endpoint(std::string_view endpoint) noexcept;
    [[nodiscard]] Sent send(Call& call, Channel& channel);
    void submit_to(Call& call, Channel* target);
    void wait_or_fail(Call& call);
    /// Whether an engine may be able to take it soon.
    [[nodiscard]] bool is_worth_waiting(const Call& call) const noexcept;
    /// Submits again what waits, `free(call)` first: it says which engines may have it again.
    template <class Free>
    void retry_waiting(Free free);
    [[nodiscard]] std::size_t hops_max() const noexcept { return 2 * channels_.size() + 2; }
    void act_on(Call& call, Channel& channel, wire::EngineMessage&& message);
    /// It has lost the thread since: what it says of the call counts for nothing.
    void on_stale(Call& call, Channel& channel, bool ended);
    void on_moved(Call& call, Channel& channel, const wire::Moved& moved);
    void on_refused(Call& call, Channel& channel, const wire::Refused& refused);
    /// Its engine is lost: to the next one if that can do no harm, else an error to the client.
    void lose(Call& call);
    /// To another engine, or to this one later.
    void send_on(Call& call, Channel& channel);
    /// Runs `act(call)` for each of the ids that still has a call, as from the event loop.
    template <class Act>
    void for_each(const std::vector<wire::RequestId>& ids, Act act);

    Worker& worker_;
    PoolZone& zone_;
    WorkerSlot* slot_;
    std::unique_ptr<EngineFigures[]> own_figures_;  ///< when the zone has no room for a slot
    std::vector<std::unique_ptr<Channel>> channels_;
    MovedCache moved_;
    std::vector<wire::RequestId> waiting_;
    ngx_queue_t streams_{};  ///< through Call::stream
    std::size_t turn_ = 0;
};

}  // namespace heddle::ngx
