#include <chrono>
#include <thread>

#include "engine/storage/postgres/postgres_store.hpp"
#include "tests/conformance/fixture.hpp"
#include "tests/conformance/pgbouncer.hpp"
#include "tests/conformance/postgres_cluster.hpp"
#include "tests/conformance/proxy.hpp"

/// Connections that break at the worst moment: what was asked for is done once or not at all, and
/// the caller is told which.
namespace heddle::conformance {
namespace {

constexpr const char* kMarker = "here-it-breaks";

using Fault = Proxy::Fault;

// How the connection breaks, and whether a pooler stands behind it.
class PostgresInDoubt : public testing::TestWithParam<std::tuple<Fault, bool>> {
protected:
    std::unique_ptr<Engine> open_engine() {
        const auto database = direct_.substr(0, direct_.find('?'));
        auto store =
            storage::open_postgres_store(database + "?host=" + proxy_.host(), limits_, metrics_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            std::abort();
        }
        auto engine = std::make_unique<Engine>(std::move(store).value(), "ipc:///this");
        engine->use_loop();
        return engine;
    }
    [[nodiscard]] std::string database() const { return database_of(direct_); }
    void deliver() {
        EXPECT_TRUE(proxy_.has_bitten());
        if (std::get<0>(GetParam()) == Fault::delay_request) {
            proxy_.deliver();
        }
    }
    /// A write that only changes the thread's row: nothing but its number tells of it.
    static ThreadWrite make_marked(const ClaimOutcome& claimed) {
        auto write = make_write(claimed);
        write.metadata = std::string{R"({"who":")"} + kMarker + "\"}";
        write.status = ThreadStatus::busy;
        return write;
    }

    static std::string engine_bytes(const Engine& engine) {
        const auto& bytes = engine.id().uuid.bytes;
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    std::string direct_ = PostgresCluster::instance().create_database();
    Proxy proxy_{std::get<1>(GetParam()) ? Pgbouncer::instance().socket()
                                         : PostgresCluster::instance().socket()};
    observe::Metrics metrics_;
    storage::StoreLimits limits_;
};

TEST_P(PostgresInDoubt, ABatchIsStoredOnce) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    const auto other = engine->claim(new_thread_id());
    ASSERT_TRUE(engine->write(make_write(other)));
    proxy_.arm(std::get<0>(GetParam()), kMarker);
    auto write = make_marked(claimed);
    write.journal = {make_row(0)};
    write.new_runs = {make_run(claimed.thread.id)};
    const auto status = engine->write(std::move(write));
    EXPECT_TRUE(status) << status.error().message;
    deliver();
    EXPECT_EQ(engine->chain(claimed.thread.id)->size(), 1U);
    EXPECT_EQ(engine->runs(claimed.thread.id)->size(), 1U);
    write = make_write(claimed);
    write.journal = {make_row(1, 0)};
    EXPECT_TRUE(engine->write(std::move(write))) << "the thread goes on";
}

TEST_P(PostgresInDoubt, ABatchThatComesLateUndoesNothing) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    proxy_.arm(std::get<0>(GetParam()), kMarker);
    ASSERT_TRUE(engine->write(make_marked(claimed)));
    auto next = make_write(claimed);
    next.metadata = "{}";
    next.status = ThreadStatus::idle;
    ASSERT_TRUE(engine->write(std::move(next)));
    deliver();
    const auto thread = engine->thread(claimed.thread.id);
    EXPECT_EQ(thread->status, ThreadStatus::idle);
    EXPECT_EQ(thread->metadata, "{}");
}

// The lost statement holds its rows and has not come to its end when it is asked for.
TEST_P(PostgresInDoubt, ABatchThatIsStillInWorkIsWaitedFor) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    auto& cluster = PostgresCluster::instance();
    cluster.run_sql(database(),
                    "CREATE FUNCTION heddle.hold() RETURNS trigger LANGUAGE plpgsql AS "
                    "'BEGIN PERFORM pg_advisory_xact_lock_shared(99); RETURN NEW; END'; "
                    "CREATE TRIGGER hold BEFORE INSERT ON heddle.journal FOR EACH ROW "
                    "EXECUTE FUNCTION heddle.hold()");
    std::thread holder{
        [&] { cluster.run_sql(database(), "SELECT pg_advisory_lock(99); SELECT pg_sleep(0.4)"); }};
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (cluster.run_sql(database(),
                           "SELECT count(*) FROM pg_locks l JOIN pg_database d "
                           "ON d.oid = l.database AND d.datname = current_database() "
                           "WHERE l.locktype = 'advisory' AND l.objid = 99 AND l.granted") == "0" &&
           std::chrono::steady_clock::now() < until) {
    }
    proxy_.arm(std::get<0>(GetParam()), kMarker);
    auto write = make_marked(claimed);
    write.journal = {make_row(0)};
    const auto status = engine->write(std::move(write));
    EXPECT_TRUE(status) << status.error().message;
    holder.join();
    deliver();
    EXPECT_EQ(engine->chain(claimed.thread.id)->size(), 1U);
}

TEST_P(PostgresInDoubt, AReleaseIsDoneOnce) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    proxy_.arm(std::get<0>(GetParam()), kMarker);
    auto write = make_marked(claimed);
    write.release = true;
    const auto status = engine->write(std::move(write));
    EXPECT_TRUE(status) << status.error().message;
    const auto again = engine->claim(claimed.thread.id);
    deliver();
    EXPECT_TRUE(engine->write(make_write(again))) << "a late release takes nothing away";
}

TEST_P(PostgresInDoubt, ADeletionIsDoneOnce) {
    auto engine = open_engine();
    const auto claimed = engine->claim(new_thread_id());
    auto write = make_write(claimed);
    write.delete_thread = true;
    proxy_.arm(std::get<0>(GetParam()), engine_bytes(*engine));
    const auto status = engine->write(std::move(write));
    EXPECT_TRUE(status) << status.error().message;
    deliver();
    EXPECT_FALSE(engine->thread(claimed.thread.id));
}

TEST_P(PostgresInDoubt, AClaimHoldsWhateverComesLate) {
    auto engine = open_engine();
    proxy_.arm(std::get<0>(GetParam()), kMarker);
    const auto claimed =
        engine->claim(new_thread_id(), std::string{R"({"who":")"} + kMarker + "\"}");
    EXPECT_TRUE(engine->write(make_write(claimed)));
    deliver();
    const auto status = engine->write(make_write(claimed));
    EXPECT_TRUE(status) << status.error().message;
    EXPECT_EQ(engine->count({}).value(), 1);
}

TEST_P(PostgresInDoubt, AThreadInTheMakingIsSettledByAClaim) {
    auto engine = open_engine();
    const auto settled = engine->claim(new_thread_id());
    storage::ThreadClaim claim;
    claim.thread_id = new_thread_id();
    claim.metadata = std::string{R"({"who":")"} + kMarker + "\"}";
    ThreadWrite first;
    first.new_runs = {make_run(claim.thread_id)};
    const auto run = first.new_runs.front();
    proxy_.arm(std::get<0>(GetParam()), kMarker);
    EXPECT_EQ(code_of(engine->create(claim, std::move(first))), ErrorCode::in_doubt);
    auto claimed = engine->claim(claim.thread_id);
    if (claimed.kind == ClaimOutcome::Kind::created) {
        auto write = make_write(claimed);
        write.new_runs = {run};
        ASSERT_TRUE(engine->write(std::move(write)));
    } else {
        EXPECT_EQ(claimed.unfinished_runs.size(), 1U);
    }
    deliver();
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    const auto status = engine->write(std::move(write));
    EXPECT_TRUE(status) << status.error().message;
    EXPECT_EQ(engine->runs(claim.thread_id)->size(), 1U);
    EXPECT_EQ(engine->count({}).value(), 2);
    EXPECT_TRUE(engine->write(make_write(settled)));
}

TEST_P(PostgresInDoubt, AHeartbeatIsGiven) {
    limits_.lease = std::chrono::minutes{1};
    auto engine = open_engine();
    ASSERT_TRUE(engine->heartbeat());
    proxy_.arm(std::get<0>(GetParam()), engine_bytes(*engine));
    EXPECT_TRUE(engine->heartbeat());
    deliver();
    EXPECT_EQ(engine->engines().size(), 1U);
    ASSERT_TRUE(engine->unregister());
    EXPECT_TRUE(engine->engines().empty());
}

std::string name_of(const testing::TestParamInfo<std::tuple<Fault, bool>>& test) {
    const std::string where = std::get<1>(test.param) ? "pooled_" : "direct_";
    switch (std::get<0>(test.param)) {
        case Fault::lose_request:
            return where + "lose_request";
        case Fault::lose_answer:
            return where + "lose_answer";
        case Fault::lose_client:
            return where + "lose_client";
        default:
            return where + "delay_request";
    }
}

INSTANTIATE_TEST_SUITE_P(Faults,
                         PostgresInDoubt,
                         testing::Combine(testing::Values(Fault::lose_request,
                                                          Fault::lose_answer,
                                                          Fault::lose_client,
                                                          Fault::delay_request),
                                          testing::Bool()),
                         name_of);

}  // namespace
}  // namespace heddle::conformance
