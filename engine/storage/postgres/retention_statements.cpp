// What retention asks of the database (ADR 0008).
#include "engine/storage/postgres/statement_parts.hpp"
#include "engine/storage/postgres/statements.hpp"

namespace heddle::storage::postgres {

const Statement kPrune{
    "prune",
    "WITH i AS (SELECT * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], "
    "$7::bool[], $8::bytea[]) AS i (key, epoch, first, below, kept, stop, snapshot)), "
    "ok AS (UPDATE heddle.threads t SET first_seq = greatest(t.first_seq, i.first), "
    "expires_at = CASE WHEN i.stop THEN NULL ELSE t.expires_at END, batch = $9::int8 FROM i "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $9 RETURNING t.thread_key AS key), "
    "s AS (UPDATE heddle.journal j SET data = i.snapshot FROM i WHERE j.thread_key = i.key "
    "AND j.seq = i.first AND i.snapshot IS NOT NULL AND " HEDDLE_PG_IN_OK("i.key") "), "
    "d AS (DELETE FROM heddle.journal j USING i WHERE j.thread_key = i.key AND j.seq < i.below "
    "AND " HEDDLE_PG_IN_OK("i.key") "), "
    "r AS (DELETE FROM heddle.runs r USING i WHERE r.thread_key = i.key AND NOT r.is_open "
    "AND r.updated_at < " HEDDLE_PG_BEGUN
    " - i.kept AND NOT EXISTS (SELECT 1 FROM heddle.journal j WHERE j.thread_key = i.key "
    "AND j.seq >= i.first AND j.run_id = r.run_id) "
    "AND " HEDDLE_PG_IN_OK("i.key") ") "
    "SELECT key FROM ok"};

const Statement kSetTtl{
    "set_ttl",
    "WITH ok AS (UPDATE heddle.threads t SET updated_at = $2::int8, ttl = i.ttl, "
    "ttl_strategy = i.strategy, batch = $7::int8, "
    "expires_at = greatest(i.ttl, i.kept) + " HEDDLE_PG_BEGUN
    " FROM unnest($3::int8[], $4::int8[], $5::int8[], $6::int2[], $8::int8[]) "
    "AS i (key, epoch, ttl, strategy, kept) "
    "WHERE t.thread_key = i.key AND t.epoch = i.epoch AND t.owner = $1::uuid "
    "AND t.batch < $7 RETURNING t.thread_key AS key) "
    "SELECT key FROM ok"};

// Of what nobody alive owns each engine gets its share: if several claimed the same threads at
// once, the claims of everybody else would wait behind them.
const Statement kFindExpired{
    "find_expired",
    "WITH " HEDDLE_PG_SHARE("$2::int8")
    " SELECT t.thread_key, t.thread_id, t.epoch, t.owner IS NOT DISTINCT FROM $1::uuid, "
    "t.ttl_strategy, t.expires_at, t.head_seq - t.first_seq + 1 FROM heddle.threads t, share s "
    "WHERE t.expires_at <= " HEDDLE_PG_BEGUN
    " AND (t.owner IS NOT DISTINCT FROM $1 OR (t.thread_key % s.parts = s.part "
    "AND (t.owner IS NULL OR t.owner NOT IN (SELECT engine_id FROM live)))) "
    "AND NOT EXISTS (SELECT 1 FROM heddle.runs r WHERE r.thread_key = t.thread_key AND r.is_open) "
    "ORDER BY t.expires_at LIMIT $3::int8"};

// On disk before anybody goes on with it: a server that crashes would forget the claim, and not the
// engine that was told of its run and stores it afterwards. No row: somebody else's claim of the
// same moment is not to be seen yet.
const Statement kClaimKey{
    "claim_key",
    "WITH c AS (INSERT INTO heddle.idempotency_keys AS k (key, thread_id, run_id, expires_at) "
    "VALUES ($1::bytea, $2::uuid, $3::uuid, $4::int8 + " HEDDLE_PG_BEGUN
    ") ON CONFLICT (key) DO UPDATE SET thread_id = excluded.thread_id, run_id = excluded.run_id, "
    "expires_at = excluded.expires_at WHERE k.expires_at <= " HEDDLE_PG_BEGUN
    " AND NOT EXISTS (SELECT 1 FROM heddle.runs r WHERE r.run_id = k.run_id AND r.is_open) "
    "RETURNING k.thread_id, k.run_id) SELECT * FROM c UNION ALL "
    "SELECT k.thread_id, k.run_id FROM heddle.idempotency_keys k "
    "WHERE k.key = $1 AND NOT EXISTS (SELECT 1 FROM c)"};

const Statement kDeleteExpiredKeys{
    "delete_expired_keys",
    "WITH d AS (DELETE FROM heddle.idempotency_keys WHERE key IN (SELECT k.key "
    "FROM heddle.idempotency_keys k WHERE k.expires_at <= " HEDDLE_PG_BEGUN
    " AND NOT EXISTS (SELECT 1 FROM heddle.runs r WHERE r.run_id = k.run_id AND r.is_open) "
    "ORDER BY k.expires_at LIMIT $1::int8 FOR UPDATE SKIP LOCKED) RETURNING 1) "
    "SELECT count(*) FROM d"};

}  // namespace heddle::storage::postgres
