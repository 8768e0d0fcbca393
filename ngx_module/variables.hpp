#pragma once

#include "ngx_module/ngx.hpp"

namespace heddle::ngx {

/// $heddle_engine $heddle_thread_id $heddle_run_id $heddle_hops $heddle_error. Empty ("-" in a log)
/// for requests that were not passed to a pool.
ngx_int_t add_variables(ngx_conf_t* cf) noexcept;

}  // namespace heddle::ngx
