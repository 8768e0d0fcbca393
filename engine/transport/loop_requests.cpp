// What the frames of an edge mean: peers, requests and their bodies.
#include <algorithm>
#include <utility>

#include "engine/base/room.hpp"
#include "engine/observe/log.hpp"
#include "engine/transport/from_edge.hpp"
#include "engine/transport/loop.hpp"

namespace heddle::transport {
namespace {

using base::Error;
using base::ErrorCode;

// An answer that was found at once but does not fit one frame: it needs credit, hence a shard.
class LongAnswer final : public api::Handler {
public:
    api::Plan plan(api::Request& request) override {
        (void)request;
        return {};
    }
    base::Task<std::optional<base::ThreadId>> handle(api::Request& request,
                                                     api::ResponseSink& sink) override {
        auto response = api::json_response(200, std::move(request.body));
        response.headers = std::move(request.headers);
        (void)co_await sink.respond(std::move(response));
        co_return std::nullopt;
    }
};
}  // namespace

std::unique_ptr<api::Handler> Loop::make_long_answer() {
    return std::make_unique<LongAnswer>();
}

void Loop::on_frame(PeerId from, std::string_view frame) {
    auto decoded = wire::decode_edge(frame);
    if (const auto* error = std::get_if<wire::DecodeError>(&decoded)) {
        drop(error->reason.data());
        return;
    }
    auto& message = std::get<wire::EdgeMessage>(decoded);
    const auto at = peers_.find(from);
    if (at == peers_.end() || at->second->gone) {
        if (const auto* hello = std::get_if<wire::Hello>(&message)) {
            greet(from, *hello);
        } else {
            (void)socket_.send(from, wire::encode(wire::EngineMessage{wire::HelloWanted{}}));
        }
        return;
    }
    auto& peer = *at->second;
    // Not the round's time: the process may have stood still since it began.
    peer.hearing.on_frame(base::system_clock().now());
    std::visit([&](auto&& each) { on(peer, std::move(each)); }, std::move(message));
}

void Loop::greet(PeerId from, const wire::Hello& hello) {
    if (peers_.size() >= options_.peers_max) {
        drop("too many edges");
        return;
    }
    if (hello.version_min > wire::kVersion || hello.version_max < wire::kVersion) {
        // It is told what this engine speaks, and stays unknown.
        wire::Welcome welcome{wire::kVersion, engine_id_(), endpoint_, true};
        (void)socket_.send(from, wire::encode(wire::EngineMessage{std::move(welcome)}));
        return;
    }
    auto peer = std::make_unique<Peer>(from, now_);
    auto& known = *peer;
    if (const auto old = peers_.find(from); old != peers_.end()) {
        forget(*old->second);
    }
    peers_.emplace(from, std::move(peer));
    on(known, hello);
}

void Loop::on(Peer& peer, const wire::Hello& hello) {
    if (peer.edge_id != hello.edge_id) {
        let_go(peer);  // another life of the edge: nobody waits for what the old one asked
        peer.edge_id = hello.edge_id;
    }
    reply(peer, wire::Welcome{wire::kVersion, engine_id_(), endpoint_, draining.load()});
}

void Loop::on(Peer& peer, const wire::Ping& ping) {
    const auto figure = [](const std::atomic<std::int64_t>& gauge) {
        return static_cast<std::uint64_t>(std::max<std::int64_t>(0, gauge.load()));
    };
    wire::Pong pong;
    pong.sequence = ping.sequence;
    pong.engine_id = engine_id_();
    pong.draining = draining.load();
    pong.threads_owned = figure(metrics_.threads_owned);
    pong.runs_running = figure(metrics_.runs_running);
    pong.runs_waiting = figure(metrics_.runs_waiting);
    reply(peer, pong);
}

void Loop::on(Peer& peer, wire::Request request) {
    if (peer.open.contains(request.id)) {
        drop("request id in use");
        return;
    }
    if (request.body_complete) {
        on_complete(peer, std::move(request), peer.hearing.is_late(now_));
        return;
    }
    if (open_.size() >= options_.open_requests_max || !has_room_for(request.body.size())) {
        refuse(peer, request.id, ErrorCode::overloaded);
        return;
    }
    auto& arriving = open(peer, request.id);
    bodies_bytes += request.body.size();
    arriving.arriving = std::make_unique<wire::Request>(std::move(request));
    arriving.late = peer.hearing.is_late(now_);
}

void Loop::on(Peer& peer, wire::Body body) {
    const auto at = peer.open.find(body.id);
    if (at == peer.open.end()) {
        drop("body of an unknown request");
        return;
    }
    const auto serial = at->second;
    auto& open = open_.at(serial);
    open.touched_at = now_;
    if (open.discarding) {
        if (body.last) {
            close(serial);
        }
        return;
    }
    if (open.arriving == nullptr) {
        drop("body after its end");
        return;
    }
    auto& text = open.arriving->body;
    if (text.size() + body.bytes.size() > options_.request_body_bytes_max) {
        const auto message = "the request body has more than " +
                             std::to_string(options_.request_body_bytes_max) + " bytes";
        const bool more = !body.last;
        answer(peer, body.id, api::error_response({ErrorCode::payload_too_large, message}));
        bodies_bytes -= text.size();
        open.arriving.reset();
        open.discarding = true;
        if (!more) {
            close(serial);
        }
        return;
    }
    if (!has_room_for(text.size() + body.bytes.size(), text.size())) {
        refuse(peer, body.id, ErrorCode::overloaded);
        close(serial);
        return;
    }
    bodies_bytes += body.bytes.size();
    text += body.bytes;
    if (body.last) {
        bodies_bytes -= text.size();
        const auto request = std::move(open.arriving);
        const bool late = open.late || peer.hearing.is_late(now_);
        close(serial);
        on_complete(peer, std::move(*request), late);
    }
}

void Loop::on(Peer& peer, const wire::Credit& credit) {
    const auto at = peer.open.find(credit.id);
    if (at == peer.open.end()) {
        return;
    }  // its last frame crossed this one
    auto& open = open_.at(at->second);
    if (open.session != nullptr) {
        open.session->post_credit(credit.bytes);
    }
    if (open.arriving != nullptr) {
        auto& total = open.arriving->credit;
        total += std::min(credit.bytes, wire::kCreditMax - std::min(total, wire::kCreditMax));
    }
}

void Loop::on(Peer& peer, const wire::Cancel& cancel) {
    const auto at = peer.open.find(cancel.id);
    if (at == peer.open.end()) {
        return;
    }
    const auto serial = at->second;
    if (auto& session = open_.at(serial).session; session != nullptr) {
        session->post_gone(!cancel.detach);
    }
    close(serial);
}

void Loop::on_complete(Peer& peer, wire::Request wire_request, bool late) {
    const auto id = wire_request.id;
    const auto credit = wire_request.credit;
    if (wire_request.body.size() > options_.request_body_bytes_max) {
        answer(peer, id,
               api::error_response({ErrorCode::payload_too_large, "the request body is too long"}));
        return;
    }
    auto request = to_api(std::move(wire_request), now_, late);
    auto plan = handler_.plan(request);
    if (plan.answer) {
        if (plan.answer->body.size() <= wire::kChunkBytesMax) {
            answer(peer, id, std::move(*plan.answer));
            return;
        }
        request.body = std::move(plan.answer->body);
        request.headers = std::move(plan.answer->headers);
        dispatch(peer, id, credit, std::move(request), *long_answer_, plan.shard_key);
        return;
    }
    if (plan.starts_work && draining.load(std::memory_order_relaxed)) {
        refuse(peer, id, ErrorCode::draining);
        return;
    }
    dispatch(peer, id, credit, std::move(request), handler_, plan.shard_key);
}

void Loop::dispatch(Peer& peer,
                    wire::RequestId id,
                    std::uint64_t credit,
                    api::Request request,
                    api::Handler& handler,
                    const base::ThreadId& shard_key) {
    const bool is_answer = &handler == long_answer_.get();
    if (open_.size() >= options_.open_requests_max ||
        (!is_answer && !has_room_for(request.body.size()))) {
        refuse(peer, id, ErrorCode::overloaded);
        return;
    }
    auto& opened = open(peer, id);
    const auto serial = peer.open.at(id);
    auto& side = *sides_[base::stable_hash(shard_key.uuid) % sides_.size()];
    opened.session = std::make_shared<Session>(serial, id, credit, std::move(request), side);
    if (!opened.session->try_start(handler, sides_)) {
        close(serial);
        refuse(peer, id, ErrorCode::overloaded);
    }
}

void Loop::answer(Peer& peer, wire::RequestId id, api::Response response) {
    wire::Head head;
    head.id = id;
    head.status = response.status;
    head.headers = std::move(response.headers);
    head.body = std::move(response.body);
    head.last = true;
    reply(peer, head);
}

void Loop::refuse(Peer& peer, wire::RequestId id, ErrorCode code) {
    reply(peer, wire::Refused{id, std::string{base::error_traits(code).wire_name}});
}

bool Loop::has_room_for(std::size_t body_bytes, std::size_t of_it_held) const noexcept {
    const auto of_others = bodies_bytes.load(std::memory_order_relaxed) - of_it_held;
    return base::has_room(body_bytes, of_others, options_.bodies_bytes_max);
}

Loop::Open& Loop::open(Peer& peer, wire::RequestId id) {
    const auto serial = next_serial_++;
    peer.open[id] = serial;
    auto& open = open_[serial];
    open.peer = &peer;
    open.id = id;
    open.touched_at = now_;
    open_requests.store(open_.size(), std::memory_order_relaxed);
    metrics_.streams_open.fetch_add(1, std::memory_order_relaxed);
    return open;
}

void Loop::close(std::uint64_t serial) {
    const auto at = open_.find(serial);
    if (at->second.arriving != nullptr) {
        bodies_bytes -= at->second.arriving->body.size();
    }
    at->second.peer->open.erase(at->second.id);
    open_.erase(at);
    open_requests.store(open_.size(), std::memory_order_relaxed);
    metrics_.streams_open.fetch_sub(1, std::memory_order_relaxed);
}

void Loop::let_go(Peer& peer) {
    std::vector<std::uint64_t> serials;
    for (const auto& [id, serial] : peer.open) {
        serials.push_back(serial);
    }
    for (const auto serial : serials) {
        if (auto& session = open_.at(serial).session; session != nullptr) {
            session->post_gone(false);
        }
        close(serial);
    }
}

void Loop::forget(Peer& peer) {
    observe::log(observe::LogLevel::info, "transport", "edge {} is gone with {} requests",
                 peer.edge_id, peer.open.size());
    let_go(peer);
    if (!peer.backlog.empty()) {
        --backlogs_;
    }
    std::erase_if(replies_, [&](const auto& waiting) { return waiting.first == &peer; });
    peers_.erase(peers_.find(peer.id));
}

void Loop::reply(Peer& peer, const wire::EngineMessage& message) {
    replies_.emplace_back(&peer, wire::encode(message));
}

}  // namespace heddle::transport
