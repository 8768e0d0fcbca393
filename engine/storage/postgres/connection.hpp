#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <pqxx/pqxx>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/storage/postgres/parameters.hpp"
#include "engine/storage/postgres/watchdog.hpp"

namespace heddle::storage::postgres {

/// How a statement ended. Every statement of this driver is a transaction of its own, so anything
/// but `done` and `lost` means that nothing was changed.
enum class Fate : std::uint8_t {
    done,
    lost,      ///< the connection broke: it may have been carried out
    conflict,  ///< a unique key is taken
    bad_data,  ///< the server cannot store one of the values
    retry,     ///< deadlock or serialisation failure: the same may succeed
    blocked,   ///< a lock was not given within lock_wait_max: the same may succeed
    timeout,
    unavailable,  ///< out of space, read-only, shutting down
    internal,
};

/// What the caller of the port is told about `fate`; `done` has no error.
base::Error error_of(Fate fate);

struct Executed {
    Fate fate = Fate::done;
    pqxx::result rows;
};

enum class Role : std::uint8_t {
    writer,  ///< holds its `name`'s advisory lock, see connect()
    reader,
    control,  ///< leases: need not survive a crash of the server
};

struct Endpoint {
    std::string url;
    base::Duration wait_max{};
    base::Duration lock_wait_max{};  ///< nobody may keep a row from others for longer, see evict()
    Watchdog* watchdog = nullptr;    ///< must outlive the connections
};

/// The URL with what it does not say itself: a server that is not there must be noticed in time.
std::string session_url(const Endpoint& endpoint);

/// One session. Used by one OS thread at a time; no exception leaves it.
class Connection {
public:
    /// Connects and prepares the session. A writer first ends the session that held its name before
    /// (the server may not have noticed yet that we lost it) and waits until that is gone: what it
    /// had in work is then decided for good and can be read back.
    /// @param name  of the writer, unique in the cluster; ignored for others
    static base::Result<std::unique_ptr<Connection>> connect(const Endpoint& endpoint,
                                                             Role role,
                                                             std::int64_t name);

    [[nodiscard]] bool is_usable() const noexcept { return is_usable_; }

    /// Executes a prepared statement of statements.hpp.
    /// @param deadline  past it the connection is given up; at least a second is granted
    Executed execute(const char* statement, const Parameters& parameters, base::Instant deadline);
    /// Executes text made at run time.
    Executed execute_text(const std::string& sql,
                          const Parameters& parameters,
                          base::Instant deadline);
    /// Ends sessions that changed threads in a transaction and have waited for their client with it
    /// for longer than lock_wait_max: the client is an engine that was stopped in the middle of a
    /// batch, and its row locks would keep its threads from everybody else.
    Executed evict(base::Instant deadline);

private:
    Connection(std::unique_ptr<pqxx::connection> session, const Endpoint& endpoint)
        : session_{std::move(session)}, endpoint_{endpoint} {}
    void set_up(Role role, std::int64_t name);
    template <class Body>
    Executed guarded(const char* what, base::Instant deadline, Body body);

    std::unique_ptr<pqxx::connection> session_;
    Endpoint endpoint_;
    bool is_usable_ = true;
};

}  // namespace heddle::storage::postgres
