#pragma once

/// Every statement of the driver but those that write (write_statements.hpp). They name the schema
/// and set what they need themselves, so that they mean the same in any session. Those that change
/// threads return the keys of the threads they changed: where the caller's epoch still held.
namespace heddle::storage::postgres {

struct Statement {
    const char* name;
    const char* sql;
};

extern const Statement kDelete;
extern const Statement kRollBack;
extern const Statement kPrune;
extern const Statement kSetTtl;
extern const Statement kFence;
extern const Statement kExisting;
extern const Statement kHasJournal;
extern const Statement kHasRun;
extern const Statement kNextKeys;
extern const Statement kClaim;
extern const Statement kOpenRuns;
extern const Statement kOwners;
extern const Statement kEvict;
extern const Statement kRegister;
extern const Statement kHeartbeat;
extern const Statement kHasEngine;
extern const Statement kUnregister;
extern const Statement kListEngines;
extern const Statement kFindOrphans;
extern const Statement kFindExpired;
extern const Statement kClaimKey;
extern const Statement kDeleteExpiredKeys;
extern const Statement kLoadThread;
extern const Statement kLoadChain;
extern const Statement kLoadNewest;
extern const Statement kLoadChainOf;
extern const Statement kListJournal;
extern const Statement kLoadCalls;
extern const Statement kLoadRun;
extern const Statement kFindRun;
extern const Statement kListRuns;

/// How many keys one value of the sequence stands for (migrations.cpp, INCREMENT BY).
inline constexpr long long kKeyBlock = 1024;

}  // namespace heddle::storage::postgres
