#pragma once

#include <pqxx/pqxx>

/// Every prepared statement of the driver: name and text.
namespace heddle::storage::postgres {

inline constexpr const char* kWrite = "write";
inline constexpr const char* kDelete = "delete";
inline constexpr const char* kReadBack = "read_back";
inline constexpr const char* kHasJournal = "has_journal";
inline constexpr const char* kHasRun = "has_run";
inline constexpr const char* kNextKeys = "next_keys";
inline constexpr const char* kClaim = "claim";
inline constexpr const char* kOpenRuns = "open_runs";
inline constexpr const char* kOwners = "owners";
inline constexpr const char* kEvict = "evict";
inline constexpr const char* kRegister = "register";
inline constexpr const char* kHeartbeat = "heartbeat";
inline constexpr const char* kHasEngine = "has_engine";
inline constexpr const char* kUnregister = "unregister";
inline constexpr const char* kListEngines = "list_engines";
inline constexpr const char* kFindOrphans = "find_orphans";
inline constexpr const char* kLoadThread = "load_thread";
inline constexpr const char* kLoadChain = "load_chain";
inline constexpr const char* kLoadChainOf = "load_chain_of";
inline constexpr const char* kListJournal = "list_journal";
inline constexpr const char* kLoadRun = "load_run";
inline constexpr const char* kFindRun = "find_run";
inline constexpr const char* kListRuns = "list_runs";

/// Makes the statements known to a session; each is prepared when it is first used.
/// @throw as pqxx
void prepare_all(pqxx::connection& session);

/// How many keys one value of the sequence stands for (migrations.cpp, INCREMENT BY).
inline constexpr long long kKeyBlock = 1024;

}  // namespace heddle::storage::postgres
