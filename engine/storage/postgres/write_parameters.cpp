#include "engine/storage/postgres/write_parameters.hpp"

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <unordered_map>

#include "engine/base/assert.hpp"
#include "engine/base/clock.hpp"
#include "engine/storage/postgres/write_statements.hpp"

namespace heddle::storage::postgres {
namespace {

void add_or_null(BinaryArray& array, const std::string* text) {
    if (text == nullptr) {
        array.add_null();
    } else {
        array.add_bytes(*text);
    }
}

// As write_statement_of() says.
void put(Parameters& parameters, WriteParts parts, std::initializer_list<BinaryArray*> arrays) {
    for (auto* array : arrays) {
        if (parts.has(WritePart::one_thread)) {
            parameters.add_only(std::move(*array));
        } else {
            parameters.add(std::move(*array));
        }
    }
}

using NewThreads = std::unordered_map<ThreadKey, const ThreadClaim*>;

NewThreads new_threads(std::span<WriteOperation* const> writes) {
    NewThreads found;
    for (const auto* operation : writes) {
        if (operation->create) {
            found.emplace(operation->write.key, &*operation->create);
        }
    }
    return found;
}

// Every engine makes threads in the order of their ids: two that make the same ones wait for each
// other in one direction.
void add_new_threads(Parameters& parameters,
                     WriteParts parts,
                     std::vector<MergedThread> threads,
                     const NewThreads& claims) {
    std::sort(threads.begin(), threads.end(), [&](const auto& a, const auto& b) {
        return claims.at(a.key)->thread_id < claims.at(b.key)->thread_id;
    });
    BinaryArray key{ElementType::int8};
    BinaryArray id{ElementType::uuid};
    BinaryArray status{ElementType::int2};
    BinaryArray metadata{ElementType::text};
    BinaryArray interrupts{ElementType::text};
    BinaryArray head{ElementType::int8};
    BinaryArray release{ElementType::boolean};
    BinaryArray ttl{ElementType::int8};
    BinaryArray strategy{ElementType::int2};
    for (const auto& thread : threads) {
        const auto& claim = *claims.at(thread.key);
        HEDDLE_ASSERT(thread.key != 0);
        key.add_int8(thread.key);
        id.add(claim.thread_id);
        status.add_int2(static_cast<std::int16_t>(thread.status.value_or(ThreadStatus::idle)));
        metadata.add_bytes(thread.metadata == nullptr ? claim.metadata : *thread.metadata);
        add_or_null(interrupts, thread.interrupts);
        head.add_int8(thread.head);
        release.add_bool(thread.release);
        if (claim.ttl) {
            ttl.add_int8(base::microseconds(claim.ttl->after));
            strategy.add_int2(static_cast<std::int16_t>(claim.ttl->strategy));
        } else {
            ttl.add_null();
            strategy.add_null();
        }
    }
    put(parameters, parts,
        {&key, &id, &status, &metadata, &interrupts, &head, &release, &ttl, &strategy});
}

void add_threads(Parameters& parameters,
                 WriteParts parts,
                 const std::vector<MergedThread>& threads) {
    BinaryArray key{ElementType::int8};
    BinaryArray epoch{ElementType::int8};
    BinaryArray status{ElementType::int2};
    BinaryArray metadata{ElementType::text};
    BinaryArray interrupts{ElementType::text};
    BinaryArray head{ElementType::int8};
    BinaryArray release{ElementType::boolean};
    for (const auto& thread : threads) {
        key.add_int8(thread.key);
        epoch.add_int8(thread.epoch);
        if (thread.status) {
            status.add_int2(static_cast<std::int16_t>(*thread.status));
        } else {
            status.add_null();
        }
        add_or_null(metadata, thread.metadata);
        add_or_null(interrupts, thread.interrupts);
        if (thread.head == kNoSeq) {
            head.add_null();
        } else {
            head.add_int8(thread.head);
        }
        release.add_bool(thread.release);
    }
    put(parameters, parts, {&key, &epoch, &status, &metadata, &interrupts, &head, &release});
}

void add_journal(Parameters& parameters, const std::vector<PlannedJournal>& journal) {
    BinaryArray key{ElementType::int8};
    BinaryArray seq{ElementType::int8};
    BinaryArray parent{ElementType::int8};
    BinaryArray base{ElementType::int8};
    BinaryArray checkpoint{ElementType::uuid};
    BinaryArray run{ElementType::uuid};
    BinaryArray step{ElementType::int4};
    BinaryArray created_at{ElementType::int8};
    BinaryArray head{ElementType::text};
    BinaryArray data{ElementType::bytea};
    for (const auto& [thread, row] : journal) {
        key.add_int8(thread);
        seq.add_int8(row->seq);
        parent.add_int8(row->parent);
        base.add_int8(row->base);
        checkpoint.add(row->checkpoint_id);
        run.add(row->run_id);
        step.add_int4(row->step);
        created_at.add_int8(row->created_at_us);
        head.add_bytes(row->head);
        data.add_bytes(row->data);
    }
    for (auto* array :
         {&key, &seq, &parent, &base, &checkpoint, &run, &step, &created_at, &head, &data}) {
        parameters.add(std::move(*array));
    }
}

void add_new_runs(Parameters& parameters, WriteParts parts, const std::vector<PlannedRun>& runs) {
    BinaryArray key{ElementType::int8};
    BinaryArray id{ElementType::uuid};
    BinaryArray assistant{ElementType::uuid};
    BinaryArray status{ElementType::int2};
    BinaryArray attempt{ElementType::int4};
    BinaryArray created_at{ElementType::int8};
    BinaryArray updated_at{ElementType::int8};
    BinaryArray strategy{ElementType::text};
    BinaryArray hash{ElementType::bytea};
    BinaryArray error{ElementType::text};
    BinaryArray metadata{ElementType::text};
    BinaryArray kwargs{ElementType::text};
    for (const auto& run : runs) {
        key.add_int8(run.key);
        id.add(run.row->id);
        assistant.add(run.row->assistant_id);
        status.add_int2(static_cast<std::int16_t>(run.status));
        attempt.add_int4(run.attempt);
        created_at.add_int8(run.row->created_at_us);
        updated_at.add_int8(run.row->updated_at_us);
        strategy.add_bytes(run.row->multitask_strategy);
        hash.add_bytes(run.row->request_hash);
        error.add_bytes(*run.error);
        metadata.add_bytes(run.row->metadata);
        kwargs.add_bytes(run.row->kwargs);
    }
    put(parameters, parts,
        {&key, &id, &assistant, &status, &attempt, &created_at, &updated_at, &strategy, &hash,
         &error, &metadata, &kwargs});
}

void add_run_updates(Parameters& parameters,
                     WriteParts parts,
                     const std::vector<PlannedUpdate>& updates) {
    BinaryArray key{ElementType::int8};
    BinaryArray id{ElementType::uuid};
    BinaryArray status{ElementType::int2};
    BinaryArray attempt{ElementType::int4};
    BinaryArray error{ElementType::text};
    for (const auto& [thread, update] : updates) {
        key.add_int8(thread);
        id.add(update->id);
        status.add_int2(static_cast<std::int16_t>(update->status));
        attempt.add_int4(update->attempt);
        error.add_bytes(update->error);
    }
    put(parameters, parts, {&key, &id, &status, &attempt, &error});
}

void add_deleted_runs(Parameters& parameters,
                      WriteParts parts,
                      const std::vector<PlannedDelete>& deleted) {
    BinaryArray key{ElementType::int8};
    BinaryArray id{ElementType::uuid};
    for (const auto& [thread, run] : deleted) {
        key.add_int8(thread);
        id.add(run);
    }
    put(parameters, parts, {&key, &id});
}

void add_tool_calls(Parameters& parameters, const BatchPlan& plan) {
    BinaryArray key{ElementType::int8};
    BinaryArray seq{ElementType::int8};
    BinaryArray task{ElementType::uuid};
    BinaryArray number{ElementType::int4};
    BinaryArray run{ElementType::uuid};
    BinaryArray answer{ElementType::bytea};
    for (const auto& [thread, row] : plan.tool_calls) {
        key.add_int8(thread);
        seq.add_int8(row->seq);
        task.add(row->task_id);
        number.add_int4(row->number);
        run.add(row->run_id);
        answer.add_bytes(row->answer);
    }
    BinaryArray done_key{ElementType::int8};
    BinaryArray done_seq{ElementType::int8};
    for (const auto& done : plan.tool_calls_done) {
        done_key.add_int8(done.key);
        done_seq.add_int8(done.seq);
    }
    for (auto* array : {&key, &seq, &task, &number, &run, &answer, &done_key, &done_seq}) {
        parameters.add(std::move(*array));
    }
}

WriteParts parts_of(const BatchPlan& plan, const std::vector<MergedThread>& created) {
    WriteParts parts;
    const auto add = [&parts](WritePart part, std::size_t rows) {
        if (rows > 0) {
            parts.add(part);
        }
    };
    add(WritePart::threads, plan.threads.size());
    add(WritePart::new_threads, created.size());
    add(WritePart::journal, plan.journal.size());
    add(WritePart::new_runs, plan.new_runs.size());
    add(WritePart::run_updates, plan.run_updates.size());
    add(WritePart::deleted_runs, plan.deleted_runs.size());
    add(WritePart::tool_calls, plan.tool_calls.size() + plan.tool_calls_done.size());
    if (plan.threads.size() + created.size() == 1 && plan.new_runs.size() <= 1 &&
        plan.run_updates.size() <= 1 && plan.deleted_runs.size() <= 1 &&
        plan.journal.size() <= kFewRows) {
        parts.add(WritePart::one_thread);
    }
    return parts;
}

}  // namespace

BoundStatement write_statement(std::span<WriteOperation* const> writes, std::int64_t number) {
    std::vector<const ThreadWrite*> pointers;
    pointers.reserve(writes.size());
    for (const auto* operation : writes) {
        pointers.push_back(&operation->write);
    }
    auto plan = plan_batch(pointers);
    const auto claims = new_threads(writes);
    const auto made = std::stable_partition(
        plan.threads.begin(), plan.threads.end(),
        [&claims](const MergedThread& thread) { return !claims.contains(thread.key); });
    std::vector<MergedThread> created{made, plan.threads.end()};
    plan.threads.erase(made, plan.threads.end());
    Parameters parameters;
    parameters.add(writes.front()->engine).add(base::unix_microseconds()).add(number);
    const auto parts = parts_of(plan, created);
    if (parts.has(WritePart::threads)) {
        add_threads(parameters, parts, plan.threads);
    }
    if (parts.has(WritePart::new_threads)) {
        add_new_threads(parameters, parts, std::move(created), claims);
    }
    if (parts.has(WritePart::journal)) {
        add_journal(parameters, plan.journal);
    }
    if (parts.has(WritePart::new_runs)) {
        add_new_runs(parameters, parts, plan.new_runs);
    }
    if (parts.has(WritePart::run_updates)) {
        add_run_updates(parameters, parts, plan.run_updates);
    }
    if (parts.has(WritePart::deleted_runs)) {
        add_deleted_runs(parameters, parts, plan.deleted_runs);
    }
    if (parts.has(WritePart::tool_calls)) {
        add_tool_calls(parameters, plan);
    }
    return {write_statement_of(parts), std::move(parameters)};
}

}  // namespace heddle::storage::postgres
