#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "engine/observe/metrics.hpp"
#include "engine/storage/group_commit.hpp"
#include "engine/storage/sqlite/connection.hpp"
#include "engine/storage/sqlite/tables.hpp"
#include "engine/storage/sqlite/turn.hpp"

namespace heddle::storage::sqlite {

struct WriteOperation {
    EngineId engine;
    ThreadWrite write;
    Completion<Status> done;
    Status outcome;
};
struct ClaimOperation {
    EngineId engine;
    ThreadClaim claim;
    Completion<Result<ClaimOutcome>> done;
    Result<ClaimOutcome> outcome{ClaimOutcome{}};
};
struct CreateOperation {
    EngineId engine;
    ThreadClaim claim;
    ThreadWrite first;
    Completion<Result<ThreadKey>> done;
    Result<ThreadKey> outcome{ThreadKey{}};
};
struct EngineOperation {
    enum class Kind : std::uint8_t { register_engine, heartbeat, unregister };
    Kind kind;
    EngineRow engine;
    Completion<Status> done;
    Status outcome;
};
struct KeyOperation {
    KeyClaim claim;
    Completion<Result<KeyHolder>> done;
    Result<KeyHolder> outcome{KeyHolder{}};
};
struct KeySweep {
    std::int32_t limit;
    Completion<Result<std::int32_t>> done;
    Result<std::int32_t> outcome{0};
};
struct Operation {
    std::variant<WriteOperation,
                 ClaimOperation,
                 CreateOperation,
                 EngineOperation,
                 KeyOperation,
                 KeySweep>
        body;
    base::Instant deadline;
};

/// The only OS thread of this process that changes the file. Everything that waits goes into one
/// transaction: one turn, one fsync. The constructor starts the OS thread; the destructor answers
/// what waits with `unavailable`, lets the batch in work end and joins.
class Writer {
public:
    /// `metrics` and `clock` must outlive this.
    Writer(std::unique_ptr<Connection> connection,
           std::unique_ptr<Turn> turn,
           const StoreLimits& limits,
           observe::Metrics& metrics,
           const base::Clock& clock);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    /// Any OS thread. Calls the completion at once if the queue does not take it.
    void submit(Operation operation, std::size_t rows, std::size_t bytes);

private:
    enum class Isolation : std::uint8_t { none, savepoints };

    void run();
    void serve(std::vector<Operation> batch);
    void commit(std::span<Operation> batch);
    void try_commit(std::span<Operation> batch, Isolation isolation);
    void carry_out(Operation& operation);
    void carry_out_alone(Operation& operation);
    void note_beat(const EngineOperation& operation);
    void beat_again();
    void roll_back() noexcept;
    void answer(std::span<Operation> batch);

    const StoreLimits limits_;
    observe::Metrics& metrics_;
    std::unique_ptr<Connection> connection_;
    std::unique_ptr<Turn> turn_;
    Tables tables_;
    const base::Clock& clock_;
    std::optional<EngineRow> alive_;  ///< as the newest heartbeat said
    std::int64_t beaten_at_us_ = 0;
    /// Not from the moment on in which the engine has let go of that id.
    std::atomic<bool> may_beat_{false};
    GroupCommitQueue<Operation> queue_;
    std::thread os_thread_;  // last: it uses everything above
};

}  // namespace heddle::storage::sqlite
