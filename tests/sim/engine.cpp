#include "tests/sim/engine.hpp"

#include <algorithm>

namespace heddle::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kShards = 2;
constexpr std::size_t kMailboxMax = 4096;
constexpr std::size_t kFramesMax = 64;     // few, so that streams meet a full outbox
constexpr std::size_t kLogBytesMax = 300;  // two or three events
constexpr Duration kTickEvery = milliseconds{250};
constexpr Duration kPeerSilenceMax = seconds{10};

// Each engine forgets other things, so that its readers live on what is in the store.
scheduler::SchedulerLimits any_limits(World& world, std::size_t slot) {
    auto& random = world.random;
    scheduler::SchedulerLimits limits;
    limits.sessions_max = 1 + random.below(3);
    if (slot % 2 == 0) {
        limits.run_log_bytes_max = kLogBytesMax;
    }
    if (random.chance(0.3)) {
        limits.active_logs_bytes_max = 2 * kLogBytesMax;
    }
    if (random.chance(0.3)) {
        limits.ended_runs_bytes_max = 0;
    }
    if (random.chance(0.3)) {
        limits.ended_run_kept = seconds{1};
    }
    if (random.chance(0.3)) {
        limits.live_bytes_max = 0;
    }
    if (random.chance(0.3)) {
        limits.threads_bytes_max = 0;
    }
    return limits;
}

}  // namespace

Engine::Engine(World& world,
               Database& database,
               const StoreWatch& watch,
               const scheduler::Catalog& catalog,
               std::size_t slot)
    : world_{world}, watch_{watch}, process_{world, fmt::format("e{}", slot)}, slot_{slot} {
    process_.clock_rate = 0.97 + 0.06 * static_cast<double>(world.random.below(1000)) / 1000;
    process_.clock_ahead = world.random.between(-seconds{20}, seconds{20});
    process_.enter([&] {
        store_ = database.connect(process_);
        shards_ = std::make_unique<base::ShardPool>(kShards, kMailboxMax);
        scheduler_ = std::make_unique<scheduler::Scheduler>(*shards_, *store_, catalog, metrics_,
                                                            any_limits(world, slot));
        api_ = std::make_unique<api::Api>(*scheduler_, api::ApiOptions{"sim", process_.name()});
        outbox_ = std::make_unique<transport::Outbox>(kFramesMax);
        for (std::size_t i = 0; i < kShards; ++i) {
            sides_.push_back(
                std::make_unique<transport::ShardSide>(shards_->at(i), *outbox_, bodies_bytes_));
        }
        ownership_ = std::make_unique<scheduler::Ownership>(*scheduler_, endpoint_of(slot),
                                                            scheduler::OwnershipLimits{});
    });
    process_.after_step = [this] { drain_outbox(); };
    run_start();
    tick();
}

Engine::~Engine() {
    life_.reset();
    process_.after_step = {};
    // As engine/app does: the store's completions need the loops, the coroutines in the loops need
    // the rest.
    process_.enter([&] {
        open_.clear();
        store_.reset();
        ownership_->stop();
        scheduler_->stop();
        shards_.reset();
        ownership_.reset();
        api_.reset();
        scheduler_.reset();
        sides_.clear();
    });
}

void Engine::run_start() {
    process_.enter([&] {
        ownership_->start([this](const base::Status& status) {
            if (status) {
                ready_ = true;
                world_.note("up, as {}", ownership_->engine_id().to_string());
                return;
            }
            world_.note("cannot register: {}", status.error().message);
            world_.after(milliseconds{500}, [this, life = std::weak_ptr{life_}] {
                if (!life.expired()) {
                    run_start();
                }
            });
        });
    });
}

void Engine::tick() {
    if (!process_.is_paused()) {
        process_.enter([&] {
            for (auto& [connection, frame] : std::exchange(inbox_, {})) {
                take(connection, frame);
            }
            for (auto& [connection, peer] : peers_) {
                if (peer.hearing.silence(process_.clock()) > kPeerSilenceMax && peer.greeted) {
                    let_go(peer);
                    peer.greeted = false;
                }
            }
        });
        process_.touch();
    }
    world_.after(kTickEvery, [this, life = std::weak_ptr{life_}] {
        if (!life.expired()) {
            tick();
        }
    });
}

void Engine::connect(std::uint64_t connection, SendFrame send) {
    Peer peer{std::move(send), transport::Hearing{process_.clock()}, false, {}};
    peers_.insert_or_assign(connection, std::move(peer));
}

void Engine::disconnect(std::uint64_t connection) {
    const auto at = peers_.find(connection);
    if (at == peers_.end()) {
        return;
    }
    process_.enter([&] { let_go(at->second); });
    process_.touch();
    peers_.erase(at);
}

void Engine::receive(std::uint64_t connection, std::string frame) {
    if (process_.is_paused() || !inbox_.empty()) {
        inbox_.emplace_back(connection, std::move(frame));
        return;
    }
    process_.enter([&] { take(connection, frame); });
    process_.touch();
}

void Engine::take(std::uint64_t connection, const std::string& frame) {
    const auto at = peers_.find(connection);
    if (at == peers_.end()) {
        return;
    }
    auto& peer = at->second;
    auto decoded = wire::decode_edge(frame);
    auto* message = std::get_if<wire::EdgeMessage>(&decoded);
    if (message == nullptr) {
        world_.fail("an engine cannot read a frame");
        return;
    }
    peer.hearing.on_frame(process_.clock());
    if (std::holds_alternative<wire::Hello>(*message)) {
        peer.greeted = true;
        answer(peer, wire::Welcome{wire::kVersion, ownership_->engine_id().to_string(),
                                   endpoint_of(slot_), draining_});
    } else if (!peer.greeted) {
        answer(peer, wire::HelloWanted{});
    } else if (const auto* ping = std::get_if<wire::Ping>(message)) {
        wire::Pong pong;
        pong.sequence = ping->sequence;
        pong.engine_id = ownership_->engine_id().to_string();
        pong.draining = draining_;
        answer(peer, pong);
    } else if (auto* request = std::get_if<wire::Request>(message)) {
        on_request(connection, std::move(*request));
    } else if (const auto* credit = std::get_if<wire::Credit>(message)) {
        const auto open = peer.open.find(credit->id);
        if (open != peer.open.end()) {
            open_.at(open->second).session->post_credit(credit->bytes);
        }
    } else if (const auto* cancel = std::get_if<wire::Cancel>(message)) {
        on_cancel(peer, *cancel);
    }
}

void Engine::on_request(std::uint64_t connection, wire::Request from) {
    auto& peer = peers_.at(connection);
    const auto id = from.id;
    const auto credit = from.credit;
    auto request = transport::to_api(std::move(from), base::system_clock().now(),
                                     peer.hearing.is_late(process_.clock()));
    // With a key, the id that the edge has minted is not the run's.
    const bool keyed = request.find_header("idempotency-key") != nullptr;
    const auto run_id = keyed ? std::string{} : request.run_id;
    const auto plan = api_->plan(request);
    if (plan.answer) {
        world_.fail("{} {} was answered without a shard", request.method, request.path);
        return;
    }
    if (!ready_ || (plan.starts_work && draining_)) {
        answer(peer, wire::Refused{id, "draining"});
        return;
    }
    const auto serial = serials_++;
    auto& side = *sides_[base::stable_hash(plan.shard_key.uuid) % sides_.size()];
    auto session =
        std::make_shared<transport::Session>(serial, id, credit, std::move(request), side);
    if (!session->try_start(*api_, sides_)) {
        world_.fail("a mailbox is full");
        return;
    }
    peer.open[id] = serial;
    open_[serial] = {connection, id, std::move(session), run_id};
}

void Engine::on_cancel(Peer& peer, const wire::Cancel& cancel) {
    const auto at = peer.open.find(cancel.id);
    if (at == peer.open.end()) {
        return;
    }
    open_.at(at->second).session->post_gone(!cancel.detach);
    open_.erase(at->second);
    peer.open.erase(at);
}

void Engine::answer(Peer& peer, const wire::EngineMessage& message) {
    peer.send(wire::encode(message));
}

void Engine::let_go(Peer& peer) {
    for (const auto& [id, serial] : std::exchange(peer.open, {})) {
        open_.at(serial).session->post_gone(false);
        open_.erase(serial);
    }
}

void Engine::drain_outbox() {
    std::vector<transport::OutFrame> frames;
    outbox_->take(frames);
    for (auto& frame : frames) {
        const auto at = open_.find(frame.serial);
        if (at == open_.end()) {
            continue;
        }
        auto& open = at->second;
        auto& peer = peers_.at(open.connection);
        if (!frame.bytes.empty()) {
            check_frame(open, frame.bytes);
            peer.send(std::move(frame.bytes));
        }
        if (frame.last) {
            peer.open.erase(open.id);
            open_.erase(at);
        }
    }
    outbox_->sent(frames.size());
    if (outbox_->take_full_seen()) {
        for (auto& side : sides_) {
            side->shard.post([&room = side->room] { room.notify_all(); });
        }
        process_.touch();
    }
}

// What is said must be on disk when it is said.
void Engine::check_frame(const Open& open, const std::string& frame) {
    const auto decoded = wire::decode_engine(frame);
    const auto* message = std::get_if<wire::EngineMessage>(&decoded);
    if (message == nullptr) {
        world_.fail("an edge could not read a frame");
        return;
    }
    const auto run = base::RunId::parse(open.run_id);
    if (std::holds_alternative<wire::Accepted>(*message) && run && !watch_.ever(*run)) {
        world_.fail("run {} was said to be accepted before it was stored", open.run_id);
    }
}

void Engine::start_draining() {
    world_.note("drains");
    draining_ = true;
    process_.enter([&] {
        ownership_->start_draining();
        for (std::size_t i = 0; i < shards_->size(); ++i) {
            shards_->at(i).post([this, i] { scheduler_->at(i).hand_over_all(); });
        }
    });
    process_.touch();
}

bool Engine::is_drained() const {
    return metrics_.runs_running.load() + metrics_.runs_waiting.load() == 0 &&
           metrics_.threads_owned.load() == 0 && open_.empty();
}

void Engine::leave(std::function<void()> gone) {
    process_.enter([&] {
        ownership_->stop();
        store_->unregister_engine([gone = std::move(gone)](const base::Status&) { gone(); });
    });
}

}  // namespace heddle::sim
