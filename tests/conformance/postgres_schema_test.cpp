#include <sstream>

#include <fmt/format.h>

#include "engine/storage/postgres/postgres_store.hpp"
#include "engine/storage/postgres/write_statements.hpp"
#include "tests/conformance/fixture.hpp"
#include "tests/conformance/postgres_cluster.hpp"

/// That the schema can be partitioned and distributed by thread: what the server's catalog says of
/// its keys, and the server's own judgement of the same tables as partitioned ones.
namespace heddle::conformance {
namespace {

std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> all;
    std::istringstream in{text};
    for (std::string line; std::getline(in, line);) {
        all.push_back(line);
    }
    return all;
}

class PostgresSchema : public testing::Test {
protected:
    void SetUp() override {
        url_ = PostgresCluster::instance().create_database();
        open_engine().reset();
    }
    [[nodiscard]] std::unique_ptr<Engine> open_engine() {
        auto store = storage::open_postgres_store(url_, {}, metrics_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            std::abort();
        }
        return std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
    }
    [[nodiscard]] std::string sql(const std::string& statement) const {
        return PostgresCluster::instance().run_sql(database_of(url_), statement);
    }

    observe::Metrics metrics_;
    std::string url_;
};

TEST_F(PostgresSchema, ThreadsFromBeforeRetentionAreReadAsTheyWere) {
    const auto thread = new_thread_id();
    {
        auto engine = open_engine();
        auto write = make_write(engine->claim(thread));
        write.journal = {make_row(0), make_row(1)};
        ASSERT_TRUE(engine->write(std::move(write)));
    }
    (void)sql(
        "DROP TABLE heddle.idempotency_keys; DROP TABLE heddle.tool_calls; DROP INDEX "
        "heddle.threads_created_at;"
        "ALTER TABLE heddle.threads DROP first_seq, DROP ttl, DROP ttl_strategy, DROP expires_at;"
        "CREATE INDEX threads_created_at ON heddle.threads (created_at);"
        "UPDATE heddle.schema_version SET version = 2");
    auto engine = open_engine();
    const auto row = engine->thread(thread);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->first, 0);
    EXPECT_EQ(row->ttl, std::nullopt);
    EXPECT_EQ(seqs(*engine->chain(thread)), (std::vector<storage::Seq>{0, 1}));
    EXPECT_EQ(engine->search({})->size(), 1U);
}

TEST_F(PostgresSchema, TheServerUnderstandsAWriteOfEverySetOfParts) {
    using storage::postgres::WritePart;
    using storage::postgres::WriteParts;
    constexpr int kAtOnce = 16;  // one command line has room for these
    std::string text;
    int statements = 0;
    for (unsigned bits = 1; bits < WriteParts::kSets; ++bits) {
        const WriteParts parts{static_cast<std::uint8_t>(bits)};
        if (!parts.has(WritePart::threads) && !parts.has(WritePart::new_threads)) {
            continue;
        }
        const auto& statement = storage::postgres::write_statement_of(parts);
        text += fmt::format("PREPARE {} AS {};", statement.name, statement.sql);
        if (++statements % kAtOnce == 0) {
            EXPECT_EQ(sql(text + "SELECT count(*) FROM pg_prepared_statements"),
                      std::to_string(kAtOnce));
            text.clear();
        }
    }
    EXPECT_EQ(statements, 192);
}

// The tables that have rows of threads, and their unique indexes: "table index column,column".
constexpr const char* kUniqueIndexes =
    "SELECT c.relname || ' ' || i.relname || ' ' || (SELECT string_agg(a.attname, ',' ORDER BY "
    "k.ordinality) FROM unnest(x.indkey) WITH ORDINALITY k JOIN pg_attribute a "
    "ON a.attrelid = c.oid AND a.attnum = k.k) FROM pg_index x JOIN pg_class i ON i.oid = "
    "x.indexrelid JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = 'heddle' AND x.indisunique AND EXISTS (SELECT 1 "
    "FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'thread_key') ORDER BY 1";

TEST_F(PostgresSchema, EveryKeyOfAThreadsRowsBeginsWithTheThread) {
    // Justified in ADR 0008.
    const std::vector<std::string> exceptions{"runs runs_run_id run_id",
                                              "threads threads_thread_id_key thread_id"};
    std::vector<std::string> others;
    const auto found = lines(sql(kUniqueIndexes));
    for (const auto& line : found) {
        const auto columns = line.substr(line.rfind(' ') + 1);
        if (columns != "thread_key" && !columns.starts_with("thread_key,")) {
            others.push_back(line);
        }
    }
    EXPECT_EQ(others, exceptions);
    EXPECT_GE(found.size(), 5U) << "the catalog was read";
    // A table that nobody thought of: every one has rows of threads, or is known not to.
    EXPECT_EQ(
        sql("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class c WHERE "
            "relnamespace = 'heddle'::regnamespace AND relkind = 'r' AND NOT EXISTS (SELECT 1 "
            "FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'thread_key')"),
        "engines idempotency_keys schema_version");
}

TEST_F(PostgresSchema, TheSameTablesCanBePartitionedByHashOfTheThread) {
    // Every table with thread_key but `threads` itself, each index as it is; those that the server
    // refuses are listed. A refusal rolls back to its own savepoint (the inner block).
    const auto refused = sql(R"sql(
CREATE SCHEMA spread;
CREATE TABLE spread.refused (name text);
DO $do$
DECLARE each record; part int;
BEGIN
    FOR each IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'heddle'::regnamespace
        AND c.relkind = 'r' AND c.relname <> 'threads' AND EXISTS (SELECT 1 FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attname = 'thread_key')
    LOOP
        EXECUTE format('CREATE TABLE spread.%1$I (LIKE heddle.%1$I INCLUDING ALL '
                       'EXCLUDING INDEXES) PARTITION BY HASH (thread_key)', each.relname);
        FOR part IN 0..3 LOOP
            EXECUTE format('CREATE TABLE spread.%1$s_%2$s PARTITION OF spread.%1$I '
                           'FOR VALUES WITH (MODULUS 4, REMAINDER %2$s)', each.relname, part);
        END LOOP;
    END LOOP;
    FOR each IN SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'heddle'
        AND EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = 'spread'::regnamespace
        AND c.relname = tablename)
    LOOP
        BEGIN
            EXECUTE replace(each.indexdef, ' ON heddle.', ' ON spread.');
        EXCEPTION WHEN feature_not_supported OR invalid_table_definition THEN
            INSERT INTO spread.refused VALUES (each.indexname);
        END;
    END LOOP;
END $do$;
SELECT string_agg(name, ' ' ORDER BY name) FROM spread.refused)sql");
    EXPECT_EQ(lines(refused).back(), "runs_run_id") << "as an index that is not unique it may stay";
    EXPECT_EQ(lines(sql("CREATE INDEX ON spread.runs (run_id);"
                        "INSERT INTO spread.journal SELECT key, seq, seq - 1, 0, 0, "
                        "gen_random_uuid(), gen_random_uuid(), 0, '{}', '' "
                        "FROM generate_series(1, 1000) key, generate_series(0, 3) seq;"
                        "SELECT count(DISTINCT tableoid) FROM spread.journal"))
                  .back(),
              "4");
    // The statements that load a thread touch one partition.
    const auto plan =
        sql("EXPLAIN (COSTS OFF) SELECT * FROM spread.journal WHERE thread_key = 7 "
            "AND seq BETWEEN 0 AND 3");
    EXPECT_EQ(plan.find("Append"), std::string::npos) << plan;
    // `threads` maps an id to its key: by hash it is partitioned by the id, with that as its key.
    EXPECT_EQ(lines(sql("CREATE TABLE spread.threads (LIKE heddle.threads INCLUDING ALL "
                        "EXCLUDING INDEXES, PRIMARY KEY (thread_id)) PARTITION BY HASH (thread_id);"
                        "CREATE TABLE spread.threads_0 PARTITION OF spread.threads "
                        "FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
                        "CREATE INDEX ON spread.threads (thread_key);"
                        "SELECT count(*) FROM spread.threads"))
                  .back(),
              "0");
}

}  // namespace
}  // namespace heddle::conformance
