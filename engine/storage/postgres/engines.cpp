#include "engine/storage/postgres/engines.hpp"

#include <chrono>

#include "engine/storage/postgres/rows.hpp"
#include "engine/storage/postgres/statements.hpp"

namespace heddle::storage::postgres {
namespace {

Answer<bool> plain(const Executed& executed) {
    if (executed.fate == Fate::lost) {
        return std::nullopt;
    }
    if (executed.fate != Fate::done) {
        return Result<bool>{error_of(executed.fate)};
    }
    return Result<bool>{true};
}

}  // namespace

Answer<bool> register_engine(Connection& connection,
                             const EngineRow& engine,
                             base::Instant deadline) {
    Parameters parameters;
    parameters.add(engine.id).add_bytes(engine.endpoint).add_bool(engine.draining);
    return plain(connection.execute(kRegister, parameters, deadline));
}

Answer<bool> heartbeat(Connection& connection,
                       const EngineRow& engine,
                       base::Duration lease,
                       base::Instant deadline) {
    Parameters parameters;
    parameters.add(engine.id).add_bool(engine.draining).add(base::microseconds(lease));
    const auto renewed = connection.execute(kHeartbeat, parameters, deadline);
    if (renewed.fate != Fate::done || !renewed.rows.empty()) {
        return plain(renewed);
    }
    const auto found = connection.execute(kHasEngine, Parameters{}.add(engine.id), deadline);
    if (found.fate != Fate::done) {
        return plain(found);
    }
    if (found.rows.empty()) {
        return Result<bool>{base::Error{base::ErrorCode::not_found, "engine not found"}};
    }
    return Result<bool>{base::Error{base::ErrorCode::stale_epoch, "the engine's lease has passed"}};
}

Answer<bool> unregister_engine(Connection& connection,
                               const EngineId& engine,
                               base::Instant deadline) {
    return plain(connection.execute(kUnregister, Parameters{}.add(engine), deadline));
}

Answer<std::vector<EngineRow>> list_engines(Connection& connection,
                                            base::Duration lease,
                                            base::Instant deadline) {
    const auto executed =
        connection.execute(kListEngines, Parameters{}.add(base::microseconds(lease)), deadline);
    if (executed.fate == Fate::lost) {
        return std::nullopt;
    }
    if (executed.fate != Fate::done) {
        return Result<std::vector<EngineRow>>{error_of(executed.fate)};
    }
    std::vector<EngineRow> engines;
    for (const auto row : executed.rows) {
        const bool is_draining = read_text(row[2]) == "t";
        engines.push_back(EngineRow{EngineId{read_uuid(row[0])}, read_text(row[1]), is_draining});
    }
    return Result<std::vector<EngineRow>>{std::move(engines)};
}

}  // namespace heddle::storage::postgres
