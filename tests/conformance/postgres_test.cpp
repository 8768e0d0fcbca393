#include <atomic>
#include <random>
#include <thread>

#include "engine/storage/postgres/postgres_store.hpp"
#include "tests/conformance/fixture.hpp"
#include "tests/conformance/pgbouncer.hpp"
#include "tests/conformance/postgres_cluster.hpp"

/// What happens to writes when sessions are cut, the server crashes or stops.
namespace heddle::conformance {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class PostgresFailures : public testing::Test {
protected:
    std::unique_ptr<Engine> open_engine() {
        auto store = storage::open_postgres_store(url_, limits_, metrics_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            std::abort();
        }
        return std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
    }
    [[nodiscard]] std::string database() const { return database_of(url_); }

    // Producers write one row after another, each on a thread of its own, until told to end. A
    // write that is answered ok must be there afterwards, one that is refused must not; after
    // in_doubt the producer claims anew and looks. Nothing else may be answered.
    struct Producer {
        base::ThreadId thread = new_thread_id();
        storage::Seq next = 0;
        int in_doubt = 0;
    };
    void produce(Engine& engine, Producer& producer, const std::atomic<bool>& is_over) {
        auto claimed = engine.claim(producer.thread);
        while (!is_over) {
            if (producer.next % 16 == 15) {
                claimed = engine.claim(producer.thread);
            }
            auto write = make_write(claimed);
            write.journal = {make_row(producer.next)};
            write.new_runs = {make_run(producer.thread)};
            const auto checkpoint = write.journal[0].checkpoint_id;
            const auto status = engine.write(std::move(write));
            if (status) {
                producer.next += 1;
            } else if (status.error().code == ErrorCode::in_doubt) {
                producer.in_doubt += 1;
                auto again = engine.try_claim(producer.thread, false);
                while (!again) {
                    again = engine.try_claim(producer.thread, false);
                }
                claimed = std::move(again).value();
                producer.next = claimed.thread.head + 1;
            } else {
                ADD_FAILURE() << base::error_traits(status.error().code).wire_name << " "
                              << status.error().message << " seq " << producer.next << " "
                              << checkpoint.to_string();
                return;
            }
        }
    }
    // Reads and heartbeats meanwhile. Reads wait until the server is back and then succeed, as does
    // the last heartbeat; one before may find its lease over, and waits no longer than a lease.
    static void look_on(Engine& engine,
                        const base::ThreadId& thread,
                        const std::atomic<bool>& is_over) {
        while (!is_over) {
            const auto row = engine.thread(thread);
            EXPECT_TRUE(row || row.error().code == ErrorCode::not_found) << row.error().message;
            const auto status = engine.heartbeat();
            EXPECT_TRUE(status || status.error().code == ErrorCode::stale_epoch ||
                        status.error().code == ErrorCode::unavailable ||
                        status.error().code == ErrorCode::timeout)
                << status.error().message;
        }
    }
    template <class Disturb>
    void run_under_load(int producers, Disturb disturb) {
        auto engine = open_engine();
        std::atomic<bool> is_over{false};
        std::vector<Producer> all(static_cast<std::size_t>(producers));
        std::vector<std::thread> os_threads;
        os_threads.reserve(all.size());
        for (auto& one : all) {
            os_threads.emplace_back([&] { produce(*engine, one, is_over); });
        }
        os_threads.emplace_back([&] { look_on(*engine, all.front().thread, is_over); });
        disturb();
        is_over = true;
        for (auto& os_thread : os_threads) {
            os_thread.join();
        }
        auto status = engine->heartbeat();
        for (int i = 0; i < 10 && !status && status.error().code == ErrorCode::timeout; ++i) {
            status = engine->heartbeat();
        }
        EXPECT_TRUE(status || status.error().code == ErrorCode::stale_epoch);
        storage::Seq rows = 0;
        int in_doubt = 0;
        for (const auto& one : all) {
            EXPECT_EQ(engine->thread(one.thread)->head, one.next - 1);
            EXPECT_EQ(engine->chain(one.thread)->size(), static_cast<std::size_t>(one.next));
            storage::RunFilter filter;
            filter.limit = 1000;
            const auto runs = engine->runs(one.thread, filter)->size();
            EXPECT_EQ(runs, std::min<std::size_t>(1000, static_cast<std::size_t>(one.next)));
            rows += one.next;
            in_doubt += one.in_doubt;
        }
        EXPECT_GT(rows, producers);
        RecordProperty("rows", std::to_string(rows));
        RecordProperty("in_doubt", std::to_string(in_doubt));
    }

    void cut_sessions() const {
        for (int i = 0; i < 30; ++i) {
            cluster_.run_sql("postgres",
                             "SELECT pg_sleep(random() * 0.05); SELECT pg_terminate_backend(pid) "
                             "FROM pg_stat_activity WHERE datname = '" +
                                 database() + "'");
        }
    }

    PostgresCluster& cluster_ = PostgresCluster::instance();
    std::string url_ = cluster_.create_database();
    observe::Metrics metrics_;
    storage::StoreLimits limits_;
};

TEST_F(PostgresFailures, SessionsCutUnderLoadLoseNothingThatWasAcknowledged) {
    run_under_load(32, [this] { cut_sessions(); });
}

TEST_F(PostgresFailures, NorDoThoseOfAPooler) {
    url_ = Pgbouncer::instance().through(url_);
    run_under_load(32, [this] { cut_sessions(); });
}

TEST_F(PostgresFailures, ACrashedServerLosesNothingThatWasAcknowledged) {
    limits_.wait_max = std::chrono::seconds{50};  // recovery takes a while on a slow disk
    run_under_load(16, [this] {
        for (int i = 0; i < 2; ++i) {
            cluster_.run_sql("postgres", "SELECT pg_sleep(0.2)");
            cluster_.crash_and_restart();
        }
        cluster_.run_sql("postgres", "SELECT pg_sleep(0.2)");
    });
}

// Whoever was told of the key's run goes on and stores it, so nobody may get another one for it.
TEST_F(PostgresFailures, ACrashedServerKeepsTheKeysOfRunsThatAreNotStoredYet) {
    limits_.wait_max = std::chrono::seconds{50};
    auto engine = open_engine();
    const auto claim = [&](const base::RunId& run) {
        storage::KeyClaim wanted{"key", new_thread_id(), run, std::chrono::minutes{1}};
        auto holder = call<base::Result<storage::KeyHolder>>(
            [&](auto done) { engine->store().claim_key(std::move(wanted), std::move(done)); });
        EXPECT_TRUE(holder) << holder.error().message;
        return holder ? *holder : storage::KeyHolder{};
    };
    const auto run = new_run_id();
    const auto first = claim(run);
    EXPECT_EQ(first.run, run);
    cluster_.crash_and_restart();
    const auto repeated = claim(new_run_id());
    EXPECT_EQ(repeated.run, run);
    EXPECT_EQ(repeated.thread, first.thread);
}

TEST_F(PostgresFailures, AStoppedServerIsGivenUpAtTheDeadline) {
    limits_.wait_max = std::chrono::seconds{5};
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    ASSERT_TRUE(engine->write(make_write(claimed))) << "its writer is connected";
    ASSERT_TRUE(engine->thread(claimed.thread.id));
    cluster_.stop();
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    const auto begun = steady_clock::now();
    const auto status = engine->write(write);
    const auto read = engine->thread(claimed.thread.id);
    const auto took = steady_clock::now() - begun;
    cluster_.go_on();
    EXPECT_EQ(code_of(status), ErrorCode::in_doubt);
    EXPECT_FALSE(read);
    EXPECT_LT(took, std::chrono::seconds{60});
    // It had reached the server or not, and may be carried out even now; a claim settles it.
    const auto again = engine->claim(claimed.thread.id);
    write = make_write(again);
    write.journal = {make_row(again.thread.head + 1, 0)};
    const auto written = engine->write(write);
    EXPECT_TRUE(written) << written.error().message;
    EXPECT_EQ(engine->thread(claimed.thread.id)->head, again.thread.head + 1);
}

// Another attempt would take as long, and it all would be tried for ever.
TEST_F(PostgresFailures, AWriteThatNeedsLongerThanItMayIsGivenUp) {
    limits_.wait_max = milliseconds{3000};
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    const auto other = engine->claim(new_thread_id());
    cluster_.run_sql(database(),
                     "CREATE FUNCTION heddle.dawdle() RETURNS trigger LANGUAGE plpgsql AS "
                     "'BEGIN PERFORM pg_sleep(CASE NEW.thread_key WHEN " +
                         std::to_string(claimed.thread.key) +
                         " THEN 30 ELSE 2.5 END); RETURN NEW; END'; "
                         "CREATE TRIGGER dawdle BEFORE INSERT ON heddle.journal FOR EACH ROW "
                         "EXECUTE FUNCTION heddle.dawdle()");
    auto first = make_write(other);
    first.journal = {make_row(0)};
    std::thread before{[&] {
        const auto status = engine->write(std::move(first));
        EXPECT_TRUE(status || status.error().code == ErrorCode::timeout) << status.error().message;
    }};
    const auto until = steady_clock::now() + std::chrono::seconds{20};
    while (cluster_.run_sql(database(),
                            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
                            "AND datname = current_database()") == "0" &&
           steady_clock::now() < until) {
    }
    auto write = make_write(claimed);  // its turn comes when most of its time is over
    write.journal = {make_row(0)};
    const auto code = code_of(engine->write(write));
    EXPECT_TRUE(code == ErrorCode::timeout || code == ErrorCode::in_doubt)
        << base::error_traits(code).wire_name;
    before.join();
    EXPECT_TRUE(engine->write(make_write(other))) << "others' go on";
    cluster_.run_sql(database(), "DROP TRIGGER dawdle ON heddle.journal");
    EXPECT_EQ(engine->thread(claimed.thread.id)->head, storage::kNoSeq) << "nothing was done";
    write.epoch = engine->claim(claimed.thread.id).epoch;
    EXPECT_TRUE(engine->write(write));
    EXPECT_EQ(engine->chain(claimed.thread.id)->size(), 1U);
}

TEST_F(PostgresFailures, EnginesThatStartTogetherMigrateOnce) {
    std::vector<std::thread> os_threads;
    std::atomic<int> opened{0};
    for (int i = 0; i < 6; ++i) {
        os_threads.emplace_back([&] {
            auto store = storage::open_postgres_store(url_, limits_, metrics_);
            opened += store ? 1 : 0;
        });
    }
    for (auto& os_thread : os_threads) {
        os_thread.join();
    }
    EXPECT_EQ(opened.load(), 6);
    EXPECT_EQ(cluster_.run_sql(database(), "SELECT version FROM heddle.schema_version"), "4");
}

TEST_F(PostgresFailures, APoolerWhoseSessionsAcknowledgeTooEarlyIsRefused) {
    cluster_.run_sql("postgres", "ALTER DATABASE " + database() + " SET synchronous_commit = off");
    EXPECT_TRUE(storage::open_postgres_store(url_, limits_, metrics_)) << "set in each session";
    const auto pooled = Pgbouncer::instance().through(url_);
    EXPECT_FALSE(storage::open_postgres_store(pooled, limits_, metrics_));
}

TEST_F(PostgresFailures, ANewerSchemaIsRefused) {
    open_engine().reset();
    cluster_.run_sql(database(), "UPDATE heddle.schema_version SET version = 99");
    const auto store = storage::open_postgres_store(url_, limits_, metrics_);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().code, ErrorCode::unavailable);
}

TEST_F(PostgresFailures, AServerThatIsNotThereIsUnavailable) {
    const auto store =
        storage::open_postgres_store("postgres://heddle@/x?host=/nowhere", limits_, metrics_);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().code, ErrorCode::unavailable);
    EXPECT_EQ(store.error().message.find("nowhere"), std::string::npos);
}

TEST_F(PostgresFailures, ALeaseFromAClockThatWasAheadIsOver) {
    limits_.lease = std::chrono::minutes{1};
    const auto thread = new_thread_id();
    auto dead = open_engine();
    auto write = make_write(dead->claim(thread));
    write.new_runs = {make_run(thread)};
    ASSERT_TRUE(dead->write(write));
    const auto other = open_engine();
    EXPECT_TRUE(other->orphans().empty());
    // A standby was promoted whose clock is an hour behind.
    cluster_.run_sql(database(),
                     "UPDATE heddle.engines SET heartbeat_at = heartbeat_at + 3600000000 "
                     "WHERE engine_id = (SELECT owner FROM heddle.threads)");
    EXPECT_EQ(other->orphans(), std::vector{thread});
    EXPECT_EQ(other->claim(thread).kind, storage::ClaimOutcome::Kind::claimed);
    // One that is alive comes back with its next heartbeat.
    EXPECT_TRUE(dead->heartbeat());
    auto again = make_write(dead->claim(new_thread_id()));
    again.status = ThreadStatus::busy;
    EXPECT_TRUE(dead->write(again));
}

TEST_F(PostgresFailures, StepsOfAThreadTouchNoIndexOfThreads) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    for (storage::Seq seq = 0; seq < 100; ++seq) {
        auto write = make_write(claimed);
        write.status = seq % 2 == 0 ? ThreadStatus::busy : ThreadStatus::idle;
        write.journal = {make_row(seq)};
        ASSERT_TRUE(engine->write(write));
    }
    engine.reset();
    // A session counts what it did when it ends, which may be later.
    const auto until = steady_clock::now() + std::chrono::seconds{20};
    std::string hot;
    while (hot != "t" && steady_clock::now() < until) {
        hot = cluster_.run_sql(database(),
                               "SELECT n_tup_upd >= 100 AND n_tup_hot_upd >= n_tup_upd - 5 "
                               "FROM pg_stat_user_tables WHERE relname = 'threads'");
    }
    EXPECT_EQ(hot, "t");
}

}  // namespace
}  // namespace heddle::conformance
