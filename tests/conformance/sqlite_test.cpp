#include <gtest/gtest.h>

#include "engine/storage/sqlite/sqlite_store.hpp"
#include "tests/conformance/backend.hpp"
#include "tests/conformance/fixture.hpp"

/// What holds for one file alone.
namespace heddle::conformance {
namespace {

TEST(Sqlite, WhoWritesIsAlive) {
    const TemporaryFolder folder;
    StillClock clock;
    observe::Metrics metrics;
    const storage::StoreLimits limits;
    auto store =
        storage::open_sqlite_store("sqlite:" + folder.path() + "/store.db", limits, metrics, clock);
    ASSERT_TRUE(store);
    Engine engine{std::move(store).value(), "ipc:///this"};
    const auto claimed = engine.claim(new_thread_id());
    for (int i = 0; i < 3; ++i) {  // batches that take so long that no heartbeat comes in between
        clock.advance(limits.lease * 8 / 10);
        ASSERT_TRUE(engine.write(make_write(claimed)));
    }
    EXPECT_TRUE(engine.heartbeat());

    clock.advance(limits.lease * 11 / 10);
    EXPECT_TRUE(engine.write(make_write(claimed))) << "nobody has claimed it";
    EXPECT_EQ(code_of(engine.heartbeat()), ErrorCode::stale_epoch) << "what is over stays over";
}

}  // namespace
}  // namespace heddle::conformance
