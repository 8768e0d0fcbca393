#include "engine/storage/postgres/connection.hpp"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "engine/observe/log.hpp"
#include "engine/storage/postgres/hosts.hpp"

namespace heddle::storage::postgres {
namespace {

constexpr std::chrono::milliseconds kPauseMin{20};
constexpr std::chrono::milliseconds kPauseMax{500};
constexpr std::string_view kReadOnly = "25006";
constexpr const char* kStarted = "write";

Fate fate_of(std::string_view state) {
    if (state == "23505") {
        return Fate::conflict;
    }
    if (state == "57014") {
        return Fate::timeout;
    }
    // The server ends the session with these; whether the statement was committed they do not say.
    if (state == "57P01" || state == "57P02" || state == "57P03") {
        return Fate::lost;
    }
    if (state == kReadOnly) {
        return Fate::retry;
    }
    const auto state_class = state.substr(0, 2);
    if (state_class == "08") {  // of a pooler that lost the server
        return Fate::lost;
    }
    if (state_class == "22" || state_class == "23" || state_class == "54") {
        return Fate::bad_data;
    }
    if (state_class == "40") {
        return Fate::retry;
    }
    if (state == "55P03") {
        return Fate::blocked;
    }
    if (state_class == "53" || state_class == "57" || state_class == "58") {
        return Fate::unavailable;
    }
    return Fate::internal;
}

std::int64_t milliseconds(base::Duration duration) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

// Plans must not depend on the statistics of an empty database, which is when they are made: always
// by index and always in the order of the arrays, so that locks are taken in one order. What we
// report as done is on disk, whatever the server's default says.
std::string session_settings(const Endpoint& endpoint, Role role) {
    std::string sql = fmt::format(
        "SET statement_timeout = {}; SET lock_timeout = {};"
        "SET idle_in_transaction_session_timeout = {}; SET jit = off;"
        "SET default_transaction_isolation = 'read committed';"
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off';",
        milliseconds(endpoint.wait_max), milliseconds(endpoint.lock_wait_max),
        milliseconds(endpoint.lock_wait_max));
    if (role == Role::writer) {
        sql += "SET enable_hashjoin = off; SET enable_mergejoin = off;";
    }
    return sql;
}

base::Instant at_least_granted(base::Instant deadline) {
    constexpr std::chrono::seconds kGranted{1};
    return std::max(deadline, base::system_clock().now() + kGranted);
}

}  // namespace

std::string session_url(const Endpoint& endpoint) {
    auto url = endpoint.url;
    const auto add = [&url](std::string_view key, const std::string& value) {
        if (url.find(key) != std::string::npos) {
            return;
        }
        url += url.find('?') == std::string::npos ? '?' : '&';
        url.append(key).append("=").append(value);
    };
    // They are tried one after another: the first may be the primary that has just died.
    const bool has_several_hosts = url.find(',') != std::string::npos ||
                                   url.find("%2C") != std::string::npos ||
                                   url.find("%2c") != std::string::npos;
    constexpr std::int64_t kSecondsMin = 2;  // libpq grants no less
    const auto seconds =
        std::max(kSecondsMin, milliseconds(endpoint.wait_max) / (2 * std::milli::den));
    add("connect_timeout", std::to_string(has_several_hosts ? kSecondsMin : seconds));
    add("tcp_user_timeout", std::to_string(seconds * 1000));
    add("keepalives_idle", "5");
    add("target_session_attrs", "read-write");
    add("client_encoding", "UTF8");
    add("application_name", "heddle");
    return url;
}

base::Result<std::unique_ptr<Session>> open_session(const Endpoint& endpoint) {
    std::string problems;
    for (const auto& host : one_host_each(session_url(endpoint))) {
        auto session = Session::open(host);
        if (session) {
            return session;
        }
        problems.append(problems.empty() ? "" : "; ").append(session.error().message);
    }
    return base::Error{base::ErrorCode::unavailable, problems};
}

base::Error error_of(Fate fate) {
    using base::Error;
    using base::ErrorCode;
    switch (fate) {
        case Fate::lost:
            return Error{ErrorCode::in_doubt, "the database connection was lost"};
        case Fate::conflict:
            return Error{ErrorCode::conflict, "a row with that key exists already"};
        case Fate::bad_data:
            return Error{ErrorCode::invalid_argument,
                         "the database cannot store one of the values"};
        case Fate::retry:
        case Fate::blocked:
        case Fate::unavailable:
            return Error{ErrorCode::unavailable, "the database cannot be used"};
        case Fate::timeout:
            return Error{ErrorCode::timeout, "the database did not answer in time"};
        case Fate::done:
        case Fate::internal:
            break;
    }
    return Error{ErrorCode::internal, "the database refused an operation"};
}

base::Result<std::unique_ptr<Connection>> Connection::connect(const Endpoint& endpoint, Role role) {
    auto session = open_session(endpoint);
    auto set_up = session ? base::ok() : base::Status{session.error()};
    if (session) {
        std::unique_ptr<Connection> connection{// NOLINT: private constructor
                                               new Connection{std::move(*session), endpoint}};
        set_up = connection->set_up(role);
        if (set_up) {
            return connection;
        }
    }
    observe::log(observe::LogLevel::warn, "postgres", "connect: {}", set_up.error().message);
    return base::Error{base::ErrorCode::unavailable, "the database cannot be reached"};
}

base::Result<std::unique_ptr<Connection>> Connection::connect_until(const Endpoint& endpoint,
                                                                    Role role,
                                                                    base::Instant deadline) {
    base::Duration pause = kPauseMin;
    for (;;) {
        auto connected = connect(endpoint, role);
        const auto left = deadline - base::system_clock().now();
        if (connected || left <= base::Duration::zero() ||
            !endpoint.patience->pause(std::min(left, pause))) {
            return connected;
        }
        pause = std::min<base::Duration>(pause * 2, kPauseMax);
    }
}

base::Status Connection::set_up(Role role) {
    const auto deadline = base::system_clock().now() + endpoint_.wait_max;
    auto reply = session_->execute(
        "SELECT pg_backend_pid(), current_setting('synchronous_commit') <> 'off' "
        "AND current_setting('default_transaction_isolation') = 'read committed'",
        deadline);
    if (!reply.is_done() || reply.rows.empty()) {
        return base::Error{base::ErrorCode::unavailable, reply.message};
    }
    const auto row = reply.rows[0];
    // A pooler makes up a key to cancel by, since the session behind it changes: none of it is ours
    // then, so nothing can be set or prepared in it, and it must be right as it is.
    is_pooled_ = row[0].text() != std::to_string(session_->server_pid());
    if (is_pooled_) {
        if (row[1].text() != "t") {
            return base::Error{
                base::ErrorCode::unavailable,
                "through a pooler the role itself needs synchronous_commit = on and "
                "default_transaction_isolation = 'read committed' (ALTER ROLE ... SET)"};
        }
        return base::ok();
    }
    reply = session_->execute(session_settings(endpoint_, role), deadline);
    if (!reply.is_done()) {
        return base::Error{base::ErrorCode::unavailable, reply.message};
    }
    return base::ok();
}

Executed Connection::conclude(const char* what, Reply reply) {
    Executed executed;
    if (reply.is_done()) {
        executed.rows = std::move(reply.rows);
        return executed;
    }
    if (reply.is_refused) {
        executed.fate = fate_of(reply.state);
        // Without a state it was libpq that refused, and would again.
        is_usable_ = is_usable_ && reply.state != kReadOnly && !reply.state.empty();
        const bool is_expected = executed.fate == Fate::conflict || executed.fate == Fate::retry ||
                                 executed.fate == Fate::blocked;
        observe::log(is_expected ? observe::LogLevel::debug : observe::LogLevel::warn, "postgres",
                     "{}: {} ({})", what, reply.message, reply.state);
    }
    if (reply.is_lost) {
        executed.fate = Fate::lost;
        observe::log(observe::LogLevel::warn, "postgres", "{}: the connection was lost: {}", what,
                     reply.message);
    }
    if (executed.fate == Fate::lost) {
        is_usable_ = false;
    }
    return executed;
}

Executed Connection::execute(const Statement& statement,
                             const Parameters& parameters,
                             base::Instant deadline) {
    const auto until = at_least_granted(deadline);
    if (is_pooled_) {
        return conclude(statement.name, session_->execute(statement.sql, parameters, until));
    }
    if (!prepared_.contains(statement.name)) {
        auto prepared = session_->prepare(statement.name, statement.sql, until);
        if (!prepared.is_done()) {
            return conclude(statement.name, std::move(prepared));
        }
        prepared_.insert(statement.name);
    }
    return conclude(statement.name, session_->execute_prepared(statement.name, parameters, until));
}

bool Connection::try_start(const Statement& statement, const Parameters& parameters) {
    return prepared_.contains(statement.name) &&
           session_->try_start_prepared(statement.name, parameters);
}

Executed Connection::finish(base::Instant deadline) {
    return conclude(kStarted, session_->finish(at_least_granted(deadline)));
}

std::optional<Executed> Connection::try_finish() {
    auto reply = session_->try_finish();
    return reply ? std::optional{conclude(kStarted, std::move(*reply))} : std::nullopt;
}

Executed Connection::execute_text(const std::string& sql,
                                  const Parameters& parameters,
                                  base::Instant deadline) {
    return conclude("search", session_->execute(sql, parameters, at_least_granted(deadline)));
}

Executed Connection::evict(base::Instant deadline) {
    auto executed =
        execute(kEvict, Parameters{}.add(milliseconds(endpoint_.lock_wait_max)), deadline);
    if (!executed.rows.empty()) {
        observe::log(observe::LogLevel::warn, "postgres",
                     "{} session(s) of stopped engines kept rows locked: ended",
                     executed.rows.size());
    }
    return executed;
}

}  // namespace heddle::storage::postgres
