#pragma once

#include "engine/storage/sqlite/connection.hpp"
#include "engine/storage/store.hpp"

/// Column lists and how their rows are read; shared by writer and readers.
namespace heddle::storage::sqlite {

#define HEDDLE_SQLITE_THREAD_COLUMNS                                                          \
    "thread_key, thread_id, status, head_seq, created_at, updated_at, metadata, interrupts, " \
    "first_seq, ttl, ttl_strategy, expires_at"
#define HEDDLE_SQLITE_JOURNAL_COLUMNS \
    "seq, parent, base, checkpoint_id, run_id, step, created_at, head"
#define HEDDLE_SQLITE_RUN_COLUMNS                                                         \
    "run_id, assistant_id, status, attempt, created_at, updated_at, multitask_strategy, " \
    "request_hash, error, metadata, kwargs"
inline constexpr int kThreadColumns = 12;
inline constexpr int kJournalColumns = 8;
inline constexpr int kRunColumns = 11;

/// Each reads the columns above, beginning with the first column of the row.
ThreadRow read_thread(const Query& query);
JournalRow read_journal(const Query& query);
RunRow read_run(const Query& query, const ThreadId& thread);

}  // namespace heddle::storage::sqlite
