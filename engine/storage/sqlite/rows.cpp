#include "engine/storage/sqlite/rows.hpp"

namespace heddle::storage::sqlite {

ThreadRow read_thread(const Query& query) {
    ThreadRow row;
    row.key = query.integer(0);
    row.id = ThreadId{query.uuid(1)};
    row.status = static_cast<ThreadStatus>(query.integer(2));
    row.head = query.integer(3);
    row.created_at_us = query.integer(4);
    row.updated_at_us = query.integer(5);
    row.metadata = query.text(6);
    row.interrupts = query.text(7);
    row.first = query.integer(8);
    if (!query.is_null(9)) {
        row.ttl = ThreadTtl{static_cast<TtlStrategy>(query.integer(10)),
                            std::chrono::microseconds{query.integer(9)}};
        row.expires_at_us = query.integer(11);  // 0 of NULL
    }
    return row;
}

JournalRow read_journal(const Query& query) {
    JournalRow row;
    row.seq = query.integer(0);
    row.parent = query.integer(1);
    row.base = query.integer(2);
    row.checkpoint_id = CheckpointId{query.uuid(3)};
    row.run_id = RunId{query.uuid(4)};
    row.step = static_cast<std::int32_t>(query.integer(5));
    row.created_at_us = query.integer(6);
    row.head = query.text(7);
    return row;
}

RunRow read_run(const Query& query, const ThreadId& thread) {
    RunRow row;
    row.thread_id = thread;
    row.id = RunId{query.uuid(0)};
    row.assistant_id = base::AssistantId{query.uuid(1)};
    row.status = static_cast<RunStatus>(query.integer(2));
    row.attempt = static_cast<std::int32_t>(query.integer(3));
    row.created_at_us = query.integer(4);
    row.updated_at_us = query.integer(5);
    row.multitask_strategy = query.text(6);
    row.request_hash = query.text(7);
    row.error = query.text(8);
    row.metadata = query.text(9);
    row.kwargs = query.text(10);
    return row;
}

}  // namespace heddle::storage::sqlite
