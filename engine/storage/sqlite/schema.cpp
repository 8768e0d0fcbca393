#include "engine/storage/sqlite/schema.hpp"

#include <array>

namespace heddle::storage::sqlite {
namespace {

// Journal rows are appended in the order in which they come and found by a small index: the active
// threads then share the pages that a commit writes, instead of dirtying one page each (ADR 0006).
// Statuses are stored as the index of the enumerator, uuids as 16 bytes, times as microseconds.
constexpr const char* kVersion1 = R"sql(
CREATE TABLE engines (
    engine_id BLOB PRIMARY KEY,
    endpoint TEXT NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    draining INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE threads (
    thread_key INTEGER PRIMARY KEY AUTOINCREMENT,
    thread_id BLOB NOT NULL UNIQUE,
    owner BLOB,
    epoch INTEGER NOT NULL,
    status INTEGER NOT NULL,
    head_seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    interrupts TEXT NOT NULL
);
CREATE INDEX threads_created_at ON threads (created_at);
CREATE TABLE journal (
    thread_key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    base INTEGER NOT NULL,
    checkpoint_id BLOB NOT NULL,
    run_id BLOB NOT NULL,
    step INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    head TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX journal_key ON journal (thread_key, seq);
CREATE TABLE runs (
    thread_key INTEGER NOT NULL,
    run_id BLOB NOT NULL UNIQUE,
    assistant_id BLOB NOT NULL,
    status INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    multitask_strategy TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    error TEXT NOT NULL,
    metadata TEXT NOT NULL,
    kwargs TEXT NOT NULL
);
CREATE INDEX runs_of_thread ON runs (thread_key, created_at);
CREATE INDEX runs_open ON runs (thread_key) WHERE status < 2;
)sql";

// Retention: when threads expire, where their journals begin, whose an Idempotency-Key is.
constexpr const char* kRetention = R"sql(
ALTER TABLE threads ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE threads ADD COLUMN ttl INTEGER;
ALTER TABLE threads ADD COLUMN ttl_strategy INTEGER;
ALTER TABLE threads ADD COLUMN expires_at INTEGER;
CREATE INDEX threads_expires_at ON threads (expires_at) WHERE expires_at IS NOT NULL;
DROP INDEX threads_created_at;
CREATE INDEX threads_created_at ON threads (created_at) WHERE ttl_strategy IS NOT 2;
CREATE TABLE idempotency_keys (
    key BLOB PRIMARY KEY,
    expires_at INTEGER NOT NULL,
    thread_id BLOB NOT NULL,
    run_id BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
)sql";

// Calls of tools, from before they are made until their superstep is over (ADR 0011).
constexpr const char* kToolCalls = R"sql(
CREATE TABLE tool_calls (
    thread_key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    task_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    run_id BLOB NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (thread_key, seq, task_id, number)
) WITHOUT ROWID;
)sql";

// The text at index N brings a file from version N to N + 1.
constexpr std::array<const char*, 3> kMigrations{kVersion1, kRetention, kToolCalls};

std::int64_t version_of(Connection& connection) {
    Query query{connection, std::string{"PRAGMA user_version"}};
    return query.step() ? query.integer(0) : 0;
}

void migrate(Connection& connection) {
    const auto newest = static_cast<std::int64_t>(kMigrations.size());
    const auto version = version_of(connection);
    if (version > newest) {
        throw SqliteError{SQLITE_NOTADB, "the file was written by a newer version of Heddle"};
    }
    if (version == newest) {
        return;
    }
    connection.execute("BEGIN IMMEDIATE");
    for (auto at = version_of(connection); at < newest; ++at) {
        connection.execute(kMigrations[static_cast<std::size_t>(at)]);
    }
    connection.execute(("PRAGMA user_version = " + std::to_string(newest)).c_str());
    connection.execute("COMMIT");
}

}  // namespace

std::unique_ptr<Connection> open_writer(const std::string& path, base::Duration wait_max) {
    auto connection = Connection::open(path);
    connection->set_busy_timeout(wait_max);
    // The page size counts only before the first table; 4000 pages let the log grow to 32 MB, so
    // that a checkpoint's own fsyncs are spread over many commits.
    connection->execute(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;"
        "PRAGMA journal_size_limit = 67108864");
    migrate(*connection);
    return connection;
}

std::unique_ptr<Connection> open_reader(const std::string& path, base::Duration wait_max) {
    auto connection = Connection::open(path);
    connection->set_busy_timeout(wait_max);
    connection->execute(
        "PRAGMA query_only = ON; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY");
    return connection;
}

}  // namespace heddle::storage::sqlite
