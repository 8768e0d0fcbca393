#include "tests/unit/engine/scheduler/scheduler_fixture.hpp"

#include <utility>

#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::scheduler::test {

std::unique_ptr<TestEngine> SchedulerTest::make_engine(const SchedulerLimits& limits) {
    return std::make_unique<TestEngine>(
        storage::make_memory_store(database_, long_lease(), store_metrics_), catalog_,
        quick_ownership(), limits);
}

RunRequest SchedulerTest::request(const std::string& graph, const std::string& text) const {
    RunRequest request;
    request.thread_id = thread_;
    request.run_id = base::RunId{base::make_uuid_v7()};
    request.assistant = *catalog_.find(graph);
    request.create_thread = true;
    request.input = base::Json{{"messages", {{{"role", "user"}, {"content", text}}}}};
    request.request_hash = text.substr(0, storage::kRequestHashBytesMax);
    request.stream_modes = {graph::StreamMode::updates};
    request.kwargs = encode_kwargs(request);
    return request;
}

base::Result<RunHandle> SchedulerTest::submit(TestEngine& engine, RunRequest request) {
    const auto thread = request.thread_id;
    return engine.on_shard<base::Result<RunHandle>>(
        thread, [request](ShardScheduler& on) -> base::Task<base::Result<RunHandle>> {
            auto run = co_await on.submit(request, true);
            co_return run;
        });
}

base::Result<RunHandle> SchedulerTest::accept(TestEngine& engine, RunRequest request) {
    const auto thread = request.thread_id;
    auto run = submit(engine, std::move(request));
    if (!run) {
        return run;
    }
    auto accepted = engine.on_shard<base::Status>(
        thread, [handle = *run](ShardScheduler&) -> base::Task<base::Status> {
            auto status = co_await handle->wait_accepted(soon());
            co_return status;
        });
    return accepted ? run : base::Result<RunHandle>{std::move(accepted).error()};
}

base::Result<RunOutcome> SchedulerTest::wait_for_end(TestEngine& engine, RunHandle run) {
    const auto thread = run->request().thread_id;
    return engine.on_shard<base::Result<RunOutcome>>(
        thread, [run](ShardScheduler&) -> base::Task<base::Result<RunOutcome>> {
            auto outcome = co_await run->wait_finished(soon());
            co_return outcome;
        });
}

base::Result<RunOutcome> SchedulerTest::run(TestEngine& engine, RunRequest request) {
    auto handle = submit(engine, std::move(request));
    return handle ? wait_for_end(engine, *handle)
                  : base::Result<RunOutcome>{std::move(handle).error()};
}

base::Status SchedulerTest::cancel(TestEngine& engine, base::RunId run, bool roll_back) const {
    return engine.on_shard<base::Status>(
        thread_,
        [run, roll_back, thread = thread_](ShardScheduler& on) -> base::Task<base::Status> {
            co_return co_await on.cancel_run(thread, run, roll_back);
        });
}

std::vector<storage::RunRow> SchedulerTest::runs(TestEngine& engine) const {
    using Rows = base::Result<std::vector<storage::RunRow>>;
    auto& store = engine.scheduler().store();
    auto rows = engine.on_shard<Rows>(
        thread_, [&store, thread = thread_](ShardScheduler&) -> base::Task<Rows> {
            co_return co_await base::from_callback<Rows>(
                [&](auto done) { store.list_runs(thread, storage::RunFilter{}, std::move(done)); });
        });
    EXPECT_TRUE(rows);
    return rows ? std::move(*rows) : std::vector<storage::RunRow>{};
}

std::vector<StateAt> SchedulerTest::history(TestEngine& engine) const {
    using States = base::Result<std::vector<StateAt>>;
    auto loaded = engine.on_shard<States>(
        thread_, [thread = thread_](ShardScheduler& on) -> base::Task<States> {
            auto states = co_await on.load_history(thread, std::nullopt, 1000);
            co_return states;
        });
    EXPECT_TRUE(loaded) << loaded.error().message;
    return loaded ? std::move(*loaded) : std::vector<StateAt>{};
}

std::vector<std::string> SchedulerTest::contents(TestEngine& engine) const {
    std::vector<std::string> texts;
    const auto states = history(engine);
    if (states.empty()) {
        return texts;
    }
    const auto values = base::Json::parse(states.front().values);
    for (const auto& message : values.at("messages")) {
        texts.push_back(message.at("content"));
    }
    return texts;
}

bool SchedulerTest::is_linear(TestEngine& engine) const {
    const auto states = history(engine);
    for (std::size_t i = 0; i + 1 < states.size(); ++i) {
        if (states[i].row.parent != states[i + 1].row.seq) {
            return false;
        }
        if (states[i].parent_checkpoint != states[i + 1].row.checkpoint_id) {
            return false;
        }
    }
    return !states.empty();
}

bool SchedulerTest::wait_arrived(std::size_t executions) const {
    return comes_true([&] { return gate_.arrived() >= executions; });
}

bool SchedulerTest::wait_gone(const TestEngine& engine) {
    return comes_true([&] { return engine.metrics().threads_owned.load() == 0; });
}

}  // namespace heddle::scheduler::test
