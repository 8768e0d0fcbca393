#include "engine/transport/session.hpp"

#include <algorithm>
#include <utility>

#include "engine/base/assert.hpp"

namespace heddle::transport {
namespace {

using base::Error;
using base::ErrorCode;

// Waits are woken by what they wait for; this only bounds what a lost wake-up could cost.
constexpr base::Duration kWakeEvery = std::chrono::seconds{1};

std::string name_of(ErrorCode code) {
    return std::string{base::error_traits(code).wire_name};
}

}  // namespace

Session::Session(std::uint64_t serial,
                 wire::RequestId id,
                 std::uint64_t credit,
                 api::Request request,
                 ShardSide& side)
    : serial_{serial},
      id_{id},
      home_{side},
      side_{&side},
      request_{std::move(request)},
      body_bytes_{request_.body.size()},
      credit_{std::min(credit, wire::kCreditMax)} {
    if (body_bytes_ > 0) {
        side.bodies_bytes.fetch_add(body_bytes_, std::memory_order_relaxed);
    }
}

Session::~Session() {
    let_go_of_body();
}

void Session::let_go_of_body() {
    std::string{}.swap(request_.body);  // assigning an empty one would keep the memory
    if (const auto bytes = std::exchange(body_bytes_, 0); bytes > 0) {
        home_.bodies_bytes.fetch_sub(bytes, std::memory_order_relaxed);
    }
}

bool Session::try_start(api::Handler& handler, std::vector<std::unique_ptr<ShardSide>>& all) {
    return home_.shard.try_post([self = shared_from_this(), &handler, &all] {
        self->home_.shard.spawn(self->serve(handler, all));
    });
}

base::Task<> Session::serve(api::Handler& handler, std::vector<std::unique_ptr<ShardSide>>& all) {
    const auto self = shared_from_this();
    const auto elsewhere = co_await handler.handle(request_, *this);
    if (elsewhere && side_ == &home_) {
        auto& other = *all[base::stable_hash(elsewhere->uuid) % all.size()];
        request_.thread_id = elsewhere->to_string();
        side_ = &other;
        other.shard.post(
            [self, &handler, &all, &other] { other.shard.spawn(self->serve(handler, all)); });
        co_return;
    }
    close();
}

void Session::post(void (*what)(Session&, std::uint64_t), std::uint64_t argument) {
    home_.shard.post([self = shared_from_this(), what, argument] {
        if (self->side_ == &self->home_) {
            what(*self, argument);
            return;
        }
        self->side_->shard.post([self, what, argument] { what(*self, argument); });
    });
}

void Session::post_credit(std::uint64_t bytes) {
    post(
        [](Session& session, std::uint64_t more) {
            session.credit_ += std::min(more, wire::kCreditMax - session.credit_);
            session.credit_changed_.notify_all();
        },
        bytes);
}

void Session::post_gone(bool left) {
    post(
        [](Session& session, std::uint64_t client_left) {
            session.gone_.cancel(client_left != 0
                                     ? Error{ErrorCode::cancelled, "the client is gone"}
                                     : Error{ErrorCode::unavailable, "its edge has let go"});
            session.credit_changed_.notify_all();
            session.side_->room.notify_all();
        },
        left ? 1 : 0);
}

void Session::send(wire::EngineMessage message, bool last) {
    if (ended_) {
        return;
    }
    ended_ = last;
    side_->outbox.push(OutFrame{serial_, wire::encode(message), last});
}

void Session::accepted(std::int64_t epoch) {
    epoch_ = static_cast<std::uint64_t>(epoch);
    accepted_ = true;
    let_go_of_body();
    send(wire::Accepted{id_, epoch_}, false);
}

void Session::moved(std::string engine_id, std::string endpoint) {
    HEDDLE_ASSERT(!accepted_ && !head_sent_);
    send(wire::Moved{id_, std::move(engine_id), std::move(endpoint)}, true);
}

void Session::refused(ErrorCode code) {
    HEDDLE_ASSERT(!head_sent_);
    send(wire::Refused{id_, name_of(code)}, true);
}

void Session::send_head(api::Response response, bool last) {
    head_sent_ = true;
    let_go_of_body();
    wire::Head head;
    head.id = id_;
    head.epoch = epoch_;
    head.status = response.status;
    head.headers = std::move(response.headers);
    head.body = std::move(response.body);
    head.last = last;
    send(std::move(head), last);
}

base::Task<base::Status> Session::respond(api::Response response) {
    if (response.body.size() <= wire::kChunkBytesMax) {
        send_head(std::move(response), true);
        co_return base::ok();
    }
    auto rest = response.body.substr(api::kHeadBodyBytesMax);
    response.body.resize(api::kHeadBodyBytesMax);
    send_head(std::move(response), false);
    auto written = co_await write(std::move(rest));
    if (written) {
        end();
    }
    co_return written;
}

void Session::start(api::Response head) {
    // The first bytes need no credit, but a frame has its bound; more goes through write().
    HEDDLE_ASSERT(head.body.size() <= api::kHeadBodyBytesMax);
    send_head(std::move(head), false);
}

base::Task<base::Status> Session::write(std::string bytes) {
    std::size_t at = 0;
    while (at < bytes.size()) {
        while (!gone_.is_cancelled() && (credit_ == 0 || side_->outbox.is_full())) {
            const auto now = base::system_clock().now();
            if (now >= request_.deadline) {
                co_return Error{ErrorCode::timeout, "the client did not read in time"};
            }
            auto& signal = credit_ == 0 ? credit_changed_ : side_->room;
            co_await signal.wait(std::min(now + kWakeEvery, request_.deadline));
        }
        if (gone_.is_cancelled()) {
            co_return gone_.reason();
        }
        const auto left = static_cast<std::uint64_t>(bytes.size() - at);
        const auto now_bytes = std::min({credit_, left, std::uint64_t{wire::kChunkBytesMax}});
        credit_ -= now_bytes;
        wire::Data data;
        data.id = id_;
        data.bytes = bytes.substr(at, now_bytes);
        send(std::move(data), false);
        at += now_bytes;
    }
    co_return base::ok();
}

void Session::end() {
    send(wire::End{id_, {}}, true);
}

void Session::fail(ErrorCode code) {
    if (head_sent_) {
        send(wire::End{id_, name_of(code)}, true);
    } else {
        send_head(api::error_response({code, "the request could not be answered"}), true);
    }
}

void Session::close() {
    if (ended_) {
        return;
    }
    if (!gone_.is_cancelled()) {
        fail(base::system_clock().now() >= request_.deadline ? ErrorCode::timeout
                                                             : ErrorCode::internal);
        return;
    }
    ended_ = true;
    side_->outbox.push(OutFrame{serial_, {}, true});
}

}  // namespace heddle::transport
