#include "ngx_module/worker.hpp"

#include "ngx_module/barrier.hpp"
#include "ngx_module/uuid.hpp"

namespace heddle::ngx {

namespace {
constexpr ngx_msec_t kTickEvery = 500;
// How long a leaving worker waits for a stream to come to the end of an event, and for its client
// to read that.
constexpr ngx_msec_t kLeaveMax = 3'000;
}  // namespace

Worker::Worker() : edge_id_{make_uuid_v7().text()} {}

std::unique_ptr<Worker> Worker::start(MainConf& conf, ngx_cycle_t* cycle) {
    std::unique_ptr<Worker> worker{new Worker};
    for (PoolConf* pool : ArrayView<PoolConf*>{&conf.pools}) {
        worker->pools_.push_back(std::make_unique<PoolPeers>(*worker, *pool));
        worker->pools_.back()->open();
    }
    worker->tick_connection_.fd = static_cast<ngx_socket_t>(-1);
    worker->tick_connection_.data = worker.get();
    worker->tick_.data = &worker->tick_connection_;
    worker->tick_.log = cycle->log;
    worker->tick_.handler = on_tick;
    worker->tick_.cancelable = 1;  // a worker that is leaving does not wait for it
    ngx_add_timer(&worker->tick_, kTickEvery);
    return worker;
}

Worker::~Worker() {
    if (tick_.timer_set) {
        ngx_del_timer(&tick_);
    }
    pools_.clear();
}

void Worker::on_tick(ngx_event_t* event) noexcept {
    auto& self = *static_cast<Worker*>(static_cast<ngx_connection_t*>(event->data)->data);
    guarded(event->log, "tick", [&] {
        if (ngx_exiting != 0 && self.leaving_since_ == 0) {
            self.leaving_since_ = ngx_current_msec;
        }
        const bool at_once = ngx_current_msec - self.leaving_since_ >= kLeaveMax;
        for (auto& pool : self.pools_) {
            pool->tick(self.ping_next_);
            if (ngx_exiting != 0) {
                pool->end_streams(at_once);
            }
        }
        self.ping_next_ = !self.ping_next_;
    });
    // A leaving worker still pings while requests are open; the timer does not hold it back.
    ngx_add_timer(event, kTickEvery);
}

}  // namespace heddle::ngx
