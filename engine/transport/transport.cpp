#include "engine/transport/transport.hpp"

#include <thread>
#include <utility>

#include <pthread.h>

#include "engine/transport/loop.hpp"

namespace heddle::transport {

struct Transport::Impl {
    Impl(TransportOptions wanted,
         std::unique_ptr<Outbox> frames,
         std::unique_ptr<RouterSocket> bound,
         api::Handler& handler,
         base::ShardPool& shards,
         observe::Metrics& metrics)
        : options{std::move(wanted)},
          outbox{std::move(frames)},
          socket{std::move(bound)},
          loop{options, *socket, *outbox, sides, handler, metrics} {
        for (std::size_t i = 0; i < shards.size(); ++i) {
            sides.push_back(std::make_unique<ShardSide>(shards.at(i), *outbox, loop.bodies_bytes));
        }
        endpoint = options.advertised.empty() ? socket->endpoint() : options.advertised;
    }

    TransportOptions options;
    std::string endpoint;
    std::unique_ptr<Outbox> outbox;
    std::unique_ptr<RouterSocket> socket;  // wakes by the outbox's descriptor
    std::vector<std::unique_ptr<ShardSide>> sides;
    Loop loop;
    std::thread os_thread;  // last: it uses everything above
};

Transport::Transport(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}

Transport::~Transport() {
    stop(base::Duration::zero());
}

base::Result<std::unique_ptr<Transport>> Transport::bind(TransportOptions options,
                                                         api::Handler& handler,
                                                         base::ShardPool& shards,
                                                         observe::Metrics& metrics) {
    auto outbox = std::make_unique<Outbox>(options.outbox_frames_max);
    auto socket = RouterSocket::bind(options.listen, outbox->wake_fd());
    if (!socket) {
        return std::move(socket).error();
    }
    auto impl = std::make_unique<Impl>(std::move(options), std::move(outbox), std::move(*socket),
                                       handler, shards, metrics);
    return std::unique_ptr<Transport>{new Transport{std::move(impl)}};  // NOLINT: private
}

const std::string& Transport::endpoint() const noexcept {
    return impl_->endpoint;
}

void Transport::start(std::function<std::string()> engine_id) {
    impl_->os_thread = std::thread{[this, id = std::move(engine_id)]() mutable {
        pthread_setname_np(pthread_self(), "transport");
        impl_->loop.run(std::move(id), impl_->endpoint);
    }};
}

void Transport::start_draining() noexcept {
    impl_->loop.draining.store(true);
}

std::size_t Transport::open_requests() const noexcept {
    return impl_->loop.open_requests.load(std::memory_order_relaxed);
}

void Transport::stop(base::Duration linger) {
    if (!impl_->os_thread.joinable()) {
        return;
    }
    impl_->loop.stopping.store(true);
    impl_->outbox->wake();
    impl_->os_thread.join();
    impl_->socket->set_linger(linger);
}

}  // namespace heddle::transport
