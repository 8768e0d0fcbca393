#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/api/api.hpp"
#include "engine/base/shard.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/scheduler/ownership.hpp"
#include "engine/scheduler/scheduler.hpp"
#include "engine/storage/memory/memory_store.hpp"

namespace heddle::api::test {

/// Node executions that arrive here wait until the test lets them go. Any OS thread.
class Gate {
public:
    base::Task<> pass();
    void open();
    [[nodiscard]] std::size_t arrived() const;
    /// Waits until so many have arrived, at most ten seconds.
    void wait_arrived(std::size_t count) const;

private:
    mutable std::mutex mutex_;
    bool open_ = false;
    std::size_t arrived_ = 0;
    std::vector<base::Completion<bool>> waiting_;
};

struct Reply {
    std::uint16_t status = 0;
    Headers headers;
    std::string body;
    bool one_frame = false;  ///< respond() was used: nothing was sent before the end
    bool accepted = false;
    bool ended = false;
    std::string failed;   ///< code of fail()
    std::string refused;  ///< code of refused()
    std::string moved;    ///< endpoint of moved()

    [[nodiscard]] base::Json json() const;
    [[nodiscard]] std::string header(std::string_view name) const;
};

/// One request on its way; collects what the API sends.
class Exchange final : public ResponseSink {
public:
    Exchange(Request request, base::Shard& shard);

    /// Waits until the handler has returned, at most ten seconds.
    Reply finish();
    /// Waits until the body holds `text`.
    void wait_for(const std::string& text);
    void wait_accepted();
    [[nodiscard]] Reply so_far() const;
    /// The client goes away.
    void leave();

    void accepted(std::int64_t epoch) override;
    void moved(std::string engine_id, std::string endpoint) override;
    void refused(base::ErrorCode code) override;
    base::Task<base::Status> respond(Response response) override;
    void start(Response head) override;
    base::Task<base::Status> write(std::string bytes) override;
    void end() override;
    void fail(base::ErrorCode code) override;
    [[nodiscard]] base::CancelSource& gone() noexcept override { return gone_; }

    Request request;
    base::Shard* shard;
    void mark_done();
    void take_head(Response head);

private:
    template <class Change>
    void change(Change change_it) {
        {
            const std::lock_guard lock{mutex_};
            change_it(reply_);
        }
        changed_.notify_all();
    }
    template <class Condition>
    void wait(Condition condition, const std::string& what);

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Reply reply_;
    bool done_ = false;
    base::CancelSource gone_;
};

using ExchangePtr = std::shared_ptr<Exchange>;  // NOLINT: the shard's coroutine holds it too

/// An API over a memory store with the agents echo, gated (waits for `gate`), pair (two nodes),
/// talk (two nodes, of which the first has 45 custom events and waits for `gate` after 40), broken
/// (its node fails), talk_broken (the second node talks and fails) and counter (no messages
/// channel).
class TestApi {
public:
    explicit TestApi(ApiOptions options = {}, scheduler::SchedulerLimits limits = {});
    ~TestApi();

    ExchangePtr begin(const std::string& method,
                      const std::string& target,
                      const std::string& body = {},
                      Headers headers = {});
    ExchangePtr begin(Request request);
    Reply call(const std::string& method,
               const std::string& target,
               const std::string& body = {},
               Headers headers = {});
    /// POST /threads; returns the id.
    std::string make_thread();
    /// As after a lost lease: every run stops here.
    void abandon_all();
    /// Another engine claims the thread, as it may once this one's lease has passed.
    void rob(const std::string& thread);

    Gate gate;
    observe::Metrics metrics;

private:
    storage::MemoryDatabase database_;
    std::unique_ptr<storage::Store> store_;
    std::unique_ptr<storage::Store> thief_;
    std::unique_ptr<scheduler::Catalog> catalog_;
    std::unique_ptr<base::ShardPool> shards_;
    std::unique_ptr<scheduler::Scheduler> scheduler_;
    std::unique_ptr<scheduler::Ownership> ownership_;
    std::unique_ptr<Api> api_;
};

/// {"assistant_id": agent, "input": {"messages": [human message]}, ...extra}
std::string run_body(const std::string& agent,
                     const std::string& text,
                     const base::Json& extra = base::Json::object());

struct SseEvent {
    std::string event;
    std::string data;
    std::string id;
};
/// Parses a stream the strict way: fields in the order event, data, id; comments are skipped.
std::vector<SseEvent> parse_sse(const std::string& text);

}  // namespace heddle::api::test
