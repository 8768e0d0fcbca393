#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ngx_module/conf.hpp"
#include "ngx_module/inflight.hpp"
#include "ngx_module/pool_peers.hpp"

namespace heddle::ngx {

/// All that one worker process has of its own: made in init process, after the fork, and destroyed
/// in exit process. Only the worker's one thread touches it.
class Worker {
public:
    /// nullptr, with a message in the log, if it cannot be; then the module answers 503.
    static std::unique_ptr<Worker> start(MainConf& conf, ngx_cycle_t* cycle);
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    [[nodiscard]] PoolPeers& peers(const PoolConf& pool) noexcept { return *pools_[pool.index]; }
    [[nodiscard]] Inflight& inflight() noexcept { return inflight_; }
    [[nodiscard]] const std::string& edge_id() const noexcept { return edge_id_; }

private:
    Worker();
    static void on_tick(ngx_event_t* event) noexcept;

    std::string edge_id_;
    Inflight inflight_;
    std::vector<std::unique_ptr<PoolPeers>> pools_;
    ngx_connection_t tick_connection_{};  ///< nginx logs a timer's descriptor through it
    ngx_event_t tick_{};
    bool ping_next_ = true;
    ngx_msec_t leaving_since_ = 0;  ///< 0: it is not
};

}  // namespace heddle::ngx
