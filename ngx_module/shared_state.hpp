#pragma once

#include <atomic>
#include <cstdint>

#include "ngx_module/conf.hpp"

/// What the workers of one pool tell each other, in the pool's shared memory zone. Every worker
/// writes only its own slot, without a lock; whoever asks for the status reads all slots.
namespace heddle::ngx {

enum class EngineState : std::uint8_t { connecting, up, draining, down };
[[nodiscard]] std::string_view name_of(EngineState state) noexcept;

/// One engine as one worker sees it.
struct EngineFigures {
    static constexpr std::size_t kIdBytes = 64;

    std::atomic<std::uint64_t> state;  ///< EngineState
    std::atomic<std::uint64_t> in_flight;
    std::atomic<std::uint64_t> requests;
    std::atomic<std::uint64_t> failures;  ///< requests that this engine was lost with
    std::atomic<std::uint64_t> moved;
    std::atomic<std::uint64_t> refused;
    std::atomic<std::uint64_t> frames_dropped;
    std::atomic<std::uint64_t> pong_at;  ///< ngx_current_msec of the last sign of life
    std::atomic<std::uint64_t> threads_owned;
    std::atomic<std::uint64_t> runs_running;
    std::atomic<std::uint64_t> runs_waiting;
    char engine_id[kIdBytes];  ///< zero-terminated; written and read under the zone's mutex
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

struct WorkerSlot {
    WorkerSlot* next;
    ngx_pid_t pid;
    EngineFigures engines[1];  ///< as many as the pool has
};

/// One list of engines. A reload that changes the list makes a new one; the old lives as long as
/// the workers that use it.
struct PoolShared {
    PoolShared* next;
    std::uint64_t engines_hash;
    ngx_uint_t engines;
    WorkerSlot* workers;
    EngineFigures gone[1];  ///< sums of workers that have ended
};

/// The zone's data: in the configuration pool, one a configuration.
struct PoolZone {
    const PoolConf* conf;
    ngx_slab_pool_t* slab;
    PoolShared** lists;  ///< in the zone
    PoolShared* shared;  ///< in the zone; of this configuration
};

PoolZone* pool_zone_plan(ngx_pool_t* pool, const PoolConf* conf) noexcept;
ngx_int_t init_pool_zone(ngx_shm_zone_t* zone, void* old_data) noexcept;

/// Takes a slot for this process; nullptr if the zone is full.
WorkerSlot* take_slot(PoolZone& zone) noexcept;
/// Adds the slot's sums to those of ended workers and frees it.
void give_slot_back(PoolZone& zone, WorkerSlot* slot) noexcept;

/// Whether a worker of this configuration has a connection to the engine.
bool is_usable_for_anyone(PoolZone& zone, std::size_t engine) noexcept;

/// Holds the zone's mutex while it lives. Only for short, bounded work.
class ZoneLock {
public:
    explicit ZoneLock(ngx_slab_pool_t* slab) noexcept : slab_{slab} {
        ngx_shmtx_lock(&slab->mutex);
    }
    ~ZoneLock() { ngx_shmtx_unlock(&slab_->mutex); }
    ZoneLock(const ZoneLock&) = delete;
    ZoneLock& operator=(const ZoneLock&) = delete;

private:
    ngx_slab_pool_t* slab_;
};

}  // namespace heddle::ngx
