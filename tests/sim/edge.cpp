#include "tests/sim/edge.hpp"

#include <algorithm>

namespace heddle::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kEdgeTickEvery = milliseconds{500};
constexpr Duration kSilenceMax = milliseconds{2500};
constexpr Duration kReadTimeout = seconds{40};
constexpr Duration kConnectTimeout = seconds{5};
constexpr std::uint64_t kCredit = 1500;

bool is_white(const std::string& text) {
    return text.find_first_not_of(" \n") == std::string::npos;
}

const std::string* find_header(const wire::Headers& headers, std::string_view name) {
    for (const auto& [each, value] : headers) {
        if (each == name) {
            return &value;
        }
    }
    return nullptr;
}

StreamEvent parse_event(std::string_view text) {
    StreamEvent event;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        const auto line = text.substr(0, end);
        for (const auto& [field, to] : {std::pair{std::string_view{"id: "}, &event.id},
                                        std::pair{std::string_view{"event: "}, &event.name},
                                        std::pair{std::string_view{"data: "}, &event.data}}) {
            if (line.starts_with(field)) {
                *to = line.substr(field.size());
            }
        }
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return event;
}

}  // namespace

Edge::Edge(World& world, Network& network, std::size_t number)
    : world_{world}, network_{network}, number_{number}, slots_(network.engines.size()) {
    tick();
}

Edge::~Edge() {
    life_.reset();
}

void Edge::tick() {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        auto& slot = slots_[i];
        if (slot.up && world_.now() - slot.heard_at > kSilenceMax) {
            down(i);
        }
        if (slot.connection == 0) {
            connect(i);
        } else {
            send(i, slot.up ? wire::EdgeMessage{wire::Ping{}}
                            : wire::EdgeMessage{wire::Hello{1, 1, fmt::format("n{}", number_)}});
        }
    }
    std::vector<std::uint64_t> ids;
    for (const auto& [id, call] : calls_) {
        ids.push_back(id);
    }
    for (const auto id : ids) {
        check_call(id);
    }
    world_.after(kEdgeTickEvery, [this, life = std::weak_ptr{life_}] {
        if (!life.expired()) {
            tick();
        }
    });
}

void Edge::check_call(std::uint64_t id) {
    const auto at = calls_.find(id);
    if (at == calls_.end()) {
        return;
    }
    auto& call = at->second;
    const auto silence = world_.now() - call.heard_at;
    if (call.slot) {
        if (silence > kReadTimeout) {
            send(*call.slot, wire::Cancel{call.wire_id, false});
            call.slot.reset();
            answer(id, 504);
        }
        return;
    }
    const auto waited = call.refused_at ? world_.now() - *call.refused_at : silence;
    if (call.accepted ? silence > kReadTimeout : waited > kConnectTimeout) {
        answer(id, 503);
        return;
    }
    call.tried.clear();
    next(id);
}

void Edge::connect(std::size_t slot) {
    const auto& engine = network_.engines[slot];
    if (engine == nullptr) {
        return;
    }
    static_assert(sizeof(std::uint64_t) == 8);
    auto& here = slots_[slot];
    here.connection = (static_cast<std::uint64_t>(number_ + 1) << 32U) + ids_++;
    here.last_out = here.last_in = world_.now();
    const auto connection = here.connection;
    engine->connect(connection, [this, slot, connection,
                                 life = std::weak_ptr{life_}](std::string frame) {
        if (life.expired() || slots_[slot].connection != connection) {
            return;
        }
        auto& from = slots_[slot];
        const auto blocked = network_.blocked_until[{number_, slot}];
        from.last_in = std::max({from.last_in, blocked,
                                 world_.now() + world_.random.between({}, network_.latency * 2)});
        world_.after(from.last_in - world_.now(),
                     [this, slot, connection, life, frame = std::move(frame)] {
                         if (!life.expired()) {
                             receive(slot, connection, frame);
                         }
                     });
    });
    send(slot, wire::Hello{1, 1, fmt::format("n{}", number_)});
}

void Edge::send(std::size_t slot, const wire::EdgeMessage& message) {
    auto& to = slots_[slot];
    if (to.connection == 0) {
        return;
    }
    const auto blocked = network_.blocked_until[{number_, slot}];
    to.last_out = std::max(
        {to.last_out, blocked, world_.now() + world_.random.between({}, network_.latency * 2)});
    world_.after(to.last_out - world_.now(),
                 [this, slot, connection = to.connection, life = std::weak_ptr{life_},
                  frame = wire::encode(message)] {
                     const auto& engine = network_.engines[slot];
                     if (life.expired() || engine == nullptr) {
                         return;
                     }
                     if (slots_[slot].connection == connection) {
                         engine->receive(connection, frame);
                     }
                 });
}

void Edge::reset(std::size_t slot) {
    auto& here = slots_[slot];
    if (here.connection == 0) {
        return;
    }
    world_.note("connection n{}-e{} is reset", number_, slot);
    // The engine finds out by silence; this side when it has connected again, or by silence.
    here.connection = 0;
}

void Edge::receive(std::size_t slot, std::uint64_t connection, const std::string& frame) {
    auto& from = slots_[slot];
    if (from.connection != connection) {
        return;
    }
    from.heard_at = world_.now();
    const auto decoded = wire::decode_engine(frame);
    if (const auto* message = std::get_if<wire::EngineMessage>(&decoded)) {
        take(slot, *message);
    } else {
        world_.fail("an edge cannot read a frame");
    }
}

void Edge::take_id(std::size_t slot, const std::string& engine_id) {
    if (slots_[slot].engine_id != engine_id) {
        lose(slot);
        slots_[slot].engine_id = engine_id;
    }
}

void Edge::take(std::size_t slot, const wire::EngineMessage& message) {
    auto& from = slots_[slot];
    if (const auto* welcome = std::get_if<wire::Welcome>(&message)) {
        lose(slot, from.connection);
        take_id(slot, welcome->engine_id);
        from.up = true;
        from.draining = welcome->draining;
        return;
    }
    if (const auto* pong = std::get_if<wire::Pong>(&message)) {
        take_id(slot, pong->engine_id);
        from.draining = pong->draining;
        return;
    }
    if (std::holds_alternative<wire::HelloWanted>(message)) {
        lose(slot);
        from.up = false;
        send(slot, wire::Hello{1, 1, fmt::format("n{}", number_)});
        return;
    }
    const auto wire_id = std::visit(
        [](const auto& m) -> wire::RequestId {
            if constexpr (requires { m.id; }) {
                return m.id;
            } else {
                return 0;
            }
        },
        message);
    const auto at = std::find_if(calls_.begin(), calls_.end(), [&](const auto& each) {
        return each.second.slot == slot && each.second.wire_id == wire_id;
    });
    if (at == calls_.end()) {
        return;
    }
    const auto id = at->first;
    auto& call = at->second;
    call.heard_at = world_.now();
    if (const auto* head = std::get_if<wire::Head>(&message)) {
        on_head(id, *head);
    } else if (const auto* data = std::get_if<wire::Data>(&message)) {
        if (call.answering) {
            on_bytes(id, data->bytes);
            if (data->last) {
                finish(id, true);
            }
        }
    } else if (const auto* end = std::get_if<wire::End>(&message)) {
        on_end(id, end->error);
    } else if (const auto* accepted = std::get_if<wire::Accepted>(&message)) {
        call.accepted = true;
        call.tried.clear();
        call.epoch = std::max(call.epoch, accepted->epoch);
        call.listener->accepted();
    } else if (const auto* moved = std::get_if<wire::Moved>(&message)) {
        on_moved(id, *moved);
    } else if (const auto* refused = std::get_if<wire::Refused>(&message)) {
        if (refused->code == "unavailable" && !call.accepted && !call.request.run_id.empty()) {
            call.hop = 0;  // asking it again is no further hop
            call.refused_at = call.refused_at.value_or(world_.now());
        }
        lost(id);
    }
}

void Edge::on_head(std::uint64_t id, const wire::Head& head) {
    auto& call = calls_.at(id);
    if (call.answering) {
        world_.fail("a second head");
        return;
    }
    if (head.epoch != 0 && head.epoch < call.epoch) {
        return;
    }
    call.epoch = std::max(call.epoch, head.epoch);
    call.answering = true;
    if (!call.head_sent) {
        call.head_sent = true;
        call.status = head.status;
        const auto* type = find_header(head.headers, "content-type");
        call.is_stream = type != nullptr && *type == "text/event-stream";
        call.listener->head(head.status, head.headers);
    } else if (call.status != head.status) {
        world_.note("the response cannot go on: {} after {}: {}", head.status, call.status,
                    head.body);
        call.slot.reset();
        finish(id, false);
        return;
    }
    on_bytes(id, head.body);
    if (head.last) {
        finish(id, true);
    }
}

void Edge::on_bytes(std::uint64_t id, const std::string& bytes) {
    const auto at = calls_.find(id);
    if (at == calls_.end() || bytes.empty()) {
        return;
    }
    auto& call = at->second;
    // Granted when the client has read them.
    world_.after(
        world_.random.between({}, milliseconds{8}),
        [this, id, wire_id = call.wire_id, size = bytes.size(), life = std::weak_ptr{life_}] {
            if (life.expired()) {
                return;
            }
            const auto still = calls_.find(id);
            if (still != calls_.end() && still->second.slot && still->second.wire_id == wire_id) {
                send(*still->second.slot, wire::Credit{wire_id, size});
            }
        });
    if (!call.is_stream) {
        call.body += bytes;
        return;
    }
    call.partial += bytes;
    const auto listener = call.listener;
    for (auto end = call.partial.find("\n\n"); end != std::string::npos;) {
        const auto event = parse_event(std::string_view{call.partial}.substr(0, end + 1));
        call.partial.erase(0, end + 2);
        if (!event.name.empty()) {
            call.last_event_id = event.id.empty() ? call.last_event_id : event.id;
            listener->event(event);
            if (!calls_.contains(id)) {
                return;
            }
        }
        end = call.partial.find("\n\n");
    }
}

void Edge::on_end(std::uint64_t id, const std::string& error) {
    auto& call = calls_.at(id);
    if (!call.answering) {
        return;
    }
    if (error.empty()) {
        finish(id, true);
    } else if (error == "unavailable") {
        lost(id);
    } else {
        call.slot.reset();
        finish(id, false);
    }
}

void Edge::on_moved(std::uint64_t id, const wire::Moved& moved) {
    auto& call = calls_.at(id);
    auto to = *call.slot;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (Engine::endpoint_of(i) == moved.endpoint && slots_[i].up) {
            to = i;
        }
    }
    owners_[call.request.thread_id] = to;
    if (++call.hop > 2 * slots_.size() + 2 && !call.accepted) {
        answer(id, 503);
        return;
    }
    send_call(id, to);
}

std::vector<std::size_t> Edge::order(const Call& call) const {
    std::vector<std::pair<std::uint64_t, std::size_t>> ranked;
    const auto owner = owners_.find(call.request.thread_id);
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (!slots_[i].up || slots_[i].draining || call.tried.contains(i)) {
            continue;
        }
        auto rank = std::hash<std::string>{}(call.request.thread_id + Engine::endpoint_of(i)) / 2;
        if (call.hop == 0 && owner != owners_.end() && owner->second == i) {
            rank = ~std::uint64_t{0};
        }
        ranked.emplace_back(rank, i);
    }
    std::sort(ranked.rbegin(), ranked.rend());
    std::vector<std::size_t> slots;
    for (const auto& [rank, slot] : ranked) {
        slots.push_back(slot);
    }
    return slots;
}

std::uint64_t Edge::ask(HttpRequest request, ListenerPtr listener) {
    const auto id = ids_++;
    auto& call = calls_[id];
    call.request = std::move(request);
    call.listener = std::move(listener);
    call.heard_at = world_.now();
    next(id);
    return id;
}

void Edge::next(std::uint64_t id) {
    auto& call = calls_.at(id);
    const auto slots = order(call);
    if (slots.empty()) {
        call.slot.reset();  // tick() tries again
        return;
    }
    send_call(id, slots.front());
}

void Edge::send_call(std::uint64_t id, std::size_t slot) {
    auto& call = calls_.at(id);
    call.slot = slot;
    call.tried.insert(slot);
    call.wire_id = ids_++;
    call.connection = slots_[slot].connection;
    call.answering = false;
    wire::Request request;
    request.id = call.wire_id;
    request.method = call.request.method;
    request.path = call.request.path;
    request.query = call.request.query;
    request.headers = call.request.headers;
    if (!call.last_event_id.empty()) {
        std::erase_if(request.headers,
                      [](const auto& each) { return each.first == "last-event-id"; });
        request.headers.emplace_back("last-event-id", call.last_event_id);
    }
    request.thread_id = call.request.thread_id;
    request.run_id = call.request.run_id;
    request.credit = kCredit;
    request.hop = call.hop;
    request.accepted = call.accepted;
    request.body = call.request.body;
    world_.note("n{} sends {} {} to e{}, hop {}{}", number_, request.method, request.path, slot,
                request.hop, call.last_event_id.empty() ? "" : ", from " + call.last_event_id);
    send(slot, request);
}

void Edge::lost(std::uint64_t id) {
    auto& call = calls_.at(id);
    if (call.slot) {
        send(*call.slot, wire::Cancel{call.wire_id, true});
        call.slot.reset();
    }
    const bool may_go_on =
        !call.head_sent || (call.is_stream ? call.partial.empty() : is_white(call.body));
    if (call.head_sent && (!call.accepted || !may_go_on)) {
        finish(id, false);
        return;
    }
    ++call.hop;
    if (!call.accepted && call.hop > 2 * slots_.size() + 2) {
        answer(id, 503);
        return;
    }
    if (!call.is_stream) {
        call.body.clear();
    }
    owners_.erase(call.request.thread_id);
    next(id);
}

void Edge::lose(std::size_t slot, std::uint64_t kept) {
    std::vector<std::uint64_t> ids;
    for (const auto& [id, call] : calls_) {
        if (call.slot == slot && call.connection != kept) {
            ids.push_back(id);
        }
    }
    for (const auto id : ids) {
        if (calls_.contains(id)) {
            lost(id);
        }
    }
}

void Edge::down(std::size_t slot) {
    world_.note("n{} takes e{} for down", number_, slot);
    slots_[slot].up = false;
    if (network_.engines[slot] == nullptr) {
        slots_[slot].connection = 0;
    }
    lose(slot);
}

void Edge::finish(std::uint64_t id, bool complete) {
    const auto at = calls_.find(id);
    if (at == calls_.end()) {
        return;
    }
    auto call = std::move(at->second);
    calls_.erase(at);
    call.listener->gone(complete && call.partial.empty(), call.body);
}

void Edge::answer(std::uint64_t id, int status) {
    auto& call = calls_.at(id);
    if (call.head_sent) {
        finish(id, false);
        return;
    }
    call.head_sent = true;
    call.listener->head(status, {});
    finish(id, true);
}

void Edge::leave(std::uint64_t id) {
    const auto at = calls_.find(id);
    if (at == calls_.end()) {
        return;
    }
    if (at->second.slot) {
        send(*at->second.slot, wire::Cancel{at->second.wire_id, false});
    }
    calls_.erase(at);
}

void Edge::reload() {
    world_.note("n{} reloads with {} calls", number_, calls_.size());
    while (!calls_.empty()) {
        const auto id = calls_.begin()->first;
        const auto& call = calls_.begin()->second;
        if (call.slot) {
            send(*call.slot, wire::Cancel{call.wire_id, true});
        }
        finish(id, false);
    }
}

}  // namespace heddle::sim
