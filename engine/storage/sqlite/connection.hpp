#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>

#include <sqlite3.h>

#include "engine/base/clock.hpp"
#include "engine/base/error.hpp"
#include "engine/base/uuid.hpp"

/// SQLite's C interface with ownership and exceptions; private to this driver.
namespace heddle::storage::sqlite {

/// What SQLite refused. Never leaves the driver: to_error() is its end.
class SqliteError : public std::runtime_error {
public:
    SqliteError(int code, const std::string& detail) : std::runtime_error{detail}, code_{code} {}
    /// The primary result code (SQLITE_BUSY, SQLITE_CONSTRAINT, ...).
    [[nodiscard]] int code() const noexcept { return code_ & 0xff; }

private:
    int code_;
};

/// Logs the detail and tells the caller none of it.
base::Error to_error(const char* what, const SqliteError& error);

class Connection {
public:
    /// @throw SqliteError
    static std::unique_ptr<Connection> open(const std::string& path);
    ~Connection();
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    [[nodiscard]] bool is_usable() const noexcept { return true; }
    void execute(const char* sql);
    /// Whether no transaction is open (SQLite ends one by itself on some errors).
    [[nodiscard]] bool is_idle() const noexcept { return sqlite3_get_autocommit(handle_) != 0; }
    /// How long to wait for a lock that another program holds.
    void set_busy_timeout(base::Duration duration);
    /// A query that still runs at `deadline` ends with SQLITE_INTERRUPT.
    void set_deadline(base::Instant deadline) noexcept { deadline_ = deadline; }
    [[nodiscard]] sqlite3* handle() noexcept { return handle_; }

private:
    friend class Query;
    explicit Connection(sqlite3* handle);
    static int is_past_deadline(void* connection);
    sqlite3_stmt* cached(const char* sql);

    sqlite3* handle_;
    base::Instant deadline_ = base::Instant::max();
    // By address: the texts are constants of this driver.
    std::unordered_map<const char*, sqlite3_stmt*> statements_;
};

/// One execution of a statement. Texts and blobs bound must outlive it.
class Query {
public:
    /// @param sql  a constant; prepared once per connection
    Query(Connection& connection, const char* sql);
    /// For text made at run time: prepared now, finalised at the end.
    Query(Connection& connection, const std::string& sql);
    ~Query();
    Query(const Query&) = delete;
    Query& operator=(const Query&) = delete;

    /// Binds the next parameter.
    Query& bind(std::int64_t value);
    Query& bind(std::string_view text);
    Query& bind_blob(std::string_view bytes);
    Query& bind(const base::Uuid& uuid);
    Query& bind_null();
    template <class Tag>
    Query& bind(const base::Id<Tag>& id) {
        return bind(id.uuid);
    }
    Query& bind_optional(const std::optional<std::string>& text) {
        return text ? bind(std::string_view{*text}) : bind_null();
    }

    /// @return whether there is a row
    bool step();
    /// Runs to the end. @return rows changed
    int run();

    [[nodiscard]] bool is_null(int column) const noexcept;
    [[nodiscard]] std::int64_t integer(int column) const noexcept;
    [[nodiscard]] std::string text(int column) const;
    [[nodiscard]] base::Uuid uuid(int column) const noexcept;

private:
    void check(int code);

    Connection& connection_;
    sqlite3_stmt* statement_;
    bool is_owned_;
    int bound_ = 0;
};

}  // namespace heddle::storage::sqlite
