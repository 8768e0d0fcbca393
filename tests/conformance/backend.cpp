#include "tests/conformance/backend.hpp"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "engine/storage/memory/memory_store.hpp"
#include "engine/storage/sqlite/sqlite_store.hpp"

namespace heddle::conformance {
namespace {

class MemoryBackend final : public Backend {
public:
    std::unique_ptr<storage::Store> open(const storage::StoreLimits& limits) override {
        return storage::make_memory_store(database_, limits, metrics);
    }
    void pass(base::Duration lease) override {
        clock_.advance(lease + std::chrono::milliseconds{1});
    }

private:
    StillClock clock_;
    storage::MemoryDatabase database_{clock_};
};

class SqliteBackend final : public Backend {
public:
    std::unique_ptr<storage::Store> open(const storage::StoreLimits& limits) override {
        auto store = storage::open_sqlite_store("sqlite:" + folder_.path() + "/store.db", limits,
                                                metrics, clock_);
        if (!store) {
            ADD_FAILURE() << store.error().message;
            return nullptr;
        }
        return std::move(store).value();
    }
    void pass(base::Duration lease) override {
        clock_.advance(lease + std::chrono::milliseconds{1});
    }

private:
    TemporaryFolder folder_;
    StillClock clock_;
};

}  // namespace

TemporaryFolder::TemporaryFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "heddle-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) {
        ADD_FAILURE() << "no temporary folder";
        std::abort();
    }
    path_ = path;
}

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::unique_ptr<Backend> make_backend(const std::string& driver) {
    if (driver == "memory") {
        return std::make_unique<MemoryBackend>();
    }
    if (driver == "sqlite") {
        return std::make_unique<SqliteBackend>();
    }
    return make_postgres_backend(driver == "pgbouncer");
}

}  // namespace heddle::conformance
