#include "engine/storage/postgres/server_settings.hpp"

#include "engine/observe/log.hpp"
#include "engine/storage/postgres/rows.hpp"

namespace heddle::storage::postgres {
namespace {

constexpr const char* kSettingsSql =
    "SELECT current_setting('server_version'), current_setting('fsync'), "
    "current_setting('full_page_writes'), current_setting('synchronous_commit'), "
    "current_setting('synchronous_standby_names'), current_setting('wal_compression'), "
    "current_setting('max_connections')";

void log_settings(const Row& row, bool is_pooled) {
    const auto fsync = read_text(row[1]);
    const auto full_page_writes = read_text(row[2]);
    const auto synchronous_commit = read_text(row[3]);
    const auto standbys = read_text(row[4]);
    observe::log(observe::LogLevel::info, "postgres",
                 "server {}{}: fsync={} full_page_writes={} synchronous_commit={} "
                 "synchronous_standby_names='{}' wal_compression={} max_connections={}",
                 read_text(row[0]), is_pooled ? " through a pooler" : "", fsync, full_page_writes,
                 synchronous_commit, standbys, read_text(row[5]), read_text(row[6]));
    if (fsync == "off" || full_page_writes == "off") {
        observe::log(observe::LogLevel::warn, "postgres",
                     "a power cut can destroy this database: see ./heddle doctor");
    }
    const bool waits_for_standby =
        synchronous_commit == "on" || synchronous_commit == "remote_apply";
    if (!standbys.empty() && !waits_for_standby) {
        observe::log(observe::LogLevel::warn, "postgres",
                     "a failover may lose what was acknowledged: see ./heddle doctor");
    }
}

}  // namespace

base::Status inspect_server(const Endpoint& endpoint) try {
    auto connected = Connection::connect(endpoint, Role::reader);
    if (!connected) {
        return std::move(connected).error();
    }
    auto& connection = **connected;
    const auto executed = connection.execute_text(kSettingsSql, Parameters{},
                                                  base::system_clock().now() + endpoint.wait_max);
    if (executed.fate != Fate::done) {
        return error_of(executed.fate);
    }
    log_settings(executed.rows[0], connection.is_pooled());
    return base::ok();
} catch (const std::exception& error) {
    observe::log(observe::LogLevel::error, "postgres", "settings: {}", error.what());
    return error_of(Fate::internal);
}

}  // namespace heddle::storage::postgres
