#include "engine/storage/postgres/connection.hpp"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "engine/observe/log.hpp"
#include "engine/storage/postgres/statements.hpp"

namespace heddle::storage::postgres {
namespace {

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
    const auto state_class = state.substr(0, 2);
    if (state_class == "22" || state_class == "23" || state_class == "54") {
        return Fate::bad_data;
    }
    if (state_class == "40") {
        return Fate::retry;
    }
    if (state == "55P03") {
        return Fate::blocked;
    }
    if (state_class == "53" || state_class == "57" || state_class == "58" || state == "25006") {
        return Fate::unavailable;
    }
    return Fate::internal;
}

std::int64_t milliseconds(base::Duration duration) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

}  // namespace

std::string session_url(const Endpoint& endpoint) {
    auto url = endpoint.url;
    const auto seconds = std::max<std::int64_t>(
        2, std::chrono::duration_cast<std::chrono::seconds>(endpoint.wait_max).count() / 2);
    const auto add = [&url](std::string_view key, const std::string& value) {
        if (url.find(key) != std::string::npos) {
            return;
        }
        url += url.find('?') == std::string::npos ? '?' : '&';
        url.append(key).append("=").append(value);
    };
    add("connect_timeout", std::to_string(seconds));
    add("tcp_user_timeout", std::to_string(seconds * 1000));
    add("keepalives_idle", "5");
    add("application_name", "heddle");
    return url;
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

base::Result<std::unique_ptr<Connection>> Connection::connect(const Endpoint& endpoint,
                                                              Role role,
                                                              std::int64_t name) try {
    auto session = std::make_unique<pqxx::connection>(session_url(endpoint));
    std::unique_ptr<Connection> connection{// NOLINT: private constructor
                                           new Connection{std::move(session), endpoint}};
    connection->set_up(role, name);
    return connection;
} catch (const std::exception& error) {
    std::string detail = error.what();
    while (!detail.empty() && detail.back() == '\n') {
        detail.pop_back();
    }
    observe::log(observe::LogLevel::warn, "postgres", "connect: {}", detail);
    return base::Error{base::ErrorCode::unavailable, "the database cannot be reached"};
}

void Connection::set_up(Role role, std::int64_t name) {
    const Watchdog::Guard guard{*endpoint_.watchdog, session_->sock(),
                                base::system_clock().now() + endpoint_.wait_max};
    // Plans must not depend on the statistics of an empty database, which is when they are made:
    // always by index and always in the order of the arrays, so that locks are taken in one order.
    std::string sql = fmt::format(
        "SET client_encoding = 'UTF8'; SET statement_timeout = {}; SET lock_timeout = {};"
        "SET idle_in_transaction_session_timeout = {}; SET jit = off; SET bytea_output = 'hex';"
        "SET default_transaction_isolation = 'read committed'; SET search_path = heddle;"
        "SET plan_cache_mode = force_generic_plan;",
        milliseconds(endpoint_.wait_max), milliseconds(endpoint_.lock_wait_max),
        milliseconds(endpoint_.lock_wait_max));
    if (role == Role::writer) {
        sql += "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;";
    }
    if (role == Role::control) {
        sql += "SET synchronous_commit = off;";
    } else {
        // What we report as done is on disk, whatever the server's default says.
        sql +=
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off';";
    }
    pqxx::nontransaction transaction{*session_};
    transaction.exec(sql);
    if (role == Role::writer) {
        const auto session_name = fmt::format("heddle-writer-{:016x}", name);
        transaction.exec(
            fmt::format("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE application_name = '{0}' AND pid <> pg_backend_pid();"
                        "SET application_name = '{0}'; SELECT pg_advisory_lock({1});",
                        session_name, name));
    }
    prepare_all(*session_);
}

template <class Body>
Executed Connection::guarded(const char* what, base::Instant deadline, Body body) {
    constexpr std::chrono::seconds kGranted{1};
    const auto until = std::max(deadline, base::system_clock().now() + kGranted);
    Executed executed;
    try {
        const Watchdog::Guard guard{*endpoint_.watchdog, session_->sock(), until};
        pqxx::nontransaction transaction{*session_};
        executed.rows = body(transaction);
        return executed;
    } catch (const pqxx::sql_error& error) {
        executed.fate = fate_of(error.sqlstate());
        const bool is_expected = executed.fate == Fate::conflict || executed.fate == Fate::retry ||
                                 executed.fate == Fate::blocked;
        observe::log(is_expected ? observe::LogLevel::debug : observe::LogLevel::warn, "postgres",
                     "{}: {} ({})", what, error.what(), error.sqlstate());
    } catch (const pqxx::transaction_rollback& error) {
        executed.fate = Fate::retry;
        observe::log(observe::LogLevel::info, "postgres", "{}: {}", what, error.what());
    } catch (const pqxx::broken_connection& error) {
        executed.fate = Fate::lost;
        observe::log(observe::LogLevel::warn, "postgres", "{}: {}", what, error.what());
    } catch (const std::exception& error) {
        executed.fate = Fate::internal;
        observe::log(observe::LogLevel::error, "postgres", "{}: {}", what, error.what());
    }
    if (!session_->is_open()) {
        executed.fate = Fate::lost;
    }
    if (executed.fate == Fate::lost) {
        is_usable_ = false;
    }
    return executed;
}

Executed Connection::execute(const char* statement,
                             const Parameters& parameters,
                             base::Instant deadline) {
    return guarded(statement, deadline, [&](pqxx::nontransaction& transaction) {
        return transaction.exec_prepared(statement,
                                         pqxx::prepare::make_dynamic_params(parameters.values()));
    });
}

Executed Connection::execute_text(const std::string& sql,
                                  const Parameters& parameters,
                                  base::Instant deadline) {
    return guarded("search", deadline, [&](pqxx::nontransaction& transaction) {
        return transaction.exec_params(sql,
                                       pqxx::prepare::make_dynamic_params(parameters.values()));
    });
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
