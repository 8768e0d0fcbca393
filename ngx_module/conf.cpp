#include "ngx_module/conf.hpp"

#include "ngx_module/handler.hpp"
#include "ngx_module/limits.hpp"
#include "ngx_module/shared_state.hpp"
#include "ngx_module/status.hpp"

namespace heddle::ngx {

namespace {

constexpr ngx_msec_t kConnectTimeout = 2'000;
constexpr ngx_msec_t kReadTimeout = 60'000;
constexpr ngx_uint_t kWeightMax = 1'000;
constexpr std::size_t kEndpointBytesMax = 255;

char* error_text(const char* text) {
    return const_cast<char*>(text);
}
char* const kConfError = static_cast<char*>(NGX_CONF_ERROR);

bool starts_with(const ngx_str_t& text, std::string_view prefix) {
    return view(text).substr(0, prefix.size()) == prefix;
}

/// The pool of that name, made if this is the first mention; nullptr without memory.
PoolConf* find_or_add_pool(ngx_conf_t* cf, MainConf* main, const ngx_str_t& name) {
    for (PoolConf* pool : ArrayView<PoolConf*>{&main->pools}) {
        if (view(pool->name) == view(name)) {
            return pool;
        }
    }
    auto* pool = zeroed_in_pool<PoolConf>(cf->pool);
    auto** slot = static_cast<PoolConf**>(ngx_array_push(&main->pools));
    if (pool == nullptr || slot == nullptr ||
        ngx_array_init(&pool->engines, cf->pool, 4, sizeof(EngineConf)) != NGX_OK) {
        return nullptr;
    }
    pool->name = name;
    pool->index = main->pools.nelts - 1;
    *slot = pool;
    return pool;
}

char* add_engine(ngx_conf_t* cf, PoolConf* pool) {
    const ArrayView<ngx_str_t> words{cf->args};
    EngineConf engine{words.size() > 1 ? words[1] : ngx_str_t{}, 1, {}};
    if (words.size() < 2 || words.size() > 3 || engine.endpoint.len > kEndpointBytesMax) {
        return error_text("needs ENDPOINT (ipc:///path or tcp://host:port) [weight=N]");
    }
    if (const char* wrong = parse_endpoint(engine.endpoint, engine.address); wrong != nullptr) {
        return error_text(wrong);
    }
    if (words.size() == 3) {
        const ngx_int_t weight =
            starts_with(words[2], "weight=") ? ngx_atoi(words[2].data + 7, words[2].len - 7) : -1;
        if (weight < 1 || static_cast<ngx_uint_t>(weight) > kWeightMax) {
            return error_text("has a weight that is not within 1 to 1000");
        }
        engine.weight = static_cast<ngx_uint_t>(weight);
    }
    for (const EngineConf& other : ArrayView<EngineConf>{&pool->engines}) {
        if (view(other.endpoint) == view(engine.endpoint)) {
            return error_text("is repeated");
        }
    }
    if (pool->engines.nelts == kEnginesMax) {
        return error_text("is one too many: a pool has at most 64");
    }
    auto* slot = static_cast<EngineConf*>(ngx_array_push(&pool->engines));
    if (slot == nullptr) {
        return kConfError;
    }
    *slot = engine;
    return NGX_CONF_OK;
}

char* set_zone(ngx_conf_t* cf, PoolConf* pool) {
    const ArrayView<ngx_str_t> words{cf->args};
    if (pool->zone != nullptr) {
        return error_text("is duplicate");
    }
    const ssize_t size = words.size() == 3 ? ngx_parse_size(&words[2]) : NGX_ERROR;
    if (size < static_cast<ssize_t>(8 * ngx_pagesize)) {
        return error_text("needs NAME SIZE, at least 32k");
    }
    pool->zone =
        ngx_shared_memory_add(cf, &words[1], static_cast<size_t>(size), &ngx_http_heddle_module);
    if (pool->zone == nullptr) {
        return kConfError;
    }
    if (pool->zone->data != nullptr) {
        return error_text("names the zone of another pool or limit");
    }
    pool->zone->init = init_pool_zone;
    return NGX_CONF_OK;
}

/// One directive inside heddle_pool { }.
char* pool_entry(ngx_conf_t* cf, ngx_command_t* /*unused*/, void* conf) noexcept {
    auto* pool = static_cast<PoolConf*>(conf);
    const ngx_str_t& name = ArrayView<ngx_str_t>{cf->args}[0];
    char* result = error_text("is not known in heddle_pool");
    if (view(name) == "zone") {
        result = set_zone(cf, pool);
    } else if (view(name) == "engine") {
        result = add_engine(cf, pool);
    }
    if (result != NGX_CONF_OK && result != kConfError) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" in heddle_pool %s", &name, result);
        return kConfError;
    }
    return result;
}

char* set_pool(ngx_conf_t* cf, ngx_command_t* /*unused*/, void* conf) noexcept {
    auto* main = static_cast<MainConf*>(conf);
    PoolConf* pool = find_or_add_pool(cf, main, ArrayView<ngx_str_t>{cf->args}[1]);
    if (pool == nullptr) {
        return kConfError;
    }
    if (pool->defined) {
        return error_text("is duplicate");
    }
    pool->defined = true;

    ngx_conf_t saved = *cf;
    cf->handler = pool_entry;
    cf->handler_conf = reinterpret_cast<char*>(pool);
    char* result = ngx_conf_parse(cf, nullptr);
    *cf = saved;
    if (result != NGX_CONF_OK) {
        return result;
    }
    if (pool->engines.nelts == 0) {
        return error_text("has no engine");
    }
    if (pool->zone == nullptr) {
        return error_text("has no zone");
    }
    pool->zone->data = pool_zone_plan(cf->pool, pool);
    return pool->zone->data == nullptr ? kConfError : NGX_CONF_OK;
}

char* set_pass(ngx_conf_t* cf, ngx_command_t* /*unused*/, void* conf) noexcept {
    auto* loc = static_cast<LocConf*>(conf);
    if (loc->pool != nullptr) {
        return error_text("is duplicate");
    }
    auto* main =
        static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_heddle_module));
    loc->pool = find_or_add_pool(cf, main, ArrayView<ngx_str_t>{cf->args}[1]);
    if (loc->pool == nullptr) {
        return kConfError;
    }
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    core->handler = handle_request;
    return NGX_CONF_OK;
}

char* set_status(ngx_conf_t* cf, ngx_command_t* /*unused*/, void* /*unused*/) noexcept {
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    core->handler = handle_status;
    return NGX_CONF_OK;
}

ngx_conf_num_bounds_t limit_status_bounds = {ngx_conf_check_num_bounds, 400, 599};

}  // namespace

// nginx wants a mutable, zero-terminated array.
ngx_command_t commands[] = {
    {ngx_string("heddle_pool"), NGX_HTTP_MAIN_CONF | NGX_CONF_BLOCK | NGX_CONF_TAKE1, set_pool,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("heddle_pass"),
     NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF | NGX_CONF_TAKE1, set_pass,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("heddle_thread_id"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_http_set_complex_value_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, thread_id),
     nullptr},
    {ngx_string("heddle_connect_timeout"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_msec_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, connect_timeout), nullptr},
    {ngx_string("heddle_read_timeout"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_msec_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, read_timeout), nullptr},
    {ngx_string("heddle_limit_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE3, set_limit_zone,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("heddle_limit"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE123, set_limit,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("heddle_limit_status"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_num_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, limit_status),
     &limit_status_bounds},
    {ngx_string("heddle_status"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_status,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    ngx_null_command,
};

void* create_main_conf(ngx_conf_t* cf) noexcept {
    auto* conf = zeroed_in_pool<MainConf>(cf->pool);
    if (conf == nullptr || ngx_array_init(&conf->pools, cf->pool, 4, sizeof(PoolConf*)) != NGX_OK) {
        return nullptr;
    }
    return conf;
}

void* create_loc_conf(ngx_conf_t* cf) noexcept {
    auto* conf = zeroed_in_pool<LocConf>(cf->pool);
    if (conf == nullptr) {
        return nullptr;
    }
    conf->connect_timeout = NGX_CONF_UNSET_MSEC;
    conf->read_timeout = NGX_CONF_UNSET_MSEC;
    conf->limit_status = NGX_CONF_UNSET_UINT;
    return conf;
}

char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept {
    const auto* outer = static_cast<const LocConf*>(parent);
    auto* inner = static_cast<LocConf*>(child);
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    // `if` and `limit_except` are locations of their own to nginx, but not to the reader of a
    // configuration: they pass to the pool of the location around them.
    if ((core->noname || core->lmt_excpt) && inner->pool == nullptr && core->handler == nullptr &&
        outer->pool != nullptr) {
        inner->pool = outer->pool;
        core->handler = handle_request;
    }
    if (inner->thread_id == nullptr) {
        inner->thread_id = outer->thread_id;
    }
    ngx_conf_merge_msec_value(inner->connect_timeout, outer->connect_timeout, kConnectTimeout);
    ngx_conf_merge_msec_value(inner->read_timeout, outer->read_timeout, kReadTimeout);
    ngx_conf_merge_uint_value(inner->limit_status, outer->limit_status, NGX_HTTP_TOO_MANY_REQUESTS);
    // As with limit_req, limits are inherited only where none are written.
    if (inner->limits == nullptr) {
        inner->limits = outer->limits;
    }
    return NGX_CONF_OK;
}

ngx_int_t check_pools(ngx_conf_t* cf) noexcept {
    auto* main =
        static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_heddle_module));
    for (const PoolConf* pool : ArrayView<PoolConf*>{&main->pools}) {
        if (!pool->defined) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "heddle_pass names \"%V\": no heddle_pool is so named", &pool->name);
            return NGX_ERROR;
        }
    }
    return NGX_OK;
}

}  // namespace heddle::ngx
