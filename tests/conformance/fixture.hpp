#pragma once

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/json.hpp"
#include "engine/base/shard.hpp"
#include "tests/conformance/backend.hpp"

namespace heddle::conformance {

using base::ErrorCode;
using storage::ClaimOutcome;
using storage::JournalRow;
using storage::RunRow;
using storage::RunStatus;
using storage::ThreadStatus;
using storage::ThreadWrite;

/// What make_backend() takes.
inline constexpr const char* kDrivers[] = {"memory", "sqlite", "postgres", "pgbouncer"};

/// Waits for an operation's completion; a store that never calls it ends the test program.
template <class T, class Start>
T call(Start start) {
    auto promise = std::make_shared<std::promise<T>>();
    auto future = promise->get_future();
    start(base::Completion<T>{[promise](T value) { promise->set_value(std::move(value)); }});
    if (future.wait_for(std::chrono::seconds{60}) != std::future_status::ready) {
        ADD_FAILURE() << "no completion within 60 s";
        std::abort();
    }
    return future.get();
}

/// One engine: its store and the blocking forms of the port's operations.
class Engine {
public:
    Engine(std::unique_ptr<storage::Store> opened, const std::string& endpoint);

    [[nodiscard]] storage::Store& store() { return *store_; }
    [[nodiscard]] const base::EngineId& id() const { return id_; }
    void close() { store_.reset(); }
    /// From now on writes and creations are called in a loop, as the scheduler does.
    void use_loop() { loop_ = std::make_unique<base::Shard>(0, 1024); }

    base::Status heartbeat(bool draining = false);
    base::Status unregister();
    std::vector<storage::EngineRow> engines();
    base::Result<ClaimOutcome> try_claim(const base::ThreadId& thread,
                                         bool create,
                                         std::string metadata = "{}");
    /// A claim that must succeed.
    ClaimOutcome claim(const base::ThreadId& thread, std::string metadata = "{}");
    base::Result<storage::ThreadKey> create(storage::ThreadClaim claim, ThreadWrite first);
    base::Status write(ThreadWrite write);
    std::vector<base::ThreadId> orphans();

    base::Result<storage::ThreadRow> thread(const base::ThreadId& thread);
    base::Result<std::vector<JournalRow>> chain(const base::ThreadId& thread,
                                                storage::Seq at = storage::kNoSeq);
    base::Result<std::optional<storage::StateRows>> newest(const base::ThreadId& thread);
    base::Result<std::vector<JournalRow>> chain_of(const base::ThreadId& thread,
                                                   const base::CheckpointId& checkpoint);
    base::Result<std::vector<JournalRow>> journal(const base::ThreadId& thread,
                                                  storage::Seq before = storage::kNoSeq,
                                                  std::int32_t limit = 1000);
    std::vector<storage::ToolCallRow> tool_calls(const base::ThreadId& thread, storage::Seq seq);
    base::Result<RunRow> run(const base::ThreadId& thread, const base::RunId& run);
    base::Result<RunRow> find_run(const base::RunId& run);
    base::Result<std::vector<RunRow>> runs(const base::ThreadId& thread,
                                           storage::RunFilter filter = {});
    base::Result<std::vector<storage::ThreadRow>> search(storage::ThreadFilter filter);
    base::Result<std::int64_t> count(storage::ThreadFilter filter);

private:
    template <class T, class Start>
    T call_in_loop(Start start);

    std::unique_ptr<storage::Store> store_;
    base::EngineId id_;
    std::unique_ptr<base::Shard> loop_;
};

base::ThreadId new_thread_id();
base::RunId new_run_id();
/// A row whose texts and times follow from its numbers.
JournalRow make_row(storage::Seq seq, storage::Seq base = 0);
RunRow make_run(const base::ThreadId& thread, std::int64_t created_at_us = 1'700'000'000'000'000);
/// A write of `outcome`'s thread under its epoch, still empty.
ThreadWrite make_write(const ClaimOutcome& outcome);
ErrorCode code_of(const base::Status& status);
template <class T>
ErrorCode code_of(const base::Result<T>& result) {
    EXPECT_FALSE(result.has_value()) << "an error was expected";
    return result ? ErrorCode::internal : result.error().code;
}
base::Json parsed(const std::string& text);
std::vector<storage::Seq> seqs(const std::vector<JournalRow>& rows);

class StoreTest : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override;

    /// @param lease  how long this engine believes others, and itself, to be alive
    std::unique_ptr<Engine> open_engine(base::Duration lease = std::chrono::hours{1});

    std::unique_ptr<Backend> backend_;
    storage::StoreLimits limits_;
};

}  // namespace heddle::conformance
