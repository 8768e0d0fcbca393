#pragma once

#include "engine/storage/postgres/session.hpp"
#include "engine/storage/store.hpp"

/// Column lists and how their rows are read. `t`, `j` and `r` are the aliases of the tables.
namespace heddle::storage::postgres {

#define HEDDLE_PG_THREAD                                                                        \
    "t.thread_key, t.thread_id, t.status, t.head_seq, t.created_at, t.updated_at, t.metadata, " \
    "t.interrupts, t.first_seq, t.ttl, t.ttl_strategy, t.expires_at"
// With `t` beside it: where older rows were pruned, the chains of the others begin at first_seq.
#define HEDDLE_PG_JOURNAL                                                                 \
    "j.seq, j.parent, greatest(j.base, t.first_seq), j.checkpoint_id, j.run_id, j.step, " \
    "j.created_at, j.head"
#define HEDDLE_PG_RUN                                                             \
    "r.run_id, r.assistant_id, r.status, r.attempt, r.created_at, r.updated_at, " \
    "r.multitask_strategy, r.request_hash, r.error, r.metadata, r.kwargs"
inline constexpr int kThreadColumns = 12;
inline constexpr int kJournalColumns = 8;
inline constexpr int kRunColumns = 11;

/// Each reads the columns above, which begin at `first`. They throw as Field::as().
ThreadRow read_thread(const Row& row, int first = 0);
JournalRow read_journal(const Row& row, int first = 0);
/// seq, task_id, number, run_id, answer
ToolCallRow read_tool_call(const Row& row);
RunRow read_run(const Row& row, const ThreadId& thread, int first = 0);
base::Uuid read_uuid(const Field& field);
std::string read_text(const Field& field);
std::string read_bytea(const Field& field);

}  // namespace heddle::storage::postgres
