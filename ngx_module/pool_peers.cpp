#include "ngx_module/pool_peers.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ngx_module/barrier.hpp"
#include "ngx_module/handler.hpp"
#include "ngx_module/response.hpp"
#include "ngx_module/route_key.hpp"
#include "ngx_module/worker.hpp"

namespace heddle::ngx {

namespace {

std::uint64_t bit_of(const Channel& channel) {
    return std::uint64_t{1} << channel.index();
}

bool may_have(const Call& call, const Channel& channel) {
    return ((call.tried | call.ask_later) & bit_of(channel)) == 0;
}

/// Whether another engine can give what the client lacks of the response.
bool may_go_on(const Call& call) {
    if (!call.retry_safe) {
        return false;
    }
    if (!call.head_sent) {
        return true;
    }
    return call.is_event_stream ? call.between_events : !call.body_begun;
}

void count(std::atomic<std::uint64_t>& figure, std::uint64_t by = 1) {
    // Only this worker writes it, so it needs no locked instruction.
    figure.store(figure.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

/// Weighted rendezvous hashing: the engine with the highest score has the key. An engine that comes
/// or goes moves only its own keys.
double score_of(std::uint64_t key_hash, const Channel& channel) {
    std::uint64_t mixed = key_hash ^ (channel.endpoint_hash() * 0x9e3779b97f4a7c15ULL);
    mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebULL;
    mixed ^= mixed >> 31U;
    constexpr double kUnit = 1.0 / 9007199254740992.0;  // 2^-53
    const double uniform = (static_cast<double>(mixed >> 11U) + 0.5) * kUnit;
    return -channel.weight() / std::log(uniform);
}

}  // namespace

PoolPeers::PoolPeers(Worker& worker, PoolConf& conf)
    : worker_{worker}, zone_{*static_cast<PoolZone*>(conf.zone->data)}, slot_{take_slot(zone_)} {
    const ArrayView<EngineConf> engines{&conf.engines};
    if (slot_ == nullptr) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "heddle: zone \"%V\" is full: heddle_status will not show this worker",
                      &conf.zone->shm.name);
    }
    EngineFigures* figures = slot_ == nullptr ? nullptr : slot_->engines;
    if (figures == nullptr) {
        own_figures_ = std::make_unique<EngineFigures[]>(engines.size());
        figures = own_figures_.get();
    }
    ngx_queue_init(&streams_);
    for (std::size_t i = 0; i < engines.size(); i++) {
        channels_.push_back(std::make_unique<Channel>(*this, engines[i], i, figures[i]));
    }
}

PoolPeers::~PoolPeers() {
    channels_.clear();
    if (slot_ != nullptr) {
        give_slot_back(zone_, slot_);
    }
}

void PoolPeers::open() {
    for (auto& channel : channels_) {
        channel->open();
    }
}

void PoolPeers::tick(bool ping) {
    for (auto& channel : channels_) {
        channel->tick(ping);
    }
    retry_waiting([](Call& call) { call.ask_later = 0; });
}

Channel* PoolPeers::pick_by_key(const Call& call, EngineState state) {
    Channel* best = nullptr;
    double best_score = 0;
    for (auto& channel : channels_) {
        if (channel->state() == state && may_have(call, *channel)) {
            const double score = score_of(call.key_hash, *channel);
            if (best == nullptr || score > best_score) {
                best = channel.get();
                best_score = score;
            }
        }
    }
    return best;
}

Channel* PoolPeers::pick_least_loaded(const Call& call, EngineState state) {
    Channel* best = nullptr;
    double best_load = 0;
    turn_++;
    for (std::size_t i = 0; i < channels_.size(); i++) {
        Channel& channel = *channels_[(turn_ + i) % channels_.size()];
        if (channel.state() == state && may_have(call, channel)) {
            const double load =
                static_cast<double>(channel.figures().in_flight.load(std::memory_order_relaxed)) /
                channel.weight();
            if (best == nullptr || load < best_load) {
                best = &channel;
                best_load = load;
            }
        }
    }
    return best;
}

Channel* PoolPeers::pick(const Call& call) {
    if (call.thread_id.len > 0) {
        if (const auto owner = moved_.find(call.key_hash)) {
            Channel& channel = *channels_[*owner];
            if (channel.is_usable() && may_have(call, channel)) {
                return &channel;
            }
            moved_.forget(call.key_hash);
        }
    }
    // A draining engine still answers what starts nothing: better than none.
    for (const auto state : {EngineState::up, EngineState::draining}) {
        Channel* channel =
            call.thread_id.len > 0 ? pick_by_key(call, state) : pick_least_loaded(call, state);
        if (channel != nullptr) {
            return channel;
        }
    }
    return nullptr;
}

Channel* PoolPeers::find_endpoint(std::string_view endpoint) noexcept {
    for (auto& channel : channels_) {
        if (channel->endpoint() == endpoint) {
            return channel.get();
        }
    }
    return nullptr;
}

PoolPeers::Sent PoolPeers::send(Call& call, Channel& channel) {
    if (call.id == 0) {
        call.id = worker_.inflight().add(call);
    }
    wire::Request request;
    if (call.id == 0 || !make_request(call, request)) {
        return Sent::cannot;
    }
    const std::uint64_t queued_at = channel.queued_total();
    if (!channel.try_send(wire::encode(wire::EdgeMessage{std::move(request)}))) {
        return Sent::engine_full;
    }
    call.queued_at = queued_at;
    call.channel = &channel;
    call.with_engine = true;
    call.hello_serial = channel.hello_serial();
    count(channel.figures().in_flight);
    count(channel.figures().requests);
    return Sent::yes;
}

void PoolPeers::submit(Call& call) {
    submit_to(call, nullptr);
}

void PoolPeers::submit_to(Call& call, Channel* target) {
    stop_waiting(call);
    for (;;) {
        Channel* channel = target != nullptr ? target : pick(call);
        target = nullptr;
        if (channel == nullptr) {
            wait_or_fail(call);
            return;
        }
        switch (send(call, *channel)) {
            case Sent::yes:
                ngx_add_timer(&call.timeout.event, call.conf->read_timeout);
                if (call.body_left > 0) {
                    pump_body(call);
                }
                return;
            case Sent::engine_full:
                call.ask_later |= bit_of(*channel);
                break;
            case Sent::cannot:
                fail(call, {NGX_HTTP_SERVICE_UNAVAILABLE, kOverloaded,
                            "too many requests are open in this nginx process", 1});
                return;
        }
    }
}

void PoolPeers::wait_or_fail(Call& call) {
    const bool has_room = call.accepted || waiting_.size() < kWaitingMax;
    const bool may_wait = has_room && is_worth_waiting(call);
    if (may_wait && call.id == 0) {
        call.id = worker_.inflight().add(call);
    }
    if (may_wait && call.id != 0) {
        call.waiting = true;
        waiting_.push_back(call.id);
        if (call.waiting_since == 0) {
            call.waiting_since = ngx_current_msec;
        }
        const auto waited = ngx_current_msec - call.waiting_since;
        const auto patience = call.accepted ? call.conf->read_timeout : call.conf->connect_timeout;
        ngx_add_timer(&call.timeout.event, waited < patience ? patience - waited : 1);
        return;
    }
    fail_without_engine(call);
}

bool PoolPeers::is_worth_waiting(const Call& call) const noexcept {
    // What another worker is connected to, this one will be in a moment.
    // Where a run is under way, its engine may come back, or another take its place.
    return call.accepted ||
           std::any_of(channels_.begin(), channels_.end(), [&](const auto& channel) {
               return (call.tried & bit_of(*channel)) == 0 &&
                      ((call.ask_later & bit_of(*channel)) != 0 ||
                       channel->may_come_soon(call.conf->connect_timeout) ||
                       is_usable_for_anyone(zone_, channel->index()));
           });
}

void PoolPeers::stop_waiting(Call& call) noexcept {
    if (call.waiting) {
        call.waiting = false;
        waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), call.id), waiting_.end());
    }
}

void PoolPeers::release(Call& call, bool tell_engine, bool client_left) noexcept {
    const bool with_engine = std::exchange(call.with_engine, false);
    call.answering = false;
    call.taken = false;
    stop_waiting(call);
    if (call.timeout.event.timer_set) {
        ngx_del_timer(&call.timeout.event);
    }
    if (call.pump.event.timer_set) {
        ngx_del_timer(&call.pump.event);
    }
    worker_.inflight().remove(call.id);
    if (with_engine) {
        auto& in_flight = call.channel->figures().in_flight;
        in_flight.store(in_flight.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
        // An engine that has answered early still waits for the rest of the body.
        if (tell_engine || call.body_left > 0) {
            call.channel->send_cancel({call.id, !client_left});
        }
    }
    call.id = 0;
}

template <class Act>
void PoolPeers::for_each(const std::vector<wire::RequestId>& ids, Act act) {
    for (const wire::RequestId id : ids) {
        Call* call = worker_.inflight().find(id);
        if (call == nullptr) {
            continue;
        }
        ngx_connection_t* c = call->request->connection;
        ngx_http_set_log_request(c->log, call->request);
        if (!guarded(c->log, "answering", [&] { act(*call); })) {
            call = worker_.inflight().find(id);
            if (call != nullptr) {
                release(*call, true);
                finish(*call, NGX_ERROR);
            }
        }
        ngx_http_run_posted_requests(c);
    }
}

void PoolPeers::on_message(Channel& channel, wire::EngineMessage&& message) {
    const wire::RequestId id = std::visit(
        [](const auto& m) -> wire::RequestId {
            if constexpr (requires { m.id; }) {
                return m.id;
            } else {
                return 0;
            }
        },
        message);
    Call* call = worker_.inflight().find(id);
    if (call == nullptr || call->channel != &channel || call->waiting || call->done) {
        count(channel.figures().frames_dropped);
        return;
    }
    ngx_connection_t* c = call->request->connection;
    ngx_http_set_log_request(c->log, call->request);
    const bool ok =
        guarded(c->log, "answering", [&] { act_on(*call, channel, std::move(message)); });
    if (!ok) {
        call = worker_.inflight().find(id);
        if (call != nullptr) {
            release(*call, true);
            finish(*call, NGX_ERROR);
        }
    }
    ngx_http_run_posted_requests(c);
}

void PoolPeers::act_on(Call& call, Channel& channel, wire::EngineMessage&& message) {
    auto* head = std::get_if<wire::Head>(&message);
    const auto* accepted = std::get_if<wire::Accepted>(&message);
    if (head != nullptr || accepted != nullptr) {
        const bool ended = head != nullptr && head->last;
        const std::uint64_t epoch = head != nullptr ? head->epoch : accepted->epoch;
        if (epoch != 0 && epoch < call.epoch && !call.answering) {
            on_stale(call, channel, ended);
            return;
        }
        call.epoch = std::max(call.epoch, epoch);
        call.taken = true;
        if (call.kept) {
            release(call, !ended);
            finish(call, NGX_ERROR);
            return;
        }
    }
    if (head != nullptr) {
        respond_head(call, std::move(*head));
    } else if (auto* data = std::get_if<wire::Data>(&message)) {
        respond_data(call, std::move(*data));
    } else if (const auto* end = std::get_if<wire::End>(&message)) {
        respond_end(call, *end);
    } else if (accepted != nullptr) {
        call.accepted = true;
        call.tried = 0;  // who did not want to begin the run may still go on with it
        call.was_refused = call.was_overload = false;
        ngx_add_timer(&call.timeout.event, call.conf->read_timeout);
    } else if (call.answering) {
        count(channel.figures().frames_dropped);  // too late to send it elsewhere
    } else if (const auto* moved = std::get_if<wire::Moved>(&message)) {
        on_moved(call, channel, *moved);
    } else if (const auto* refused = std::get_if<wire::Refused>(&message)) {
        on_refused(call, channel, *refused);
    }
}

void PoolPeers::on_stale(Call& call, Channel& channel, bool ended) {
    count(channel.figures().frames_dropped);
    release(call, !ended, false);  // whatever else it says of this is for an unknown id
    if (!call.accepted && call.hop >= hops_max()) {
        fail(call, {NGX_HTTP_SERVICE_UNAVAILABLE, kUnavailable,
                    "no engine has the newest state of this thread", 1});
        return;
    }
    send_on(call, channel);
}

void PoolPeers::on_moved(Call& call, Channel& channel, const wire::Moved& moved) {
    count(channel.figures().moved);
    release(call, false);
    call.hop++;
    Channel* owner = find_endpoint(moved.endpoint);
    // The number of hops bounds what two engines that name each other can cost.
    const bool hops_left = call.hop <= hops_max();
    const bool usable = owner != nullptr && owner->is_usable();
    if (!hops_left && call.accepted) {
        call.ask_later |= bit_of(channel);
        submit(call);
        return;
    }
    // It names itself: an engine that died there owned the thread, and this one has its place.
    const bool names_itself = owner == &channel && call.hop == 1;
    if ((!usable || names_itself) && hops_left) {
        // The hop makes the same engine wait for the owner's lease to pass.
        submit_to(call, &channel);
        return;
    }
    // Who named the owner may be asked again: if the owner turns out to be dead, the hop makes it
    // wait for the lease.
    if (owner == &channel || !hops_left) {
        call.tried |= bit_of(channel);
        call.was_refused = true;
        submit(call);
        return;
    }
    if (call.thread_id.len > 0) {
        moved_.put(call.key_hash, owner->index());
    }
    submit_to(call, owner);
}

void PoolPeers::on_refused(Call& call, Channel& channel, const wire::Refused& refused) {
    count(channel.figures().refused);
    if (call.accepted) {
        send_on(call, channel);
        return;
    }
    release(call, false);
    if (refused.code == kUnavailable && call.retry_safe) {
        // Its lease or its way to the store may be back in a moment: it is asked again, and that is
        // no further hop, after some of which an engine gives an answer.
        call.hop = std::max<std::uint32_t>(call.hop, 1);
        call.ask_later |= bit_of(channel);
        if (call.waiting_since == 0) {
            call.waiting_since = ngx_current_msec;
        }
    } else {
        call.hop++;
        call.tried |= bit_of(channel);
        call.was_overload |= refused.code == kOverloaded;
    }
    call.was_refused = true;
    submit(call);
}

void PoolPeers::send_on(Call& call, Channel& channel) {
    release(call, false);
    call.hop++;
    call.ask_later |= bit_of(channel);
    submit(call);
}

bool PoolPeers::try_go_on(Call& call) {
    if (!call.accepted || !may_go_on(call)) {
        return false;
    }
    send_on(call, *call.channel);
    return true;
}

void PoolPeers::lose(Call& call) {
    Channel& channel = *call.channel;
    count(channel.figures().failures);
    const bool may_repeat = channel.is_lost_unsent(call.queued_at) || may_go_on(call);
    release(call, true, false);
    if (!may_repeat) {
        fail(call, {NGX_HTTP_SERVICE_UNAVAILABLE, kUnavailable,
                    "the engine was lost while it worked on this request", 1});
        return;
    }
    call.hop++;
    if (!call.accepted && call.hop > hops_max()) {
        fail_without_engine(call);
        return;
    }
    submit(call);
}

void PoolPeers::on_lost(Channel& channel) {
    const auto ids = worker_.inflight().ids_where(
        [&](const Call& call) { return call.channel == &channel && !call.waiting; });
    for_each(ids, [this](Call& call) { lose(call); });
}

void PoolPeers::on_forgotten(Channel& channel) {
    const auto ids = worker_.inflight().ids_where([&](const Call& call) {
        return call.channel == &channel && !call.waiting &&
               call.hello_serial < channel.hello_serial();
    });
    for_each(ids, [this](Call& call) { lose(call); });
}

void PoolPeers::add_stream(Call& call) noexcept {
    if (call.stream.prev == nullptr) {
        ngx_queue_insert_tail(&streams_, &call.stream);
    }
}

void PoolPeers::end_streams(bool at_once) {
    // Each may be gone after its turn, and leaves whichever queue it is in.
    ngx_queue_t turn;
    ngx_queue_init(&turn);
    if (!ngx_queue_empty(&streams_)) {
        ngx_queue_add(&turn, &streams_);
        ngx_queue_init(&streams_);
    }
    while (!ngx_queue_empty(&turn)) {
        ngx_queue_t* first = ngx_queue_head(&turn);
        ngx_queue_remove(first);
        ngx_queue_insert_tail(&streams_, first);
        Call& call = *ngx_queue_data(first, Call, stream);
        ngx_connection_t* c = call.request->connection;
        ngx_http_set_log_request(c->log, call.request);
        guarded(c->log, "leaving", [&] { leave_stream(call, at_once); });
        ngx_http_run_posted_requests(c);
    }
    if (at_once) {
        const auto kept = worker_.inflight().ids_where([](const Call& call) { return call.kept; });
        for_each(kept, [this](Call& call) {
            release(call, true);
            finish(call, NGX_ERROR);
        });
    }
}

void PoolPeers::on_engine_up(const Channel& channel) {
    // It may be another than the one there that had the call.
    retry_waiting([bit = bit_of(channel)](Call& call) {
        call.tried &= ~bit;
        call.ask_later &= ~bit;
    });
}

template <class Free>
void PoolPeers::retry_waiting(Free free) {
    const auto ids = std::exchange(waiting_, {});
    for_each(ids, [this, free](Call& call) {
        if (call.waiting) {
            free(call);
            submit(call);
        }
    });
}

}  // namespace heddle::ngx
