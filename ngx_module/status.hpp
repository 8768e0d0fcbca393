#pragma once

#include "ngx_module/ngx.hpp"

namespace heddle::ngx {

/// The content handler of heddle_status: all pools as all workers see them, as JSON.
ngx_int_t handle_status(ngx_http_request_t* r) noexcept;

}  // namespace heddle::ngx
