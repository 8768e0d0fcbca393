#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <variant>
#include <vector>

#include "engine/observe/metrics.hpp"
#include "engine/storage/batch_plan.hpp"
#include "engine/storage/group_commit.hpp"
#include "engine/storage/postgres/connection.hpp"

namespace heddle::storage::postgres {

struct WriteOperation {
    EngineId engine;
    ThreadWrite write;
    /// The thread's key, where it was not known.
    Completion<Result<ThreadKey>> done;
    Status outcome;
    std::optional<ThreadClaim> create{};  ///< of the thread that this write begins
};
struct ClaimOperation {
    EngineId engine;
    ThreadClaim claim;
    Completion<Result<ClaimOutcome>> done;
    Result<ClaimOutcome> outcome{ClaimOutcome{}};
    ThreadKey new_key = 0;  ///< for the thread if it has to be created; kept over repeats
    bool is_settled = false;
};
struct Operation {
    std::variant<WriteOperation, ClaimOperation> body;
    base::Instant deadline;
};

void set_all(std::span<WriteOperation* const> writes, const base::Error& error);
base::Error stale_error();

/// Numbers of a store's batches and claims, ascending, each used once. They begin at the time, so
/// that a store that is opened again goes on above them.
using BatchNumbers = std::atomic<std::int64_t>;

/// One OS thread with one connection that writes (ADR 0003). Takes whatever waits, merges it per
/// thread and commits it as one statement. Rows that the server refuses are bisected out; after a
/// lost connection it reads back what became of the statement before it answers or repeats. Nothing
/// of that rests on the session, so it holds through a pooler and after a failover.
/// The constructor starts the OS thread; the destructor answers what waits with `unavailable`, lets
/// the statement in work end and joins. A completion is called by the writer's OS thread, or by a
/// loop's that has sent the statement itself (ADR 0016).
class Writer {
public:
    /// `metrics`, `numbers` and what `endpoint` points to must outlive this.
    Writer(const Endpoint& endpoint,
           const StoreLimits& limits,
           observe::Metrics& metrics,
           BatchNumbers& numbers);
    ~Writer();
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;

    /// Any OS thread. Calls the completion at once if the queue does not take it.
    void submit(Operation operation, std::size_t rows, std::size_t bytes);

private:
    using Writes = std::span<WriteOperation* const>;
    using Claims = std::span<ClaimOperation* const>;

    /// What a thread's row says when it is read back.
    struct Seen {
        Epoch epoch;
        std::int64_t batch;
        EngineId owner;
    };

    /// A plain write whose statement was sent by the OS thread that submitted it.
    struct Started {
        Operation operation;
        std::int64_t number;
        std::optional<Executed> executed{};  ///< if that has got the answer
    };
    /// From whoever waits for the answer of what it has started to the writer, which may be gone.
    struct Link {
        std::mutex mutex;
        Writer* writer;  ///< guarded by mutex
    };

    void run();
    bool try_start(Operation& operation, std::size_t bytes);
    bool call_when_answered();
    void try_finish_started();
    void finish_started();
    void serve(std::span<Operation> batch);
    void commit(std::span<Operation> part);
    void answer(std::span<Operation> part);

    /// A usable connection, tried for until `deadline`; null then, or when shutting down.
    Connection* connect(base::Instant deadline);

    void write(Writes writes, base::Instant deadline);
    bool give_keys(Writes writes, base::Instant deadline);
    void roll_back(Writes writes, base::Instant deadline);
    void prune(Writes writes, base::Instant deadline);
    void set_ttl(Writes writes, base::Instant deadline);
    void remove(Writes writes, base::Instant deadline);
    template <class Execute>
    void settle(Writes writes, base::Instant deadline, Execute execute);
    template <class Execute>
    bool settle_attempt(Writes writes,
                        const Executed& executed,
                        std::int64_t number,
                        base::Instant deadline,
                        Execute execute);
    bool settle_once(Writes writes,
                     const Executed& executed,
                     std::int64_t number,
                     base::Instant deadline);
    void let_through(Fate fate, base::Instant deadline);
    void tell_apart(Writes writes, const Rows& changed, base::Instant deadline);
    void refuse_changes(Writes writes, base::Instant deadline);
    bool read_back(Writes writes, std::int64_t number, base::Instant deadline);
    Executed fence(Writes writes, std::int64_t number, base::Instant deadline);
    bool conclude(WriteOperation& operation,
                  const Seen* seen,
                  std::int64_t number,
                  base::Instant deadline);
    bool examine(WriteOperation& operation, Connection& connection, base::Instant deadline);
    std::int64_t next_number();

    void claim(Claims claims, base::Instant deadline);
    bool give_keys(Claims claims, base::Instant deadline);
    bool give_key(ThreadKey& key, base::Instant deadline);
    Fate try_claim(Claims claims, Connection& connection, base::Instant deadline);
    Fate add_open_runs(Claims claims, Connection& connection, base::Instant deadline);
    Fate find_owners(Claims claims, Connection& connection, base::Instant deadline);

    const Endpoint endpoint_;
    const StoreLimits limits_;
    observe::Metrics& metrics_;
    BatchNumbers& numbers_;
    GroupCommitQueue<Operation> queue_;

    const std::shared_ptr<Link> link_;  // NOLINT: shared with loops that wait for an answer

    // The rest belongs to the writer's OS thread; in a turn alone of the queue, which it waits in
    // then, to whoever has that.
    std::optional<Started> started_;
    std::unique_ptr<Connection> connection_;
    ThreadKey next_key_ = 0;
    ThreadKey keys_end_ = 0;
    std::thread os_thread_;  // last: it uses everything above
};

}  // namespace heddle::storage::postgres
