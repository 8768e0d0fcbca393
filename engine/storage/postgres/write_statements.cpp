// What a batch of writes is executed with: one statement, one transaction, one round trip. Only
// threads in `ok` are changed.
#include "engine/storage/postgres/write_statements.hpp"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "engine/storage/postgres/statement_parts.hpp"

namespace heddle::storage::postgres {
namespace {

// In each part $1 is the engine, $2 the time, $3 the number of the batch, and the places "${}" are
// the part's own parameters, in order.
constexpr const char* kChangeThreads =
    "(UPDATE heddle.threads t SET updated_at = $2::int8, "
    "status = coalesce(i.status, t.status), "
    "metadata = coalesce(i.metadata::jsonb, t.metadata), "
    "interrupts = coalesce(i.interrupts, t.interrupts), "
    "head_seq = coalesce(i.head, t.head_seq), "
    "owner = CASE WHEN i.release THEN NULL ELSE t.owner END, batch = $3::int8, "
    // Moved on by a tenth of the time to live at least, or not at all: so it is seldom that a step
    // touches an index.
    "expires_at = CASE WHEN t.ttl IS NULL THEN NULL "
    "WHEN coalesce(t.expires_at, 0) < " HEDDLE_PG_BEGUN
    " + t.ttl - t.ttl / 10 "
    "THEN " HEDDLE_PG_BEGUN
    " + t.ttl ELSE t.expires_at END "
    "FROM unnest(${}::int8[], ${}::int8[], ${}::int2[], ${}::text[], ${}::text[], ${}::int8[], "
    "${}::bool[]) AS i (key, epoch, status, metadata, interrupts, head, release) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $3 RETURNING t.thread_key AS key)";

// One that exists already is left alone, whoever has it.
constexpr const char* kMakeThreads =
    "(INSERT INTO heddle.threads AS t (thread_key, thread_id, owner, epoch, status, head_seq, "
    "created_at, updated_at, batch, metadata, interrupts, ttl, ttl_strategy, expires_at) "
    "SELECT i.key, i.thread_id, CASE WHEN i.release THEN NULL ELSE $1::uuid END, 1, "
    "coalesce(i.status, 0), coalesce(i.head, -1), $2::int8, $2, $3::int8, i.metadata::jsonb, "
    "coalesce(i.interrupts, '{}'), i.ttl, i.strategy, " HEDDLE_PG_BEGUN
    " + i.ttl FROM unnest(${}::int8[], ${}::uuid[], ${}::int2[], ${}::text[], ${}::text[], "
    "${}::int8[], ${}::bool[], ${}::int8[], ${}::int2[]) "
    "AS i (key, thread_id, status, metadata, interrupts, head, release, ttl, strategy) "
    "ON CONFLICT (thread_id) DO NOTHING RETURNING t.thread_key AS key)";

constexpr const char* kInsertJournal =
    ", j AS (INSERT INTO heddle.journal (thread_key, seq, parent, base, checkpoint_id, run_id, "
    "step, created_at, head, data) SELECT * FROM unnest(${}::int8[], ${}::int8[], ${}::int8[], "
    "${}::int8[], ${}::uuid[], ${}::uuid[], ${}::int4[], ${}::int8[], ${}::text[], ${}::bytea[]) "
    "AS i (key, seq, parent, base, checkpoint_id, run_id, step, created_at, head, data) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") ")";
constexpr const char* kInsertRuns =
    ", r AS (INSERT INTO heddle.runs (thread_key, run_id, assistant_id, status, is_open, attempt, "
    "created_at, updated_at, multitask_strategy, request_hash, error, metadata, kwargs) "
    "SELECT key, run_id, assistant_id, status, status < 2, attempt, created_at, updated_at, "
    "strategy, hash, error, metadata, kwargs FROM unnest(${}::int8[], ${}::uuid[], ${}::uuid[], "
    "${}::int2[], ${}::int4[], ${}::int8[], ${}::int8[], ${}::text[], ${}::bytea[], ${}::text[], "
    "${}::text[], ${}::text[]) AS i (key, run_id, assistant_id, status, attempt, created_at, "
    "updated_at, strategy, hash, error, metadata, kwargs) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") ")";
constexpr const char* kUpdateRuns =
    ", u AS (UPDATE heddle.runs r SET status = i.status, is_open = i.status < 2, "
    "attempt = i.attempt, error = i.error, updated_at = $2 "
    "FROM unnest(${}::int8[], ${}::uuid[], ${}::int2[], ${}::int4[], ${}::text[]) "
    "AS i (key, run_id, status, attempt, error) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ")";
constexpr const char* kDeleteRuns =
    ", d AS (DELETE FROM heddle.runs r USING unnest(${}::int8[], ${}::uuid[]) AS i (key, run_id) "
    "WHERE r.thread_key = i.key AND r.run_id = i.run_id AND " HEDDLE_PG_IN_OK("i.key") ")";

// What one part puts and the other takes away are never the same rows (batch_plan.hpp).
constexpr const char* kChangeToolCalls =
    ", c AS (INSERT INTO heddle.tool_calls AS t (thread_key, seq, task_id, number, run_id, answer) "
    "SELECT * FROM unnest(${}::int8[], ${}::int8[], ${}::uuid[], ${}::int4[], ${}::uuid[], "
    "${}::bytea[]) AS i (key, seq, task_id, number, run_id, answer) "
    "WHERE " HEDDLE_PG_IN_OK("i.key") " ON CONFLICT (thread_key, seq, task_id, number) "
    "DO UPDATE SET run_id = excluded.run_id, answer = excluded.answer), "

    "e AS (DELETE FROM heddle.tool_calls t USING unnest(${}::int8[], ${}::int8[]) AS i (key, seq) "
    "WHERE t.thread_key = i.key AND t.seq <= i.seq AND " HEDDLE_PG_IN_OK("i.key") ")";

struct RowsPart {
    WritePart part;
    const char* sql;
    bool is_of_runs;
};
constexpr std::array<RowsPart, 5> kRowsParts{{{WritePart::journal, kInsertJournal, false},
                                              {WritePart::new_runs, kInsertRuns, true},
                                              {WritePart::run_updates, kUpdateRuns, true},
                                              {WritePart::deleted_runs, kDeleteRuns, true},
                                              {WritePart::tool_calls, kChangeToolCalls, false}}};

void replace_all(std::string& text, std::string_view what, std::string_view with) {
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
        text.replace(at, what.size(), with);
        at += with.size();
    }
}

// Gives the places "${}" of a part their numbers.
std::string numbered(std::string part, int& next) {
    constexpr std::string_view kPlace = "${}";
    for (auto at = part.find(kPlace); at != std::string::npos; at = part.find(kPlace, at)) {
        part.replace(at, kPlace.size(), fmt::format("${}", next++));
    }
    return part;
}

// The one row as values: "unnest($4::int8[], ...)" becomes "(SELECT $4::int8, ...)".
std::string of_one_row(std::string part) {
    replace_all(part, "unnest(", "(SELECT ");
    replace_all(part, "[]", "");
    return part;
}

// Rows of arrays that are short, with one function that returns rows instead of one for each
// array: "SELECT * FROM unnest($4::int8[], ...) AS i (key, ...)" becomes "SELECT i.* FROM
// generate_subscripts($4::int8[], 1) AS n, LATERAL (SELECT ($4::int8[])[n], ...) AS i (key, ...)".
std::string of_few_rows(std::string part, int next) {
    constexpr std::string_view kAll = "SELECT * FROM unnest(";
    const auto at = part.find(kAll);
    auto rest = part.substr(at + kAll.size());
    replace_all(rest, "${}", "(${}");
    replace_all(rest, "[]", "[])[n]");
    return part.substr(0, at) +
           fmt::format(
               "SELECT i.* FROM generate_subscripts(${}::int8[], 1) AS n, "
               "LATERAL (SELECT ",
               next) +
           rest;
}

// If there is only one thread, it is in `ok` or nothing is.
std::string of_one_thread(std::string part) {
    replace_all(part, HEDDLE_PG_IN_OK("i.key"), "EXISTS (SELECT 1 FROM ok)");
    return part;
}

// @return the parts that say which threads are `ok`
std::string threads_sql(WriteParts parts, int& next) {
    const auto put = [&](const char* sql) {
        return numbered(parts.has(WritePart::one_thread) ? of_one_row(sql) : std::string{sql},
                        next);
    };
    if (!parts.has(WritePart::new_threads)) {
        return fmt::format("ok AS {}", put(kChangeThreads));
    }
    if (!parts.has(WritePart::threads)) {
        return fmt::format("ok AS {}", put(kMakeThreads));
    }
    const auto changed = put(kChangeThreads);
    return fmt::format(
        "changed AS {}, made AS {}, ok AS (SELECT key FROM changed UNION ALL SELECT key FROM made)",
        changed, put(kMakeThreads));
}

std::string write_sql(WriteParts parts) {
    int next = 4;
    std::string sql = "WITH " + threads_sql(parts, next);
    for (const auto& [part, text, is_of_runs] : kRowsParts) {
        if (!parts.has(part)) {
            continue;
        }
        std::string put = text;
        if (parts.has(WritePart::one_thread)) {
            put = of_one_thread(is_of_runs                   ? of_one_row(put)
                                : part == WritePart::journal ? of_few_rows(put, next)
                                                             : put);
        }
        sql += numbered(std::move(put), next);
    }
    return sql + " SELECT key FROM ok";
}

struct WriteStatement {
    std::string name;
    std::string sql;
    Statement statement{};
};

class WriteStatements {
public:
    WriteStatements() {
        for (std::size_t bits = 0; bits < all_.size(); ++bits) {
            auto& each = all_[bits];
            each.name = fmt::format("write_{}", bits);
            each.sql = write_sql(WriteParts{static_cast<std::uint8_t>(bits)});
            each.statement = {each.name.c_str(), each.sql.c_str()};
        }
    }
    [[nodiscard]] const Statement& at(WriteParts parts) const { return all_[parts.bits].statement; }

private:
    std::array<WriteStatement, WriteParts::kSets> all_;
};

}  // namespace

const Statement& write_statement_of(WriteParts parts) {
    static const WriteStatements statements;
    return statements.at(parts);
}

}  // namespace heddle::storage::postgres
