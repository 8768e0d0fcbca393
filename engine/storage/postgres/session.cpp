#include "engine/storage/postgres/session.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/observe/log.hpp"

namespace heddle::storage::postgres {
namespace {

constexpr int kBinary = 1;
constexpr int kText = 0;

void ignore(void* /*unused*/, const PGresult* /*notice*/) {}

std::string message_of(const PGconn* connection) {
    std::string text = PQerrorMessage(connection);
    while (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    return text;
}

// The parameters in the arrays that libpq takes.
class Bound {
public:
    explicit Bound(const Parameters& parameters) {
        const auto count = parameters.size();
        values_.reserve(count);
        lengths_.reserve(count);
        for (std::size_t at = 0; at < count; ++at) {
            const auto value = parameters[at];
            values_.push_back(value ? value->data() : nullptr);
            lengths_.push_back(value ? static_cast<int>(value->size()) : 0);
        }
        formats_.assign(count, kBinary);
    }
    [[nodiscard]] int count() const noexcept { return static_cast<int>(values_.size()); }
    [[nodiscard]] const char* const* values() const noexcept { return values_.data(); }
    [[nodiscard]] const int* lengths() const noexcept { return lengths_.data(); }
    [[nodiscard]] const int* formats() const noexcept { return formats_.data(); }

private:
    std::vector<const char*> values_;
    std::vector<int> lengths_;
    std::vector<int> formats_;
};

int send_prepared(PGconn* connection, const char* name, const Parameters& parameters) {
    const Bound bound{parameters};
    return PQsendQueryPrepared(connection, name, bound.count(), bound.values(), bound.lengths(),
                               bound.formats(), kText);
}

void take(Reply& reply, PGresult* result) {
    Rows rows{result};
    const auto status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
        reply.rows = std::move(rows);
        return;
    }
    if (reply.is_refused) {
        return;
    }
    const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (state == nullptr) {  // libpq's own complaint of what it has received: that proves nothing
        reply.is_lost = true;
        reply.message = PQresultErrorMessage(result);
        return;
    }
    reply.is_refused = true;
    reply.state = state;
    const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    reply.message = message == nullptr ? "" : message;
}

}  // namespace

bool Field::is_null() const noexcept {
    return PQgetisnull(rows_, row_, column_) != 0;
}

std::string_view Field::text() const noexcept {
    return {PQgetvalue(rows_, row_, column_),
            static_cast<std::size_t>(PQgetlength(rows_, row_, column_))};
}

std::size_t Rows::size() const noexcept {
    return static_cast<std::size_t>(PQntuples(result_.get()));  // none of a null result
}

void Rows::Clear::operator()(pg_result* result) const noexcept {
    PQclear(result);
}

void Session::Finish::operator()(pg_conn* connection) const noexcept {
    PQfinish(connection);
}

Socket::Socket(int descriptor) : descriptor_{::fcntl(descriptor, F_DUPFD_CLOEXEC, 0)} {}

Socket::~Socket() {
    if (is_open()) {
        ::close(descriptor_);
    }
}

void Socket::shut_down() const noexcept {
    ::shutdown(descriptor_, SHUT_RDWR);
}

base::Result<std::unique_ptr<Session>> Session::open(const std::string& url) {
    std::unique_ptr<Session> session{new Session{PQconnectdb(url.c_str())}};  // NOLINT: private
    auto* connection = session->connection_.get();
    if (PQstatus(connection) != CONNECTION_OK || PQsetnonblocking(connection, 1) != 0) {
        return base::Error{base::ErrorCode::unavailable, message_of(connection)};
    }
    PQsetNoticeReceiver(connection, ignore, nullptr);
    session->socket_ = std::make_shared<const Socket>(PQsocket(connection));
    if (!session->socket_->is_open()) {
        return base::Error{base::ErrorCode::unavailable, "no descriptor is left"};
    }
    return session;
}

// Takes leave first, then nobody keeps the server waiting who still has the descriptor.
Session::~Session() {
    connection_.reset();
    if (socket_ != nullptr) {
        socket_->shut_down();
    }
}

int Session::server_pid() const noexcept {
    return PQbackendPID(connection_.get());
}

Reply Session::execute(const std::string& sql, base::Instant deadline) {
    return call([&](PGconn* connection) { return PQsendQuery(connection, sql.c_str()); }, deadline);
}

Reply Session::execute(const std::string& sql,
                       const Parameters& parameters,
                       base::Instant deadline) {
    const Bound bound{parameters};
    return call(
        [&](PGconn* connection) {
            return PQsendQueryParams(connection, sql.c_str(), bound.count(), nullptr,
                                     bound.values(), bound.lengths(), bound.formats(), kText);
        },
        deadline);
}

Reply Session::prepare(const char* name, const char* sql, base::Instant deadline) {
    return call(
        [&](PGconn* connection) { return PQsendPrepare(connection, name, sql, 0, nullptr); },
        deadline);
}

Reply Session::execute_prepared(const char* name,
                                const Parameters& parameters,
                                base::Instant deadline) {
    return call([&](PGconn* connection) { return send_prepared(connection, name, parameters); },
                deadline);
}

bool Session::try_start_prepared(const char* name, const Parameters& parameters) {
    auto* connection = connection_.get();
    // Who knows what has left of what a broken connection refused: finish() will say that it is
    // lost.
    return PQstatus(connection) == CONNECTION_OK &&
           (send_prepared(connection, name, parameters) != 0 ||
            PQstatus(connection) != CONNECTION_OK);
}

bool Session::is_sent() {
    return PQflush(connection_.get()) == 0;
}

template <class Send>
Reply Session::call(Send send, base::Instant deadline) {
    auto* connection = connection_.get();
    if (send(connection) == 0 && PQstatus(connection) == CONNECTION_OK) {
        Reply reply;
        reply.is_refused = true;
        reply.message = message_of(connection);
        return reply;
    }
    return finish(deadline);
}

Reply Session::finish(base::Instant deadline) {
    auto reply = std::exchange(early_, Reply{});
    bool is_answered = false;
    if (flush(deadline)) {
        while (!is_answered && receive(deadline)) {
            is_answered = take_result(reply);
        }
    }
    note_loss(reply, is_answered);
    return reply;
}

std::optional<Reply> Session::try_finish() {
    auto* connection = connection_.get();
    if (!is_sent() || !read()) {
        return std::nullopt;
    }
    while (PQisBusy(connection) == 0) {
        if (take_result(early_)) {
            auto reply = std::exchange(early_, Reply{});
            note_loss(reply, true);
            return reply;
        }
    }
    return std::nullopt;
}

// One that is here already. @return whether there are no more
bool Session::take_result(Reply& reply) {
    auto* result = PQgetResult(connection_.get());
    if (result == nullptr) {
        return true;
    }
    take(reply, result);
    return false;
}

void Session::note_loss(Reply& reply, bool is_answered) {
    auto* connection = connection_.get();
    if (is_answered && PQstatus(connection) == CONNECTION_OK) {
        return;
    }
    reply.rows = {};
    reply.is_lost = true;
    reply.message = is_late_ ? "no answer within the deadline" : message_of(connection);
    socket_->shut_down();
}

// The server may have to be read from before it takes more.
bool Session::flush(base::Instant deadline) {
    auto* connection = connection_.get();
    for (;;) {
        const int left = PQflush(connection);
        if (left <= 0) {
            return left == 0;
        }
        if (!wait(POLLIN | POLLOUT, deadline) || PQconsumeInput(connection) == 0) {
            return false;
        }
    }
}

// @return whether the next result is there; of a lost connection it says what happened
bool Session::receive(base::Instant deadline) {
    auto* connection = connection_.get();
    while (PQisBusy(connection) != 0) {
        if (PQstatus(connection) != CONNECTION_OK) {  // libpq before 15
            return false;
        }
        if (!wait(POLLIN, deadline)) {
            return false;
        }
        if (!read()) {
            return PQstatus(connection) != CONNECTION_OK;
        }
    }
    return true;
}

bool Session::read() {
    auto* connection = connection_.get();
    const bool is_read = PQconsumeInput(connection) != 0;
    // What TLS has taken from the socket and not given out no poll() tells of: it is half a record
    // at most, for which there is room now.
    return is_read && PQsslInUse(connection) != 0 ? PQconsumeInput(connection) != 0 : is_read;
}

bool Session::wait(short events, base::Instant deadline) {
    pollfd watched{PQsocket(connection_.get()), events, 0};
    for (;;) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - base::system_clock().now());
        if (left <= std::chrono::milliseconds::zero()) {
            is_late_ = true;
            observe::log(observe::LogLevel::error, "postgres",
                         "no answer within the deadline: connection given up");
            return false;
        }
        const auto milliseconds =
            std::min<std::int64_t>(left.count(), std::numeric_limits<int>::max());
        const int ready = poll(&watched, 1, static_cast<int>(milliseconds));
        if (ready > 0) {
            return true;
        }
        if (ready < 0 && errno != EINTR) {
            is_late_ = true;
            return false;
        }
    }
}

}  // namespace heddle::storage::postgres
