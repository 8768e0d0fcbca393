#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/storage/postgres/parameters.hpp"

struct pg_conn;    // libpq's PGconn
struct pg_result;  // libpq's PGresult

/// libpq without blocking: what was sent and what came of it (ADR 0015). Nothing here knows a
/// statement of ours.
namespace heddle::storage::postgres {

/// One value of an answer, as the text that the server writes. Valid as long as its Rows.
class Field {
public:
    Field(const pg_result* rows, int row, int column) : rows_{rows}, row_{row}, column_{column} {}

    [[nodiscard]] bool is_null() const noexcept;
    /// Empty if it is null.
    [[nodiscard]] std::string_view text() const noexcept;
    /// An integer, an enumerator's number being one, or a bool. Throws std::runtime_error if the
    /// text is not one, or null.
    template <class T>
    [[nodiscard]] T as() const {
        const auto all = text();
        if constexpr (std::is_same_v<T, bool>) {
            if (all == "t" || all == "f") {
                return all == "t";
            }
        } else {
            T value{};
            const auto read = std::from_chars(all.data(), all.data() + all.size(), value);
            if (read.ec == std::errc{} && read.ptr == all.data() + all.size()) {
                return value;
            }
        }
        throw std::runtime_error{"a column holds something else than it promises"};
    }
    template <class T>
    [[nodiscard]] T as(T if_null) const {
        return is_null() ? if_null : as<T>();
    }

private:
    const pg_result* rows_;
    int row_;
    int column_;
};

class Row {
public:
    Row(const pg_result* rows, int row) : rows_{rows}, row_{row} {}
    [[nodiscard]] Field operator[](int column) const noexcept { return {rows_, row_, column}; }

private:
    const pg_result* rows_;
    int row_;
};

/// The rows of one answer.
class Rows {
public:
    class Iterator {
    public:
        Iterator(const pg_result* rows, int row) : rows_{rows}, row_{row} {}
        Row operator*() const noexcept { return {rows_, row_}; }
        Iterator& operator++() noexcept {
            ++row_;
            return *this;
        }
        bool operator!=(const Iterator& other) const noexcept { return row_ != other.row_; }

    private:
        const pg_result* rows_;
        int row_;
    };

    Rows() = default;
    /// Takes it over.
    explicit Rows(pg_result* result) : result_{result} {}

    [[nodiscard]] std::size_t size() const noexcept;
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] Row operator[](int row) const noexcept { return {result_.get(), row}; }
    [[nodiscard]] Iterator begin() const noexcept { return {result_.get(), 0}; }
    [[nodiscard]] Iterator end() const noexcept {
        return {result_.get(), static_cast<int>(size())};
    }

private:
    struct Clear {
        void operator()(pg_result* result) const noexcept;
    };
    std::unique_ptr<pg_result, Clear> result_;
};

/// What came of a call. Rows only of what succeeded.
struct Reply {
    Rows rows;                ///< of the last statement of a text of several
    bool is_lost = false;     ///< the connection broke, or the deadline passed
    bool is_refused = false;  ///< by the server
    std::string state;        ///< five characters, why it refused
    std::string message;      ///< of the first that was refused or lost
    [[nodiscard]] bool is_done() const noexcept { return !is_lost && !is_refused; }
};

/// A second descriptor of a session's socket.
class Socket {
public:
    /// @param descriptor  is duplicated; is_open() tells whether that went well
    explicit Socket(int descriptor);
    ~Socket();
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;

    [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }
    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
    /// For both sides, whoever else has it open.
    void shut_down() const noexcept;

private:
    int descriptor_;
};

/// One session with a server. Used by one OS thread at a time. Each call waits until it is answered
/// or `deadline` has passed; after that, as after any lost connection, only the destructor is of
/// use. No exception but std::bad_alloc leaves it.
class Session {
public:
    /// Blocks at most as long as connect_timeout in `url` says. @return unavailable, with what
    /// libpq says about it
    static base::Result<std::unique_ptr<Session>> open(const std::string& url);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// Statements without parameters, each a transaction of its own unless the text says otherwise.
    Reply execute(const std::string& sql, base::Instant deadline);
    Reply execute(const std::string& sql, const Parameters& parameters, base::Instant deadline);
    Reply prepare(const char* name, const char* sql, base::Instant deadline);
    Reply execute_prepared(const char* name, const Parameters& parameters, base::Instant deadline);

    /// The two halves of execute_prepared(): the first waits for nothing.
    /// @return false if nothing was sent, nor will be; else finish() must follow before anything
    /// else
    [[nodiscard]] bool try_start_prepared(const char* name, const Parameters& parameters);
    /// Whether all of it has left: of what is larger than the socket takes finish() sends the rest.
    [[nodiscard]] bool is_sent();
    Reply finish(base::Instant deadline);
    /// finish() without waiting: nothing if the answer is not here, or not whole. finish() takes it
    /// then.
    std::optional<Reply> try_finish();

    /// Readable when something has come. It stays open with the pointer, also when the session has
    /// lost its own, and is shut down when the session is lost or ends.
    [[nodiscard]] const std::shared_ptr<const Socket>& socket() const noexcept { return socket_; }

    /// What the server said at the start; a pooler makes one up.
    [[nodiscard]] int server_pid() const noexcept;

private:
    struct Finish {
        void operator()(pg_conn* connection) const noexcept;
    };
    explicit Session(pg_conn* connection) : connection_{connection} {}
    template <class Send>
    Reply call(Send send, base::Instant deadline);
    [[nodiscard]] bool take_result(Reply& reply);
    void note_loss(Reply& reply, bool is_answered);
    [[nodiscard]] bool flush(base::Instant deadline);
    [[nodiscard]] bool receive(base::Instant deadline);
    [[nodiscard]] bool read();
    [[nodiscard]] bool wait(short events, base::Instant deadline);

    std::unique_ptr<pg_conn, Finish> connection_;
    std::shared_ptr<const Socket> socket_;
    Reply early_;  // what try_finish() has of an answer that is not whole
    bool is_late_ = false;
};

}  // namespace heddle::storage::postgres
