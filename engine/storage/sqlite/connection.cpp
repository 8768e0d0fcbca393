#include "engine/storage/sqlite/connection.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/base/json.hpp"
#include "engine/observe/log.hpp"

namespace heddle::storage::sqlite {
namespace {

[[noreturn]] void fail(sqlite3* handle, int code) {
    throw SqliteError{code, handle == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle)};
}

std::string_view value_text(sqlite3_value* value) {
    const auto* bytes = static_cast<const char*>(sqlite3_value_blob(value));
    return {bytes, static_cast<std::size_t>(sqlite3_value_bytes(value))};
}

// heddle_json_contains(whole, part): Postgres' `whole @> part`. The part is the same for every row,
// so it is parsed once per statement.
void json_contains_function(sqlite3_context* context, int, sqlite3_value** values) noexcept try {
    auto* part = static_cast<base::Json*>(sqlite3_get_auxdata(context, 1));
    std::optional<base::Json> parsed_part;
    if (part == nullptr) {
        auto parsed = base::parse_stored_json(value_text(values[1]));
        if (!parsed) {
            sqlite3_result_int(context, 0);
            return;
        }
        parsed_part = std::move(parsed).value();
        part = &*parsed_part;
    }
    const auto whole = base::parse_stored_json(value_text(values[0]));
    sqlite3_result_int(context, whole && base::json_contains(*whole, *part) ? 1 : 0);
    if (parsed_part) {
        auto kept = std::make_unique<base::Json>(*std::move(parsed_part));
        sqlite3_set_auxdata(context, 1, kept.release(), [](void* json) {
            const std::unique_ptr<base::Json> owner{static_cast<base::Json*>(json)};
        });
    }
} catch (const std::exception&) {
    sqlite3_result_error_nomem(context);
}

}  // namespace

base::Error to_error(const char* what, const SqliteError& error) {
    const bool is_expected = error.code() == SQLITE_CONSTRAINT;
    observe::log(is_expected ? observe::LogLevel::debug : observe::LogLevel::warn, "sqlite",
                 "{}: {} (code {})", what, error.what(), error.code());
    switch (error.code()) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
        case SQLITE_INTERRUPT:
            return base::Error{base::ErrorCode::timeout, "the database did not answer in time"};
        case SQLITE_CONSTRAINT:
            return base::Error{base::ErrorCode::conflict, "a row with that key exists already"};
        case SQLITE_FULL:
        case SQLITE_IOERR:
        case SQLITE_CANTOPEN:
        case SQLITE_READONLY:
        case SQLITE_NOTADB:
            return base::Error{base::ErrorCode::unavailable, "the database cannot be used"};
        case SQLITE_TOOBIG:
            return base::Error{base::ErrorCode::payload_too_large, "a value is too large to store"};
        default:
            return base::Error{base::ErrorCode::internal, "the database refused an operation"};
    }
}

Connection::Connection(sqlite3* handle) : handle_{handle} {
    constexpr int kOpcodesBetweenLooks = 20'000;  // well under a millisecond
    sqlite3_progress_handler(handle_, kOpcodesBetweenLooks, &Connection::is_past_deadline, this);
}

std::unique_ptr<Connection> Connection::open(const std::string& path) {
    sqlite3* handle = nullptr;
    // Also for those that only read: the last one to close a WAL database must be able to tidy it
    // up. query_only (schema.cpp) keeps them from writing.
    const int code =
        sqlite3_open_v2(path.c_str(), &handle,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
    if (code != SQLITE_OK) {
        const SqliteError error{code, sqlite3_errstr(code)};
        sqlite3_close_v2(handle);
        throw error;
    }
    std::unique_ptr<Connection> connection{new Connection{handle}};  // NOLINT: private constructor
    const int made = sqlite3_create_function_v2(handle, "heddle_json_contains", 2,
                                                SQLITE_UTF8 | SQLITE_DETERMINISTIC, nullptr,
                                                &json_contains_function, nullptr, nullptr, nullptr);
    if (made != SQLITE_OK) {
        fail(handle, made);
    }
    return connection;
}

Connection::~Connection() {
    for (const auto& [sql, statement] : statements_) {
        sqlite3_finalize(statement);
    }
    sqlite3_close_v2(handle_);
}

int Connection::is_past_deadline(void* connection) {
    const auto deadline = static_cast<Connection*>(connection)->deadline_;
    return base::system_clock().now() >= deadline ? 1 : 0;
}

void Connection::execute(const char* sql) {
    const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) {
        fail(handle_, code);
    }
}

void Connection::set_busy_timeout(base::Duration duration) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
    sqlite3_busy_timeout(handle_, static_cast<int>(std::max<std::int64_t>(1, ms)));
}

sqlite3_stmt* Connection::cached(const char* sql) {
    auto& statement = statements_[sql];
    if (statement == nullptr) {
        const int code =
            sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
        if (code != SQLITE_OK) {
            fail(handle_, code);
        }
    }
    return statement;
}

Query::Query(Connection& connection, const char* sql)
    : connection_{connection}, statement_{connection.cached(sql)}, is_owned_{false} {}

Query::Query(Connection& connection, const std::string& sql)
    : connection_{connection}, statement_{nullptr}, is_owned_{true} {
    check(sqlite3_prepare_v2(connection.handle_, sql.data(), static_cast<int>(sql.size()),
                             &statement_, nullptr));
}

Query::~Query() {
    if (is_owned_) {
        sqlite3_finalize(statement_);
        return;
    }
    // The bindings point into the caller's values, so none may be left behind.
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
}

void Query::check(int code) {
    if (code != SQLITE_OK) {
        fail(connection_.handle_, code);
    }
}

Query& Query::bind(std::int64_t value) {
    check(sqlite3_bind_int64(statement_, ++bound_, value));
    return *this;
}

Query& Query::bind(std::string_view text) {
    // A null pointer would bind NULL instead of the empty text.
    const char* data = text.data() == nullptr ? "" : text.data();
    check(sqlite3_bind_text64(statement_, ++bound_, data, text.size(), SQLITE_STATIC, SQLITE_UTF8));
    return *this;
}

Query& Query::bind_blob(std::string_view bytes) {
    const char* data = bytes.data() == nullptr ? "" : bytes.data();
    check(sqlite3_bind_blob64(statement_, ++bound_, data, bytes.size(), SQLITE_STATIC));
    return *this;
}

Query& Query::bind(const base::Uuid& uuid) {
    check(sqlite3_bind_blob64(statement_, ++bound_, uuid.bytes.data(), uuid.bytes.size(),
                              SQLITE_STATIC));
    return *this;
}

Query& Query::bind_null() {
    check(sqlite3_bind_null(statement_, ++bound_));
    return *this;
}

bool Query::step() {
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) {
        return true;
    }
    if (code == SQLITE_DONE) {
        return false;
    }
    fail(connection_.handle_, code);
}

int Query::run() {
    while (step()) {
    }
    return sqlite3_changes(connection_.handle_);
}

bool Query::is_null(int column) const noexcept {
    return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

std::int64_t Query::integer(int column) const noexcept {
    return sqlite3_column_int64(statement_, column);
}

std::string Query::text(int column) const {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    if (bytes == nullptr) {
        return {};
    }
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

base::Uuid Query::uuid(int column) const noexcept {
    base::Uuid uuid;
    const void* bytes = sqlite3_column_blob(statement_, column);
    if (bytes != nullptr && sqlite3_column_bytes(statement_, column) == sizeof uuid.bytes) {
        std::memcpy(uuid.bytes.data(), bytes, sizeof uuid.bytes);
    }
    return uuid;
}

}  // namespace heddle::storage::sqlite
