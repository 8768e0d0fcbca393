#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/storage/postgres/parameters.hpp"
#include "engine/storage/postgres/patience.hpp"
#include "engine/storage/postgres/session.hpp"
#include "engine/storage/postgres/statements.hpp"

namespace heddle::storage::postgres {

/// How a statement ended. Every statement of this driver is a transaction of its own, so anything
/// but `done` and `lost` means that nothing was changed.
enum class Fate : std::uint8_t {
    done,
    lost,      ///< the connection broke: it may have been carried out
    conflict,  ///< a unique key is taken
    bad_data,  ///< the server cannot store one of the values
    retry,     ///< deadlock, serialisation failure, or a server that has become a standby (the
               ///< connection is given up then): the same may succeed
    blocked,   ///< a lock was not given within lock_wait_max: the same may succeed
    timeout,
    unavailable,  ///< out of space, shutting down
    internal,
};

/// What the caller of the port is told about `fate`; `done` has no error.
base::Error error_of(Fate fate);

struct Executed {
    Fate fate = Fate::done;
    Rows rows;
};

enum class Role : std::uint8_t {
    writer,  ///< its plans take locks in the order of the arrays
    reader,
};

struct Endpoint {
    std::string url;
    base::Duration wait_max{};
    base::Duration lock_wait_max{};  ///< nobody may keep a row from others for longer, see evict()
    Patience* patience = nullptr;    ///< must outlive the connections
};

/// The URL with what it does not say itself: a server that is not there must be noticed in time,
/// and of several hosts the one that takes writes is meant.
std::string session_url(const Endpoint& endpoint);

/// A session with the first host that takes one. At most two seconds a host, if there are several.
/// @return unavailable, with what each of them said, if none does
base::Result<std::unique_ptr<Session>> open_session(const Endpoint& endpoint);

/// One session. Used by one OS thread at a time; no exception leaves it.
class Connection {
public:
    /// Connects and prepares the session, in one attempt.
    static base::Result<std::unique_ptr<Connection>> connect(const Endpoint& endpoint, Role role);
    /// As connect(), again and again with growing pauses until `deadline` or the store closes.
    static base::Result<std::unique_ptr<Connection>> connect_until(const Endpoint& endpoint,
                                                                   Role role,
                                                                   base::Instant deadline);

    /// Whether a pooler stands in between (pgbouncer and its like), which gives each transaction
    /// another session: statements are sent as text then, not prepared.
    [[nodiscard]] bool is_pooled() const noexcept { return is_pooled_; }
    [[nodiscard]] bool is_usable() const noexcept { return is_usable_; }

    /// Prepares the statement when it is first used.
    /// @param deadline  past it the connection is given up; at least a second is granted
    Executed execute(const Statement& statement,
                     const Parameters& parameters,
                     base::Instant deadline);
    /// Sends a statement that is prepared already, without waiting for anything; finish() must
    /// follow before anything else.
    /// @return false if nothing was sent, nor will be
    [[nodiscard]] bool try_start(const Statement& statement, const Parameters& parameters);
    /// Waits for what was started.
    Executed finish(base::Instant deadline);
    /// Whether all of what was started has left: only then its answer can come by itself.
    [[nodiscard]] bool is_sent() { return session_->is_sent(); }
    /// finish() without waiting: nothing if not all of the answer is here.
    std::optional<Executed> try_finish();
    /// Tells when there is something of it; see Session::socket().
    [[nodiscard]] const std::shared_ptr<const Socket>& socket() const noexcept {
        return session_->socket();
    }
    /// Executes text made at run time.
    Executed execute_text(const std::string& sql,
                          const Parameters& parameters,
                          base::Instant deadline);
    /// Ends sessions that changed threads in a transaction and have waited for their client with it
    /// for longer than lock_wait_max: the client is an engine that was stopped in the middle of a
    /// batch, and its row locks would keep its threads from everybody else.
    Executed evict(base::Instant deadline);

private:
    Connection(std::unique_ptr<Session> session, const Endpoint& endpoint)
        : session_{std::move(session)}, endpoint_{endpoint} {}
    [[nodiscard]] base::Status set_up(Role role);
    Executed conclude(const char* what, Reply reply);

    std::unique_ptr<Session> session_;
    Endpoint endpoint_;
    bool is_usable_ = true;
    bool is_pooled_ = false;
    std::unordered_set<std::string_view> prepared_;
};

}  // namespace heddle::storage::postgres
