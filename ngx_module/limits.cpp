#include "ngx_module/limits.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "ngx_module/answer.hpp"
#include "ngx_module/barrier.hpp"
#include "ngx_module/shared_state.hpp"

namespace heddle::ngx {

namespace {

using Nanoseconds = std::uint64_t;
constexpr Nanoseconds kSecond = 1'000'000'000;
constexpr std::size_t kKeyBytesMax = 1'024;
constexpr std::size_t kLimitsMax = 8;  // in one location
constexpr ngx_int_t kRateMax = 1'000'000;

/// One key, in the zone. `node` must come first: nginx's tree knows only that.
struct Entry {
    ngx_rbtree_node_t node;  // node.key is a hash of the key
    ngx_queue_t queue;       // least recently used last
    Nanoseconds full_at;     // when the bucket will be full again
    std::uint16_t length;
    u_char key[1];
};

struct LimitShared {
    ngx_rbtree_t tree;
    ngx_rbtree_node_t sentinel;
    ngx_queue_t queue;
};

/// The zone's data: in the configuration pool.
struct LimitZone {
    LimitShared* shared;
    ngx_slab_pool_t* slab;
    ngx_http_complex_value_t key;
    ngx_str_t name;
    ngx_uint_t rate;          // requests ...
    ngx_uint_t window_s;      // ... in so many seconds
    Nanoseconds per_request;  // window / rate
};

/// What one limit says of one request.
struct Verdict {
    LimitZone* zone = nullptr;
    bool admitted = false;
    ngx_uint_t remaining = 0;  // requests that would be admitted now
    Nanoseconds wait = 0;      // until `remaining` grows by one
    Nanoseconds taken = 0;     // to give back if another limit refuses
    std::uint32_t hash = 0;
    ngx_str_t key{};
};

int compare(const ngx_str_t& key, const Entry& entry) {
    return static_cast<int>(
        ngx_memn2cmp(key.data, const_cast<u_char*>(entry.key), key.len, entry.length));
}

Entry* entry_of(ngx_rbtree_node_t* node) {
    return reinterpret_cast<Entry*>(node);
}
Entry* entry_of(ngx_queue_t* queue) {
    return reinterpret_cast<Entry*>(reinterpret_cast<u_char*>(queue) - offsetof(Entry, queue));
}

void insert_value(ngx_rbtree_node_t* at, ngx_rbtree_node_t* node, ngx_rbtree_node_t* sentinel) {
    const Entry& inserted = *entry_of(node);
    const ngx_str_t key{inserted.length, const_cast<u_char*>(inserted.key)};
    ngx_rbtree_node_t** place = nullptr;
    for (;;) {
        const bool left =
            node->key != at->key ? node->key < at->key : compare(key, *entry_of(at)) < 0;
        place = left ? &at->left : &at->right;
        if (*place == sentinel) {
            break;
        }
        at = *place;
    }
    *place = node;
    node->parent = at;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}

Entry* find(LimitShared& shared, std::uint32_t hash, const ngx_str_t& key) {
    ngx_rbtree_node_t* node = shared.tree.root;
    while (node != shared.tree.sentinel) {
        if (hash != node->key) {
            node = hash < node->key ? node->left : node->right;
            continue;
        }
        const int order = compare(key, *entry_of(node));
        if (order == 0) {
            return entry_of(node);
        }
        node = order < 0 ? node->left : node->right;
    }
    return nullptr;
}

void remove_oldest(LimitZone& zone) {
    Entry* oldest = entry_of(ngx_queue_last(&zone.shared->queue));
    ngx_queue_remove(&oldest->queue);
    ngx_rbtree_delete(&zone.shared->tree, &oldest->node);
    ngx_slab_free_locked(zone.slab, oldest);
}

/// Frees up to two entries whose buckets are full: they say nothing that a new one would not.
void expire(LimitZone& zone, Nanoseconds now) {
    for (int i = 0; i < 2 && !ngx_queue_empty(&zone.shared->queue); i++) {
        if (entry_of(ngx_queue_last(&zone.shared->queue))->full_at > now) {
            return;
        }
        remove_oldest(zone);
    }
}

Entry* make(LimitZone& zone, std::uint32_t hash, const ngx_str_t& key, Nanoseconds now) {
    expire(zone, now);
    const std::size_t size = offsetof(Entry, key) + key.len;
    auto* entry = static_cast<Entry*>(ngx_slab_alloc_locked(zone.slab, size));
    // A full zone forgets the least recently used keys: those gain a full bucket, which is the
    // lesser harm. The bound keeps a fragmented zone from holding its mutex for long.
    for (int i = 0; entry == nullptr && i < 16 && !ngx_queue_empty(&zone.shared->queue); i++) {
        remove_oldest(zone);
        entry = static_cast<Entry*>(ngx_slab_alloc_locked(zone.slab, size));
    }
    if (entry == nullptr) {
        return nullptr;
    }
    entry->node.key = hash;
    entry->full_at = 0;
    entry->length = static_cast<std::uint16_t>(key.len);
    std::memcpy(entry->key, key.data, key.len);
    ngx_rbtree_insert(&zone.shared->tree, &entry->node);
    ngx_queue_insert_head(&zone.shared->queue, &entry->queue);
    return entry;
}

/// Takes a token if there is one. false: the zone has no memory for the key.
bool take(LimitZone& zone, ngx_uint_t burst, Nanoseconds now, Verdict& verdict) {
    const ZoneLock lock{zone.slab};
    Entry* entry = find(*zone.shared, verdict.hash, verdict.key);
    if (entry == nullptr) {
        entry = make(zone, verdict.hash, verdict.key, now);
    } else {
        ngx_queue_remove(&entry->queue);
        ngx_queue_insert_head(&zone.shared->queue, &entry->queue);
    }
    if (entry == nullptr) {
        return false;
    }
    const Nanoseconds capacity = burst * zone.per_request;
    Nanoseconds missing = std::min(entry->full_at > now ? entry->full_at - now : 0, capacity);
    verdict.admitted = capacity - missing >= zone.per_request;
    if (verdict.admitted) {
        missing += zone.per_request;
        entry->full_at = now + missing;
        verdict.taken = zone.per_request;
    }
    const Nanoseconds left = capacity - missing;
    verdict.remaining = left / zone.per_request;
    verdict.wait = zone.per_request - left % zone.per_request;
    return true;
}

void give_back(const Verdict& verdict) {
    const ZoneLock lock{verdict.zone->slab};
    Entry* entry = find(*verdict.zone->shared, verdict.hash, verdict.key);
    if (entry != nullptr) {
        entry->full_at -= std::min(entry->full_at, verdict.taken);
    }
}

/// nginx refuses one zone name for two uses by this tag, so that a limit cannot name a pool's zone.
int limit_zone_tag = 0;

ngx_uint_t whole_seconds(Nanoseconds time) {
    return (time + kSecond - 1) / kSecond;
}

using Verdicts = std::array<Verdict, kLimitsMax>;

/// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-09): one list member a
/// limit.
bool add_limit_headers(ngx_http_request_t* r, const Verdicts& verdicts, std::size_t count) {
    constexpr std::size_t kMemberBytes = 64;  // of both members, without the zone's name
    std::size_t size = 0;
    for (std::size_t i = 0; i < count; i++) {
        size += verdicts[i].zone->name.len + kMemberBytes;
    }
    auto* policy = static_cast<u_char*>(ngx_pnalloc(r->pool, size * 2));
    if (policy == nullptr) {
        return false;
    }
    u_char* state = policy + size;
    u_char* policy_end = policy;
    u_char* state_end = state;
    for (std::size_t i = 0; i < count; i++) {
        const Verdict& v = verdicts[i];
        const char* comma = i == 0 ? "" : ", ";
        policy_end = ngx_sprintf(policy_end, "%s\"%V\";q=%ui;w=%ui", comma, &v.zone->name,
                                 v.zone->rate, v.zone->window_s);
        state_end = ngx_sprintf(state_end, "%s\"%V\";r=%ui;t=%ui", comma, &v.zone->name,
                                v.remaining, whole_seconds(v.wait));
    }
    const auto text = [](const u_char* from, const u_char* end) {
        return std::string_view{reinterpret_cast<const char*>(from),
                                static_cast<std::size_t>(end - from)};
    };
    return add_header(r, "RateLimit-Policy", text(policy, policy_end)) &&
           add_header(r, "RateLimit", text(state, state_end));
}

/// Marks the request as counted in a way that survives internal redirects, which clear r->ctx.
void counted_marker(void* /*unused*/) {}

bool try_mark_counted(ngx_http_request_t* r) {
    if (r->internal) {
        for (ngx_pool_cleanup_t* c = r->main->pool->cleanup; c != nullptr; c = c->next) {
            if (c->handler == counted_marker) {
                return false;
            }
        }
    }
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(r->main->pool, 0);
    if (cleanup != nullptr) {
        cleanup->handler = counted_marker;
    }
    return true;
}

ngx_int_t refuse(ngx_http_request_t* r, const Verdict& verdict) {
    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0, "heddle: limiting requests by zone \"%V\"",
                  &verdict.zone->name);
    const ngx_int_t rc =
        answer_error(r, {loc_conf(r)->limit_status, "rate_limited", "too many requests on this key",
                         std::max<ngx_uint_t>(1, whole_seconds(verdict.wait))});
    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }
    ngx_http_finalize_request(r, rc);
    return NGX_DONE;
}

ngx_int_t check_limits(ngx_http_request_t* r) {
    const ArrayView<LimitConf> limits{loc_conf(r)->limits};
    if (limits.size() == 0 || r != r->main || !try_mark_counted(r)) {
        return NGX_DECLINED;
    }
    const Nanoseconds now = static_cast<Nanoseconds>(ngx_current_msec) * 1'000'000;
    Verdicts verdicts;
    std::size_t count = 0;
    const Verdict* refused = nullptr;
    for (const LimitConf& limit : limits) {
        Verdict& verdict = verdicts[count];
        verdict.zone = static_cast<LimitZone*>(limit.zone->data);
        if (ngx_http_complex_value(r, &verdict.zone->key, &verdict.key) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
        if (verdict.key.len == 0 || verdict.key.len > kKeyBytesMax) {
            continue;  // as with limit_req: no key, no limit
        }
        verdict.hash = ngx_crc32_short(verdict.key.data, verdict.key.len);
        const ngx_uint_t burst = limit.burst > 0 ? limit.burst : verdict.zone->rate;
        if (!take(*verdict.zone, burst, now, verdict)) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "heddle: limit zone \"%V\" has no memory", &verdict.zone->name);
            return NGX_HTTP_SERVICE_UNAVAILABLE;
        }
        count++;
        if (!verdict.admitted) {
            refused = &verdict;
            break;
        }
    }
    if (refused != nullptr) {
        for (std::size_t i = 0; i + 1 < count; i++) {
            give_back(verdicts[i]);
        }
    }
    if (count > 0 && !add_limit_headers(r, verdicts, count)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return refused == nullptr ? NGX_DECLINED : refuse(r, *refused);
}

ngx_int_t init_limit_zone(ngx_shm_zone_t* shm_zone, void* old_data) noexcept {
    auto* zone = static_cast<LimitZone*>(shm_zone->data);
    zone->slab = reinterpret_cast<ngx_slab_pool_t*>(shm_zone->shm.addr);
    if (old_data != nullptr) {
        const auto* old = static_cast<const LimitZone*>(old_data);
        if (view(old->key.value) != view(zone->key.value)) {
            ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                          "heddle_limit_zone \"%V\" has the key \"%V\", before it had \"%V\"",
                          &shm_zone->shm.name, &zone->key.value, &old->key.value);
            return NGX_ERROR;
        }
        zone->shared = old->shared;
        return NGX_OK;
    }
    if (shm_zone->shm.exists) {
        zone->shared = static_cast<LimitShared*>(zone->slab->data);
        return NGX_OK;
    }
    zone->shared = static_cast<LimitShared*>(ngx_slab_calloc(zone->slab, sizeof(LimitShared)));
    if (zone->shared == nullptr) {
        return NGX_ERROR;
    }
    zone->slab->data = zone->shared;
    zone->slab->log_nomem = 0;  // a full zone is mended by forgetting the oldest key
    ngx_rbtree_init(&zone->shared->tree, &zone->shared->sentinel, insert_value);
    ngx_queue_init(&zone->shared->queue);
    return NGX_OK;
}

bool is_plain_name(std::string_view name) {
    return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.';
    });
}

/// "N r/s" or "N r/m", written without the space. false: neither.
bool parse_rate(std::string_view text, LimitZone& zone) {
    const auto unit = text.size() < 4 ? std::string_view{} : text.substr(text.size() - 3);
    if (unit != "r/s" && unit != "r/m") {
        return false;
    }
    const ngx_str_t number = as_ngx(text.substr(0, text.size() - 3));
    const ngx_int_t rate = ngx_atoi(number.data, number.len);
    if (rate < 1 || rate > kRateMax) {
        return false;
    }
    zone.rate = static_cast<ngx_uint_t>(rate);
    zone.window_s = unit == "r/s" ? 1 : 60;
    zone.per_request = zone.window_s * kSecond / zone.rate;
    return true;
}

char* conf_error(ngx_conf_t* cf, const char* text) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" %s", &ArrayView<ngx_str_t>{cf->args}[0], text);
    return static_cast<char*>(NGX_CONF_ERROR);
}

}  // namespace

char* set_limit_zone(ngx_conf_t* cf, ngx_command_t* /*unused*/, void* /*unused*/) noexcept {
    const ArrayView<ngx_str_t> words{cf->args};
    auto* zone = zeroed_in_pool<LimitZone>(cf->pool);
    if (zone == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    ngx_http_compile_complex_value_t compile{};
    compile.cf = cf;
    compile.value = &words[1];
    compile.complex_value = &zone->key;
    if (ngx_http_compile_complex_value(&compile) != NGX_OK) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    ssize_t size = 0;
    for (std::size_t i = 2; i < words.size(); i++) {
        const auto word = view(words[i]);
        if (word.substr(0, 5) == "zone=") {
            const auto colon = std::min(word.find(':'), word.size());
            ngx_str_t bytes = as_ngx(word.substr(std::min(colon + 1, word.size())));
            zone->name = as_ngx(word.substr(5, colon - 5));
            size = ngx_parse_size(&bytes);
        } else if (word.substr(0, 5) != "rate=" || !parse_rate(word.substr(5), *zone)) {
            return conf_error(cf, "needs rate=N followed by r/s or r/m, 1 to 1000000");
        }
    }
    if (!is_plain_name(view(zone->name)) || size < static_cast<ssize_t>(8 * ngx_pagesize) ||
        zone->rate == 0) {
        return conf_error(cf,
                          "needs KEY zone=NAME:SIZE rate=N; SIZE is at least 32k, "
                          "NAME of letters, digits, _ - .");
    }
    ngx_shm_zone_t* shm_zone =
        ngx_shared_memory_add(cf, &zone->name, static_cast<size_t>(size), &limit_zone_tag);
    if (shm_zone == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    if (shm_zone->data != nullptr) {
        return conf_error(cf, "names a zone that exists already");
    }
    shm_zone->init = init_limit_zone;
    shm_zone->data = zone;
    return NGX_CONF_OK;
}

char* set_limit(ngx_conf_t* cf, ngx_command_t* /*unused*/, void* conf) noexcept {
    auto* loc = static_cast<LocConf*>(conf);
    LimitConf limit{};
    const ArrayView<ngx_str_t> words{cf->args};
    for (std::size_t i = 1; i < words.size(); i++) {
        const auto word = view(words[i]);
        if (word.substr(0, 5) == "zone=") {
            ngx_str_t name = as_ngx(word.substr(5));
            limit.zone = ngx_shared_memory_add(cf, &name, 0, &limit_zone_tag);
        } else if (word.substr(0, 6) == "burst=") {
            const ngx_int_t burst = ngx_atoi(words[i].data + 6, words[i].len - 6);
            if (burst < 1 || burst > kRateMax) {
                return conf_error(cf, "has a burst that is not within 1 to 1000000");
            }
            limit.burst = static_cast<ngx_uint_t>(burst);
        } else if (word != "nodelay") {
            return conf_error(cf, "knows zone=NAME, burst=N and nodelay");
        }
    }
    if (limit.zone == nullptr) {
        return conf_error(cf, "has no zone=NAME");
    }
    if (loc->limits == nullptr) {
        loc->limits = ngx_array_create(cf->pool, 2, sizeof(LimitConf));
    }
    if (loc->limits == nullptr || loc->limits->nelts == kLimitsMax) {
        return conf_error(cf, "is one too many here: at most 8");
    }
    auto* slot = static_cast<LimitConf*>(ngx_array_push(loc->limits));
    if (slot == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    *slot = limit;
    return NGX_CONF_OK;
}

ngx_int_t handle_limits(ngx_http_request_t* r) noexcept {
    return guarded(r->connection->log, "limits", ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR},
                   [r] { return check_limits(r); });
}

}  // namespace heddle::ngx
