#include "engine/storage/postgres/rows.hpp"

#include <memory>
#include <new>

#include <libpq-fe.h>

namespace heddle::storage::postgres {
namespace {

struct Free {
    void operator()(unsigned char* memory) const noexcept { PQfreemem(memory); }
};

// Of a server whose bytea_output is the old one.
std::string unescape(std::string_view text) {
    std::size_t size = 0;
    const std::string terminated{text};
    const std::unique_ptr<unsigned char, Free> bytes{
        PQunescapeBytea(reinterpret_cast<const unsigned char*>(terminated.c_str()), &size)};
    if (bytes == nullptr) {
        throw std::bad_alloc{};
    }
    return {reinterpret_cast<const char*>(bytes.get()), size};
}

}  // namespace

base::Uuid read_uuid(const Field& field) {
    if (field.is_null()) {
        return {};
    }
    return base::Uuid::parse(field.text()).value_or(base::Uuid{});
}

std::string read_text(const Field& field) {
    return std::string{field.text()};
}

// The server writes `\\x` and two hex digits a byte. libpq's own conversion takes several times as
// long, which counts where a thread's whole journal is read.
std::string read_bytea(const Field& field) {
    const auto text = field.text();
    if (text.size() % 2 != 0 || text.substr(0, 2) != "\\x") {
        return unescape(text);
    }
    const auto nibble = [](char digit) {
        return static_cast<unsigned>(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
    };
    std::string bytes(text.size() / 2 - 1, '\0');
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<char>((nibble(text[2 * i + 2]) << 4U) | nibble(text[2 * i + 3]));
    }
    return bytes;
}

ThreadRow read_thread(const Row& row, int first) {
    ThreadRow thread;
    thread.key = row[first].as<ThreadKey>();
    thread.id = ThreadId{read_uuid(row[first + 1])};
    thread.status = static_cast<ThreadStatus>(row[first + 2].as<int>());
    thread.head = row[first + 3].as<Seq>();
    thread.created_at_us = row[first + 4].as<std::int64_t>();
    thread.updated_at_us = row[first + 5].as<std::int64_t>();
    thread.metadata = read_text(row[first + 6]);
    thread.interrupts = read_text(row[first + 7]);
    thread.first = row[first + 8].as<Seq>();
    if (!row[first + 9].is_null()) {
        thread.ttl = ThreadTtl{static_cast<TtlStrategy>(row[first + 10].as<int>()),
                               std::chrono::microseconds{row[first + 9].as<std::int64_t>()}};
        thread.expires_at_us = row[first + 11].as<std::int64_t>(0);
    }
    return thread;
}

JournalRow read_journal(const Row& row, int first) {
    JournalRow step;
    step.seq = row[first].as<Seq>();
    step.parent = row[first + 1].as<Seq>();
    step.base = row[first + 2].as<Seq>();
    step.checkpoint_id = CheckpointId{read_uuid(row[first + 3])};
    step.run_id = RunId{read_uuid(row[first + 4])};
    step.step = row[first + 5].as<std::int32_t>();
    step.created_at_us = row[first + 6].as<std::int64_t>();
    step.head = read_text(row[first + 7]);
    return step;
}

ToolCallRow read_tool_call(const Row& row) {
    ToolCallRow call;
    call.seq = row[0].as<Seq>();
    call.task_id = read_uuid(row[1]);
    call.number = row[2].as<std::int32_t>();
    call.run_id = RunId{read_uuid(row[3])};
    call.answer = read_bytea(row[4]);
    return call;
}

RunRow read_run(const Row& row, const ThreadId& thread, int first) {
    RunRow run;
    run.thread_id = thread;
    run.id = RunId{read_uuid(row[first])};
    run.assistant_id = base::AssistantId{read_uuid(row[first + 1])};
    run.status = static_cast<RunStatus>(row[first + 2].as<int>());
    run.attempt = row[first + 3].as<std::int32_t>();
    run.created_at_us = row[first + 4].as<std::int64_t>();
    run.updated_at_us = row[first + 5].as<std::int64_t>();
    run.multitask_strategy = read_text(row[first + 6]);
    run.request_hash = read_bytea(row[first + 7]);
    run.error = read_text(row[first + 8]);
    run.metadata = read_text(row[first + 9]);
    run.kwargs = read_text(row[first + 10]);
    return run;
}

}  // namespace heddle::storage::postgres
