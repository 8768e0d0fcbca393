#include "engine/app/engine.hpp"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/app/drivers.hpp"
#include "engine/app/exit_codes.hpp"
#include "engine/observe/log.hpp"
#include "engine/scheduler/ownership.hpp"
#include "engine/scheduler/scheduler.hpp"
#include "engine/scheduler/sweeper.hpp"
#include "engine/transport/transport.hpp"

namespace heddle::app {
namespace {

using observe::log;
using observe::LogLevel;

constexpr std::size_t kMailboxMax = 65'536;
constexpr auto kLinger = std::chrono::milliseconds{500};

scheduler::SchedulerLimits limits_of(const Options& options) {
    scheduler::SchedulerLimits limits;
    limits.lease = std::chrono::milliseconds{options.lease_ms};
    // A dead owner's lease passes, and then the thread has to be claimed.
    limits.owner_wait_max = limits.lease + std::chrono::seconds{1};
    limits.attempts_max = options.attempts_max;
    limits.run_log_bytes_max = options.run_log_bytes_max;
    limits.open_runs_bytes_max = options.open_runs_bytes_max;
    limits.threads_bytes_max = options.threads_bytes_max;
    limits.active_logs_bytes_max = options.active_logs_bytes_max;
    limits.ended_runs_bytes_max = options.ended_runs_bytes_max;
    limits.ended_run_kept = std::chrono::seconds{options.ended_run_seconds};
    limits.key_kept = std::chrono::seconds{options.idempotency_key_seconds};
    limits.temporary_kept = std::chrono::seconds{options.stateless_result_seconds};
    limits.checkpoints_kept = options.checkpoints_kept;
    if (options.thread_ttl_minutes > 0) {
        const bool keeps = options.thread_ttl_strategy == "keep_latest";
        limits.thread_ttl = storage::ThreadTtl{
            keeps ? storage::TtlStrategy::keep_latest : storage::TtlStrategy::delete_thread,
            std::chrono::minutes{options.thread_ttl_minutes}};
    }
    return limits;
}

scheduler::OwnershipLimits ownership_of(const Options& options) {
    scheduler::OwnershipLimits limits;
    limits.lease = std::chrono::milliseconds{options.lease_ms};
    limits.heartbeat_every = limits.lease / 4;
    limits.recovery_every = std::min<base::Duration>(limits.recovery_every, limits.lease / 4);
    return limits;
}

}  // namespace

struct Engine::Impl {
    observe::Metrics metrics;
    models::RetryBudget retries;
    std::unique_ptr<net::HttpClient> http = std::make_unique<net::HttpClient>();
    std::unique_ptr<scheduler::Catalog> catalog;
    std::unique_ptr<storage::Store> store;
    std::unique_ptr<base::ShardPool> shards;
    std::unique_ptr<scheduler::Scheduler> scheduler;
    std::unique_ptr<scheduler::Ownership> ownership;
    std::unique_ptr<scheduler::Sweeper> sweeper;
    std::unique_ptr<api::Api> api;
    std::unique_ptr<transport::Transport> transport;

    std::optional<Exit> load_agents(const Options& options);
    std::optional<Exit> open(const Options& options);
    std::optional<Exit> serve(const Options& options);
    void stop();
};

std::optional<Exit> Engine::Impl::load_agents(const Options& options) {
    const auto factories = make_factories(*http, retries, metrics);
    auto loaded = nodes::load_agents(options.agents, factories, nodes::environment_variables());
    for (const auto& problem : loaded.problems) {
        log(LogLevel::error, "agents", "{}", problem.to_string());
    }
    if (!loaded.problems.empty()) {
        return Exit{kExitAgents,
                    fmt::format("heddle-engine: {} problems in the agents of {}; they are listed "
                                "above, with file and line\n",
                                loaded.problems.size(), options.agents)};
    }
    if (loaded.graphs.empty()) {
        return Exit{kExitAgents,
                    fmt::format("heddle-engine: {} holds no NAME/agent.yaml\n", options.agents)};
    }
    catalog = std::make_unique<scheduler::Catalog>(std::move(loaded.graphs));
    return std::nullopt;
}

std::optional<Exit> Engine::Impl::open(const Options& options) {
    storage::StoreLimits store_limits;
    store_limits.lease = std::chrono::milliseconds{options.lease_ms};
    auto opened = open_store(options.store, store_limits, metrics);
    if (!opened) {
        return Exit{kExitStore,
                    fmt::format("heddle-engine: --store: {}\n", opened.error().message)};
    }
    store = std::move(*opened);
    shards = std::make_unique<base::ShardPool>(options.shards, kMailboxMax);
    scheduler = std::make_unique<scheduler::Scheduler>(*shards, *store, *catalog, metrics,
                                                       limits_of(options));
    api::ApiOptions api_options;
    api_options.version = HEDDLE_VERSION;
    api_options.engine_name = options.name;
    api = std::make_unique<api::Api>(*scheduler, std::move(api_options));
    return std::nullopt;
}

std::optional<Exit> Engine::Impl::serve(const Options& options) {
    transport::TransportOptions wanted;
    wanted.listen = options.listen;
    wanted.advertised = options.advertise;
    wanted.request_body_bytes_max = options.request_body_bytes_max;
    wanted.open_requests_max = options.open_requests_max;
    auto bound = transport::Transport::bind(std::move(wanted), *api, *shards, metrics);
    if (!bound) {
        return Exit{kExitEndpoint,
                    fmt::format("heddle-engine: --listen: {}\n", bound.error().message)};
    }
    transport = std::move(*bound);
    // Bound first: the row in the store tells others the endpoint.
    ownership = std::make_unique<scheduler::Ownership>(*scheduler, transport->endpoint(),
                                                       ownership_of(options));
    const auto registered = ownership->start();
    if (!registered) {
        return Exit{kExitStore, fmt::format("heddle-engine: --store: cannot register: {}\n",
                                            registered.error().message)};
    }
    scheduler::SweeperLimits sweeps;
    sweeps.every = std::chrono::seconds{options.sweep_seconds};
    sweeper = std::make_unique<scheduler::Sweeper>(*scheduler, sweeps);
    sweeper->start();
    transport->start([this] { return ownership->engine_id().to_string(); });
    return std::nullopt;
}

// The order matters: nothing may call into what is gone. OS threads first (transport, HTTP,
// shards); then the store, whose completions need the shards' loops; then the loops, with the
// coroutines that still wait in them; last what those coroutines refer to.
void Engine::Impl::stop() {
    if (transport != nullptr) {
        transport->stop(kLinger);
    }
    http.reset();
    if (sweeper != nullptr) {
        sweeper->stop();
    }
    if (ownership != nullptr) {
        ownership->stop();
    }
    if (scheduler != nullptr) {
        scheduler->stop();
    } else if (shards != nullptr) {
        shards->stop();
    }
    store.reset();
    shards.reset();
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}

Engine::~Engine() {
    impl_->stop();
}

std::variant<std::unique_ptr<Engine>, Exit> Engine::start(const Options& options) {
    std::unique_ptr<Engine> engine{new Engine{std::make_unique<Impl>()}};  // NOLINT: private
    auto& impl = *engine->impl_;
    if (auto exit = impl.load_agents(options)) {
        return *std::move(exit);
    }
    if (auto exit = impl.open(options)) {
        return *std::move(exit);
    }
    if (auto exit = impl.serve(options)) {
        return *std::move(exit);
    }
    // Whoever started the process waits for this line, so no level hides it.
    observe::write_log(observe::parse_log_level(options.log_level), "engine",
                       fmt::format("ready: {} on {}, store {}, {} agents, {} shards", options.name,
                                   impl.transport->endpoint(), impl.store->name(),
                                   impl.catalog->assistants().size(), impl.shards->size()));
    return engine;
}

void Engine::start_draining() {
    log(LogLevel::info, "engine", "draining: {} runs, {} requests",
        impl_->metrics.runs_running.load(), impl_->transport->open_requests());
    impl_->transport->start_draining();
    impl_->ownership->start_draining();
    impl_->sweeper->start_draining();
    for (std::size_t i = 0; i < impl_->shards->size(); ++i) {
        impl_->shards->at(i).post([this, i] { impl_->scheduler->at(i).hand_over_all(); });
    }
}

bool Engine::is_drained() const {
    return impl_->metrics.runs_running.load() + impl_->metrics.runs_waiting.load() == 0 &&
           impl_->metrics.threads_owned.load() == 0 && impl_->transport->open_requests() == 0;
}

void Engine::hand_over_now() {
    for (std::size_t i = 0; i < impl_->shards->size(); ++i) {
        impl_->shards->at(i).post([this, i] { impl_->scheduler->at(i).hand_over_now(); });
    }
}

void Engine::abandon() {
    const auto left = impl_->metrics.runs_running.load() + impl_->metrics.runs_waiting.load();
    if (left > 0) {
        log(LogLevel::warn, "engine", "{} runs have not ended; other engines take them over", left);
    }
    std::vector<std::promise<void>> done(impl_->shards->size());
    for (std::size_t i = 0; i < done.size(); ++i) {
        impl_->shards->at(i).post([this, i, &done] {
            impl_->scheduler->at(i).abandon_all();
            done[i].set_value();
        });
    }
    for (auto& each : done) {
        each.get_future().wait();
    }
}

void Engine::leave() {
    impl_->ownership->leave();
    log(LogLevel::info, "engine", "gone");
}

}  // namespace heddle::app
