#pragma once

#include "engine/storage/sqlite/connection.hpp"
#include "engine/storage/store.hpp"

namespace heddle::storage::sqlite {

/// What each changing operation of the port does to the tables. Every member runs inside the
/// transaction that its caller has opened and throws SqliteError; used by the writer alone.
class Tables {
public:
    /// Both must outlive this.
    Tables(Connection& connection, const base::Clock& clock, base::Duration lease)
        : connection_{connection}, clock_{clock}, lease_{lease} {}

    void register_engine(const EngineRow& engine);
    Status heartbeat(const EngineId& engine, bool draining);
    void unregister_engine(const EngineId& engine);
    ClaimOutcome claim(const EngineId& engine, const ThreadClaim& claim);
    /// These two throw SQLITE_CONSTRAINT half way through: the caller rolls back.
    Result<ThreadKey> create(const EngineId& engine, const ThreadClaim& claim, ThreadWrite first);
    Status write(const EngineId& engine, const ThreadWrite& write);
    KeyHolder claim_key(const KeyClaim& claim);
    std::int32_t delete_expired_keys(std::int32_t limit);

private:
    /// The endpoint of `owner` if it is a live engine other than `engine`.
    std::optional<std::string> find_live_endpoint(const EngineId& owner);
    ThreadRow create_thread(const EngineId& engine, const ThreadClaim& claim);
    bool update_thread(const EngineId& engine, const ThreadWrite& write);
    Status delete_thread(const EngineId& engine, const ThreadWrite& write);
    Status set_ttl(const EngineId& engine, const ThreadWrite& write);
    Status prune(const EngineId& engine, const ThreadWrite& write);
    void insert_journal(const ThreadWrite& write);
    void change_runs(const ThreadWrite& write);
    void change_tool_calls(const ThreadWrite& write);
    Status refuse(ThreadKey key);

    Connection& connection_;
    const base::Clock& clock_;
    const base::Duration lease_;
};

/// Since when an engine must have been heard of to be alive now. @param until  set to the latest
/// believable heartbeat: a clock that was set back must not make a dead engine live on
std::int64_t alive_since(const base::Clock& clock, base::Duration lease, std::int64_t& until);

}  // namespace heddle::storage::sqlite
