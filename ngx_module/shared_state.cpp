#include "ngx_module/shared_state.hpp"

#include <csignal>

namespace heddle::ngx {

namespace {

std::uint64_t hash_engines(const PoolConf& conf) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const EngineConf& engine : ArrayView<EngineConf>{&conf.engines}) {
        for (const char c : view(engine.endpoint)) {
            hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ULL;
        }
        hash = (hash ^ 0xffU) * 0x100000001b3ULL;
    }
    return hash;
}

bool is_running(ngx_pid_t pid) {
    return kill(pid, 0) == 0 || errno != ESRCH;
}

void add(std::atomic<std::uint64_t>& sum, const std::atomic<std::uint64_t>& value) {
    sum.fetch_add(value.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void fold(PoolShared& shared, const WorkerSlot& slot) {
    for (ngx_uint_t i = 0; i < shared.engines; i++) {
        add(shared.gone[i].requests, slot.engines[i].requests);
        add(shared.gone[i].failures, slot.engines[i].failures);
        add(shared.gone[i].moved, slot.engines[i].moved);
        add(shared.gone[i].refused, slot.engines[i].refused);
        add(shared.gone[i].frames_dropped, slot.engines[i].frames_dropped);
    }
}

/// Frees the slots of processes that ended without saying so. The mutex is held.
void sweep(ngx_slab_pool_t* slab, PoolShared& shared) {
    for (WorkerSlot** at = &shared.workers; *at != nullptr;) {
        WorkerSlot* slot = *at;
        if (is_running(slot->pid)) {
            at = &slot->next;
            continue;
        }
        fold(shared, *slot);
        *at = slot->next;
        ngx_slab_free_locked(slab, slot);
    }
}

PoolShared* find_or_make(PoolZone& zone, std::uint64_t hash, ngx_uint_t engines) {
    const ZoneLock lock{zone.slab};
    PoolShared* found = nullptr;
    for (PoolShared** at = zone.lists; *at != nullptr;) {
        PoolShared* shared = *at;
        sweep(zone.slab, *shared);
        if (shared->engines_hash == hash && shared->engines == engines) {
            found = shared;
        } else if (shared->workers == nullptr) {
            *at = shared->next;
            ngx_slab_free_locked(zone.slab, shared);
            continue;
        }
        at = &shared->next;
    }
    if (found == nullptr) {
        const std::size_t size = sizeof(PoolShared) + (engines - 1) * sizeof(EngineFigures);
        found = static_cast<PoolShared*>(ngx_slab_calloc_locked(zone.slab, size));
        if (found != nullptr) {
            found->engines_hash = hash;
            found->engines = engines;
            found->next = *zone.lists;
            *zone.lists = found;
        }
    }
    return found;
}

}  // namespace

std::string_view name_of(EngineState state) noexcept {
    switch (state) {
        case EngineState::connecting:
            return "connecting";
        case EngineState::up:
            return "up";
        case EngineState::draining:
            return "draining";
        case EngineState::down:
            break;
    }
    return "down";
}

PoolZone* pool_zone_plan(ngx_pool_t* pool, const PoolConf* conf) noexcept {
    auto* zone = zeroed_in_pool<PoolZone>(pool);
    if (zone != nullptr) {
        zone->conf = conf;
    }
    return zone;
}

ngx_int_t init_pool_zone(ngx_shm_zone_t* shm_zone, void* old_data) noexcept {
    auto* zone = static_cast<PoolZone*>(shm_zone->data);
    zone->slab = reinterpret_cast<ngx_slab_pool_t*>(shm_zone->shm.addr);
    if (old_data != nullptr) {
        zone->lists = static_cast<PoolZone*>(old_data)->lists;
    } else if (shm_zone->shm.exists) {
        zone->lists = static_cast<PoolShared**>(zone->slab->data);
    } else {
        zone->lists = static_cast<PoolShared**>(ngx_slab_calloc(zone->slab, sizeof(PoolShared*)));
        zone->slab->data = zone->lists;
        zone->slab->log_nomem = 0;
    }
    if (zone->lists != nullptr) {
        zone->shared = find_or_make(*zone, hash_engines(*zone->conf), zone->conf->engines.nelts);
    }
    if (zone->lists == nullptr || zone->shared == nullptr) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0, "heddle: zone \"%V\" is too small",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }
    return NGX_OK;
}

WorkerSlot* take_slot(PoolZone& zone) noexcept {
    const ZoneLock lock{zone.slab};
    sweep(zone.slab, *zone.shared);
    const std::size_t size =
        sizeof(WorkerSlot) + (zone.shared->engines - 1) * sizeof(EngineFigures);
    auto* slot = static_cast<WorkerSlot*>(ngx_slab_calloc_locked(zone.slab, size));
    if (slot != nullptr) {
        slot->pid = ngx_pid;
        slot->next = zone.shared->workers;
        zone.shared->workers = slot;
    }
    return slot;
}

void give_slot_back(PoolZone& zone, WorkerSlot* slot) noexcept {
    const ZoneLock lock{zone.slab};
    for (WorkerSlot** at = &zone.shared->workers; *at != nullptr; at = &(*at)->next) {
        if (*at == slot) {
            fold(*zone.shared, *slot);
            *at = slot->next;
            ngx_slab_free_locked(zone.slab, slot);
            return;
        }
    }
}

bool is_usable_for_anyone(PoolZone& zone, std::size_t engine) noexcept {
    const ZoneLock lock{zone.slab};
    for (const WorkerSlot* slot = zone.shared->workers; slot != nullptr; slot = slot->next) {
        const auto state =
            static_cast<EngineState>(slot->engines[engine].state.load(std::memory_order_relaxed));
        if (state == EngineState::up || state == EngineState::draining) {
            return true;
        }
    }
    return false;
}

}  // namespace heddle::ngx
