#pragma once

#include <deque>
#include <list>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/base/signal.hpp"
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {

/// How open() treats a thread that is not there, or not free.
struct OpenOptions {
    bool create = false;
    std::string metadata = "{}";            ///< of a thread that is created
    std::optional<storage::ThreadTtl> ttl;  ///< likewise
    bool durable = false;                   ///< somebody is told of the thread before a write
    bool wait_for_owner = false;            ///< see ShardScheduler::submit
    base::Instant waits_until{};  ///< set by open(): those in line wait side by side, not in turn
};

/// The sessions of one shard: claimed threads by id, least recently used idle ones going first, and
/// the ended runs that late joiners may still read. Belongs to its shard.
class ShardScheduler::Sessions {
    /// Threads that have left the table though they are ours: the last 32,768 of them, and more.
    class Evicted {
    public:
        void add(const base::ThreadId& thread);
        [[nodiscard]] bool contains(const base::ThreadId& thread) const {
            return newer_.contains(thread) || older_.contains(thread);
        }

    private:
        std::unordered_set<base::ThreadId> newer_;
        std::unordered_set<base::ThreadId> older_;
    };

public:
    using SessionPtr = std::shared_ptr<ThreadSession>;  // NOLINT: coroutines of the shard hold it
    struct Opened {
        SessionPtr session;
        bool created = false;
    };

    Sessions(base::Shard& shard,
             storage::Store& store,
             const Catalog& catalog,
             observe::Metrics& metrics,
             SchedulerLimits limits,
             const Lease& lease);

    /// The session of a thread that is likely to be new; the first write of its first run makes it.
    /// @return nullptr if it must be asked for by open()
    SessionPtr begin(const base::ThreadId& thread, OpenOptions options);
    /// The session of a thread, claimed if it is not here yet; concurrent callers share one claim.
    base::Task<base::Result<Opened>> open(base::ThreadId thread, OpenOptions options);
    /// The same for a thread that must be there already.
    base::Task<base::Result<Opened>> open_existing(base::ThreadId thread);
    [[nodiscard]] SessionPtr find(const base::ThreadId& thread) const;
    [[nodiscard]] RunHandle find_ended(const base::ThreadId& thread, const base::RunId& run) const;
    /// Deleted runs are not to be read any more.
    void drop_ended(const base::RunId& run);
    void drop_ended_of(const std::unordered_set<base::ThreadId>& threads);
    [[nodiscard]] std::size_t active_runs() const noexcept;
    /// @return whether it was done
    base::Task<bool> expire(const storage::ExpiredThread& due);
    void recover(base::ThreadId thread);
    void abandon_all();
    void hand_over_all();
    void hand_over_now();
    void drop_waiters();
    [[nodiscard]] SessionContext& context() noexcept { return context_; }

private:
    struct Entry {
        SessionPtr session;
        std::list<base::ThreadId>::iterator at;
    };
    /// Those who want a thread that is being claimed, in order of arrival.
    struct Opening {
        std::uint64_t tickets = 0;
        std::uint64_t serving = 0;
        std::optional<base::Error> failed;  ///< the store did not answer the one before
        base::Signal changed;
    };
    struct Ended {
        base::Instant until;
        std::size_t bytes;
        RunHandle run;
    };

    base::Task<base::Result<Opened>> open_in_turn(base::ThreadId thread,
                                                  OpenOptions options,
                                                  Opening& line);
    base::Task<base::Result<storage::ClaimOutcome>> claim(base::ThreadId thread,
                                                          OpenOptions options);
    /// @param is_in_doubt  the thread may become ours yet, also if it is not found, or another's
    void recover_after(const base::ThreadId& thread, base::Duration wait, bool is_in_doubt);
    base::Task<> recover_later(base::ThreadId thread, base::Duration wait);
    void forget(const base::ThreadId& thread, bool recover);
    void keep_ended(const RunHandle& run);
    void drop_oldest_ended();
    /// Lets ended runs go when their time is over; lives as long as some are kept.
    base::Task<> free_ended();
    void insert(const base::ThreadId& thread, SessionPtr session);
    /// Whether more is kept in memory than may be.
    [[nodiscard]] bool is_crowded() const noexcept;
    void evict_soon();
    void evict_idle();

    SchedulerLimits limits_;
    SessionContext context_;
    std::unordered_map<base::ThreadId, Entry> sessions_;
    std::list<base::ThreadId> by_use_;                     ///< newest first
    std::vector<std::weak_ptr<ThreadSession>> forgotten_;  ///< with a write on its way
    std::unordered_map<base::ThreadId, std::shared_ptr<Opening>> opening_;  // NOLINT
    struct Recovery {
        base::Instant until{};  ///< when what is in doubt can no more happen
        std::unique_ptr<base::Signal> soon = std::make_unique<base::Signal>();
    };
    std::unordered_map<base::ThreadId, Recovery> recovering_;
    std::uint64_t leases_lost_ = 0;
    std::deque<Ended> ended_;
    std::unordered_map<base::RunId, RunHandle> ended_by_id_;
    std::size_t ended_bytes_ = 0;
    bool freeing_ended_ = false;
    bool evicting_ = false;
    Evicted evicted_;
    bool leaving_ = false;  ///< no thread is claimed any more
};

}  // namespace heddle::scheduler
