#include "engine/storage/postgres/migrations.hpp"

#include <array>
#include <chrono>

#include "engine/base/clock.hpp"
#include "engine/observe/log.hpp"

namespace heddle::storage::postgres {
namespace {

// Every key of a thread's rows begins with thread_key, so that the tables can be distributed by it.
// Statuses are the index of the enumerator, times microseconds. Room is left on the pages of rows
// that change, and no index names a column that changes with every step, so updates stay on their
// page and touch no index. Rows stay inline and uncompressed as long as a page holds them.
constexpr const char* kVersion1 = R"sql(
CREATE TABLE engines (
    engine_id uuid PRIMARY KEY,
    heartbeat_at bigint NOT NULL,
    draining boolean NOT NULL,
    endpoint text NOT NULL
) WITH (fillfactor = 50);

CREATE SEQUENCE thread_keys AS bigint INCREMENT BY 1024 MINVALUE 1;

CREATE TABLE threads (
    thread_key bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    head_seq bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    thread_id uuid NOT NULL UNIQUE,
    owner uuid,
    status smallint NOT NULL,
    metadata jsonb NOT NULL,
    interrupts text NOT NULL
) WITH (fillfactor = 70, toast_tuple_target = 4080);
CREATE INDEX threads_created_at ON threads (created_at);

CREATE TABLE journal (
    thread_key bigint NOT NULL,
    seq bigint NOT NULL,
    parent bigint NOT NULL,
    base bigint NOT NULL,
    created_at bigint NOT NULL,
    checkpoint_id uuid NOT NULL,
    run_id uuid NOT NULL,
    step integer NOT NULL,
    head text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (thread_key, seq)
) WITH (toast_tuple_target = 8160);

CREATE TABLE runs (
    thread_key bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    run_id uuid NOT NULL,
    assistant_id uuid NOT NULL,
    attempt integer NOT NULL,
    status smallint NOT NULL,
    is_open boolean NOT NULL,
    request_hash bytea NOT NULL,
    multitask_strategy text NOT NULL,
    error text NOT NULL,
    metadata text NOT NULL,
    kwargs text NOT NULL,
    PRIMARY KEY (thread_key, run_id)
) WITH (fillfactor = 70, toast_tuple_target = 4080);
CREATE UNIQUE INDEX runs_run_id ON runs (run_id);
CREATE INDEX runs_open ON runs (thread_key) WHERE is_open;
)sql";

// Which batch or claim changed the row last: tells what became of a lost one, and refuses one that
// comes too late (writer.cpp).
constexpr const char* kVersion2 = "ALTER TABLE threads ADD COLUMN batch bigint NOT NULL DEFAULT 0";

// Retention (ADR 0008): when threads expire, where their journals begin, whose an Idempotency-Key
// is. Of the indexes none is touched by a step: expires_at moves seldom. Temporary threads are not
// searched for and stay out of the index of searches.
constexpr const char* kRetention = R"sql(
ALTER TABLE threads
    ADD COLUMN first_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN ttl bigint,
    ADD COLUMN expires_at bigint,
    ADD COLUMN ttl_strategy smallint;
CREATE INDEX threads_expires_at ON threads (expires_at) WHERE expires_at IS NOT NULL;
DROP INDEX threads_created_at;
CREATE INDEX threads_created_at ON threads (created_at) WHERE ttl_strategy IS DISTINCT FROM 2;

CREATE TABLE idempotency_keys (
    expires_at bigint NOT NULL,
    thread_id uuid NOT NULL,
    run_id uuid NOT NULL,
    key bytea PRIMARY KEY
);
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);
)sql";

// Calls of tools, from before they are made until their superstep is over (ADR 0011). A row changes
// once, when its answer comes.
constexpr const char* kToolCalls = R"sql(
CREATE TABLE tool_calls (
    thread_key bigint NOT NULL,
    seq bigint NOT NULL,
    task_id uuid NOT NULL,
    run_id uuid NOT NULL,
    number integer NOT NULL,
    answer bytea NOT NULL,
    PRIMARY KEY (thread_key, seq, task_id, number)
) WITH (fillfactor = 50);
)sql";

// The text at index N brings the schema from version N to N + 1.
constexpr std::array<const char*, 4> kMigrations{kVersion1, kVersion2, kRetention, kToolCalls};
constexpr std::int64_t kLock = 0x48444c4d49475241;  // "HDLMIGRA"

// One transaction; the session is closed after it, however it ends.
class Migration {
public:
    Migration(Session& session, base::Instant deadline) : session_{session}, deadline_{deadline} {}

    base::Status run() {
        // An engine that is stopped here must not keep the others from starting.
        auto begun = execute(
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '2s';"
            "SELECT pg_advisory_xact_lock(" +
            std::to_string(kLock) +
            ");"
            "CREATE SCHEMA IF NOT EXISTS heddle; SET LOCAL search_path = heddle;"
            "CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)");
        auto read = begun ? execute("SELECT version FROM schema_version") : std::move(begun);
        if (!read) {
            return std::move(read).error();
        }
        const auto newest = kMigrations.size();
        const auto version = read->empty() ? 0U : (*read)[0][0].as<std::size_t>();
        if (version > newest) {
            return base::Error{base::ErrorCode::unavailable,
                               "the schema was made by a newer version of Heddle"};
        }
        for (auto at = version; at < newest; ++at) {
            if (auto made = execute(kMigrations[at]); !made) {
                return std::move(made).error();
            }
        }
        const auto keep = version == newest
                              ? std::string{"COMMIT"}
                              : "DELETE FROM schema_version; INSERT INTO schema_version VALUES (" +
                                    std::to_string(newest) + "); COMMIT";
        if (auto kept = execute(keep); !kept) {
            return std::move(kept).error();
        }
        return base::ok();
    }

private:
    base::Result<Rows> execute(const std::string& sql) {
        auto reply = session_.execute(sql, deadline_);
        if (!reply.is_done()) {
            return base::Error{base::ErrorCode::unavailable, reply.message};
        }
        return std::move(reply.rows);
    }

    Session& session_;
    base::Instant deadline_;
};

}  // namespace

base::Status migrate(const Endpoint& endpoint) try {
    const auto session = open_session(endpoint);
    const auto done =
        session ? Migration{**session, base::system_clock().now() + endpoint.wait_max}.run()
                : base::Status{session.error()};
    if (done) {
        return base::ok();
    }
    observe::log(observe::LogLevel::error, "postgres", "migration: {}", done.error().message);
    return base::Error{base::ErrorCode::unavailable, "the database cannot be reached or used"};
} catch (const std::exception& error) {
    observe::log(observe::LogLevel::error, "postgres", "migration: {}", error.what());
    return base::Error{base::ErrorCode::unavailable, "the database cannot be reached or used"};
}

}  // namespace heddle::storage::postgres
