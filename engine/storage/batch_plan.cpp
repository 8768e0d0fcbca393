#include "engine/storage/batch_plan.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace heddle::storage {

bool BatchCut::admit(const ThreadClaim& claim) {
    return seen_.try_emplace(claim.thread_id, Seen{Phase::claim, 0}).second;
}

bool BatchCut::admit(const ThreadWrite& write) {
    // A run that is deleted must not have been touched by the same statement: such a write, a
    // release and whatever is a statement of its own end what may be merged for their thread.
    const bool removes = write.delete_thread || write.rollback_to || write.prune || write.ttl ||
                         !write.deleted_runs.empty();
    const bool ends = write.release || removes;
    const auto [at, is_new] = seen_.try_emplace(write.thread_id, Seen{Phase::write, write.epoch});
    auto& seen = at->second;
    if (!is_new) {
        if (seen.phase == Phase::sealed) {
            return false;
        }
        if (seen.phase == Phase::write && (seen.epoch != write.epoch || removes)) {
            return false;
        }
        // After a claim in the same batch only a write of an older epoch can come, and claims are
        // carried out first, as they came.
        seen = Seen{Phase::write, write.epoch};
    }
    if (ends) {
        seen.phase = Phase::sealed;
    }
    return true;
}

namespace {

class Planner {
public:
    explicit Planner(BatchPlan& plan) : plan_{plan} {}

    void add(const ThreadWrite& write) {
        merge_thread(write);
        for (const auto& row : write.journal) {
            plan_.journal.push_back({write.key, &row});
        }
        for (const auto& row : write.new_runs) {
            new_run_at_[row.id] = plan_.new_runs.size();
            plan_.new_runs.push_back({write.key, &row, row.status, row.attempt, &row.error});
        }
        for (const auto& update : write.run_updates) {
            merge_update(write.key, update);
        }
        for (const auto& run : write.deleted_runs) {
            plan_.deleted_runs.push_back({write.key, run});
        }
        for (const auto& call : write.tool_calls) {
            const CallKey key{write.key, call.seq, call.task_id, call.number};
            const auto [at, is_new] = call_at_.try_emplace(key, plan_.tool_calls.size());
            if (is_new) {
                plan_.tool_calls.push_back({write.key, &call});
            } else {
                plan_.tool_calls[at->second].row = &call;
            }
        }
        if (write.tool_calls_done != kNoSeq) {
            auto& done = done_[write.key];
            done = std::max(done, write.tool_calls_done);
        }
    }
    // What was recorded and is over within one batch is never written.
    void finish() {
        if (done_.empty()) {
            return;
        }
        std::erase_if(plan_.tool_calls, [this](const PlannedToolCall& call) {
            const auto at = done_.find(call.key);
            return at != done_.end() && call.row->seq <= at->second;
        });
        for (const auto& [key, seq] : done_) {
            plan_.tool_calls_done.push_back({key, seq});
        }
    }

private:
    using CallKey = std::tuple<ThreadKey, Seq, base::Uuid, std::int32_t>;

    void merge_thread(const ThreadWrite& write) {
        const auto [at, is_new] = thread_at_.try_emplace(write.key, plan_.threads.size());
        if (is_new) {
            plan_.threads.push_back(MergedThread{write.key, write.epoch, {}});
        }
        auto& merged = plan_.threads[at->second];
        if (write.status) {
            merged.status = write.status;
        }
        if (write.metadata) {
            merged.metadata = &*write.metadata;
        }
        if (write.interrupts) {
            merged.interrupts = &*write.interrupts;
        }
        if (!write.journal.empty()) {
            merged.head = write.journal.back().seq;
        }
        merged.release = merged.release || write.release;
    }
    void merge_update(ThreadKey key, const RunUpdate& update) {
        if (const auto inserted = new_run_at_.find(update.id); inserted != new_run_at_.end()) {
            auto& run = plan_.new_runs[inserted->second];
            run.status = update.status;
            run.attempt = update.attempt;
            run.error = &update.error;
            return;
        }
        const auto [at, is_new] = update_at_.try_emplace(update.id, plan_.run_updates.size());
        if (is_new) {
            plan_.run_updates.push_back({key, &update});
        } else {
            plan_.run_updates[at->second].update = &update;
        }
    }

    BatchPlan& plan_;
    std::unordered_map<ThreadKey, std::size_t> thread_at_;
    std::unordered_map<RunId, std::size_t> new_run_at_;
    std::unordered_map<RunId, std::size_t> update_at_;
    std::map<CallKey, std::size_t> call_at_;
    std::map<ThreadKey, Seq> done_;
};

// One statement cannot update or insert a row and delete it as well; deleting comes last.
void drop_deleted(BatchPlan& plan) {
    if (plan.deleted_runs.empty()) {
        return;
    }
    const auto is_deleted = [&plan](const RunId& id) {
        return std::any_of(plan.deleted_runs.begin(), plan.deleted_runs.end(),
                           [&id](const PlannedDelete& deleted) { return deleted.id == id; });
    };
    std::erase_if(plan.new_runs, [&](const PlannedRun& run) { return is_deleted(run.row->id); });
    std::erase_if(plan.run_updates,
                  [&](const PlannedUpdate& update) { return is_deleted(update.update->id); });
}

}  // namespace

BatchPlan plan_batch(std::span<const ThreadWrite* const> writes) {
    BatchPlan plan;
    Planner planner{plan};
    for (const auto* write : writes) {
        planner.add(*write);
    }
    planner.finish();
    drop_deleted(plan);
    std::sort(plan.threads.begin(), plan.threads.end(),
              [](const MergedThread& a, const MergedThread& b) { return a.key < b.key; });
    return plan;
}

}  // namespace heddle::storage
