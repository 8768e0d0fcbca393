#include <chrono>
#include <random>
#include <thread>

#include <libpq-fe.h>
#include <signal.h>

#include "engine/storage/postgres/postgres_store.hpp"
#include "tests/conformance/fixture.hpp"
#include "tests/conformance/other_process.hpp"
#include "tests/conformance/postgres_cluster.hpp"

/// An engine that is stopped in the middle of a batch must not keep its threads from the others.
namespace heddle::conformance {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// A session that has sent part of what a batch is and then goes no further: what the server sees
/// of an engine that was stopped there.
class StuckSession {
public:
    explicit StuckSession(const std::string& url) : session_{PQconnectdb(url.c_str())} {
        EXPECT_EQ(PQstatus(session_), CONNECTION_OK) << PQerrorMessage(session_);
    }
    ~StuckSession() { PQfinish(session_); }
    StuckSession(const StuckSession&) = delete;
    StuckSession& operator=(const StuckSession&) = delete;

    /// A transaction of several statements that is not ended.
    void begin(const std::string& sql) {
        PQclear(PQexec(session_, "BEGIN"));
        auto* result = PQexec(session_, sql.c_str());
        EXPECT_EQ(PQresultStatus(result), PGRES_COMMAND_OK) << PQerrorMessage(session_);
        PQclear(result);
    }
    /// One statement as the driver sends it, but for the last five bytes: the Sync that commits.
    void execute_without_sync(const std::string& sql) {
        EXPECT_EQ(PQenterPipelineMode(session_), 1);
        EXPECT_EQ(
            PQsendQueryParams(session_, sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0), 1);
        EXPECT_EQ(PQsendFlushRequest(session_), 1);
        EXPECT_EQ(PQflush(session_), 0);
        auto* result = PQgetResult(session_);  // so it has been carried out
        EXPECT_EQ(PQresultStatus(result), PGRES_COMMAND_OK) << PQerrorMessage(session_);
        PQclear(result);
    }

private:
    PGconn* session_;
};

class PostgresStopped : public testing::Test {
protected:
    void SetUp() override { limits_.lease = milliseconds{500}; }

    std::unique_ptr<Engine> open_engine() {
        auto store = storage::open_postgres_store(url_, limits_, metrics_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            std::abort();
        }
        return std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
    }
    [[nodiscard]] std::string database() const { return database_of(url_); }
    void wait_for_lease() const { cluster_.run_sql("postgres", "SELECT pg_sleep(0.51)"); }
    /// Claims the thread of an owner whose lease has passed, and writes to it.
    void take_over(Engine& engine, const base::ThreadId& thread) const {
        const auto begun = steady_clock::now();
        const auto outcome = engine.try_claim(thread, false);
        const auto took = steady_clock::now() - begun;
        ASSERT_TRUE(outcome) << outcome.error().message;
        ASSERT_EQ(outcome->kind, ClaimOutcome::Kind::claimed);
        EXPECT_LT(took, std::chrono::seconds{8}) << "a lock is waited for no longer than 250 ms";
        auto write = make_write(*outcome);
        write.journal = {make_row(outcome->thread.head + 1, 0)};
        const auto status = engine.write(std::move(write));
        EXPECT_TRUE(status) << status.error().message;
    }
    static std::string update_of(const base::ThreadId& thread) {
        return "UPDATE heddle.threads SET status = 1 WHERE thread_id = '" +
               thread.uuid.to_string() + "'";
    }

    PostgresCluster& cluster_ = PostgresCluster::instance();
    std::string url_ = cluster_.create_database();
    observe::Metrics metrics_;
    storage::StoreLimits limits_;
};

TEST_F(PostgresStopped, ABatchWhoseCommitWasNeverSentIsEnded) {
    auto dead = open_engine();
    const auto thread = dead->claim(new_thread_id()).thread.id;
    dead.reset();
    StuckSession stuck{url_};
    stuck.execute_without_sync(update_of(thread));
    wait_for_lease();
    auto engine = open_engine();
    take_over(*engine, thread);
}

TEST_F(PostgresStopped, AnOpenTransactionIsEnded) {
    auto dead = open_engine();
    const auto thread = dead->claim(new_thread_id()).thread.id;
    dead.reset();
    StuckSession stuck{url_};
    stuck.begin(update_of(thread));
    wait_for_lease();
    auto engine = open_engine();
    take_over(*engine, thread);
}

TEST_F(PostgresStopped, ItsThreadsAreFoundAsOrphans) {
    auto dead = open_engine();
    const auto claimed = dead->claim(new_thread_id());
    auto write = make_write(claimed);
    write.new_runs = {make_run(claimed.thread.id)};
    ASSERT_TRUE(dead->write(std::move(write)));
    dead.reset();
    StuckSession stuck{url_};
    stuck.execute_without_sync(update_of(claimed.thread.id));
    wait_for_lease();
    auto engine = open_engine();
    const auto begun = steady_clock::now();
    while (engine->orphans().empty()) {
        ASSERT_LT(steady_clock::now() - begun, std::chrono::seconds{30}) << "it stays locked";
    }
}

TEST_F(PostgresStopped, ASlowStatementThatWaitsForNoClientIsLeftAlone) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    std::thread slow{[&] {
        cluster_.run_sql(database(), update_of(claimed.thread.id) + "; SELECT pg_sleep(1)");
    }};
    const auto is_locked = [&] {
        return cluster_.run_sql(database(),
                                "SELECT count(*) FROM (SELECT 1 FROM heddle.threads "
                                "FOR UPDATE SKIP LOCKED) t") == "0";
    };
    const auto until = steady_clock::now() + std::chrono::seconds{10};
    while (!is_locked() && steady_clock::now() < until) {
    }
    EXPECT_TRUE(engine->orphans().empty());
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    const auto status = engine->write(std::move(write));
    EXPECT_TRUE(status) << status.error().message;
    slow.join();
    EXPECT_EQ(cluster_.run_sql(database(), "SELECT status FROM heddle.threads"), "1");
}

TEST_F(PostgresStopped, AStoppedEngineIsReplacedAndGoesOnWithOtherThreads) {
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random{seed};
    auto engine = open_engine();
    for (int trial = 0; trial < 6 && !HasFailure(); ++trial) {
        OtherProcess other{"postgres", url_};
        ASSERT_TRUE(other.wait_until_ready());
        cluster_.run_sql("postgres",
                         "SELECT pg_sleep(" + std::to_string(random() % 20) + " / 1000.0)");
        other.send(SIGSTOP);
        const auto thread = base::Uuid::parse(
            cluster_.run_sql(database(),
                             "SELECT thread_id FROM heddle.threads t JOIN heddle.engines e "
                             "ON e.engine_id = t.owner WHERE e.endpoint = 'ipc:///other' "
                             "ORDER BY t.created_at DESC LIMIT 1"));
        ASSERT_TRUE(thread);
        wait_for_lease();
        take_over(*engine, base::ThreadId{*thread});
        other.send(SIGCONT);
        EXPECT_EQ(other.next_letter(), 's') << "its next write must be refused as stale";
        EXPECT_EQ(other.next_letter(), 'w') << "another thread of it must go on";
    }
}

}  // namespace
}  // namespace heddle::conformance
