#pragma once

#include "ngx_module/endpoint.hpp"
#include "ngx_module/ngx.hpp"

/// What the directives say. Plain structs in nginx's configuration pool, read-only once parsed
/// (except MainConf::worker). conf/nginx.conf.example describes every directive.
namespace heddle::ngx {

class Worker;

inline constexpr std::size_t kEnginesMax = 64;  ///< in one pool

struct EngineConf {
    ngx_str_t endpoint;  ///< ipc:///path or tcp://host:port, zero-terminated
    ngx_uint_t weight;
    Endpoint address;
};

struct PoolConf {
    ngx_str_t name;
    ngx_array_t engines;   ///< EngineConf
    ngx_shm_zone_t* zone;  ///< its data is a PoolShared once nginx has mapped it
    ngx_uint_t index;      ///< in MainConf::pools
    bool defined;          ///< a heddle_pool block was seen, not only a heddle_pass
};

struct MainConf {
    ngx_array_t pools;  ///< PoolConf*
    Worker* worker;     ///< set in each worker process, null everywhere else
};

struct LimitConf {
    ngx_shm_zone_t* zone;  ///< its data is a LimitZone
    ngx_uint_t burst;      ///< requests that may come at once; 0: as many as the rate's number
};

struct LocConf {
    PoolConf* pool;
    ngx_http_complex_value_t* thread_id;
    ngx_msec_t connect_timeout;
    ngx_msec_t read_timeout;
    ngx_array_t* limits;  ///< LimitConf
    ngx_uint_t limit_status;
};

extern ngx_command_t commands[];

void* create_main_conf(ngx_conf_t* cf) noexcept;
void* create_loc_conf(ngx_conf_t* cf) noexcept;
char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept;
/// NGX_ERROR, with a message, if a heddle_pass names a pool that no heddle_pool defines.
ngx_int_t check_pools(ngx_conf_t* cf) noexcept;

[[nodiscard]] inline MainConf* main_conf(ngx_http_request_t* r) noexcept {
    return static_cast<MainConf*>(ngx_http_get_module_main_conf(r, ngx_http_heddle_module));
}
[[nodiscard]] inline LocConf* loc_conf(ngx_http_request_t* r) noexcept {
    return static_cast<LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_heddle_module));
}

}  // namespace heddle::ngx
