#pragma once

#include "ngx_module/conf.hpp"

/// heddle_limit_zone and heddle_limit: requests per time on any key, across workers. A token bucket
/// a key (as GCRA: one time stamp a key), which starts full with `burst` tokens and gains one every
/// time/rate. A request takes one token from each limit of its location, or none at all and is
/// refused; nothing is ever delayed.
namespace heddle::ngx {

char* set_limit_zone(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;
char* set_limit(ngx_conf_t* cf, ngx_command_t* command, void* conf) noexcept;

/// The preaccess phase.
ngx_int_t handle_limits(ngx_http_request_t* r) noexcept;

}  // namespace heddle::ngx
