#pragma once

#include "ngx_module/ngx.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::ngx {

inline constexpr ngx_uint_t kStatusHeadersTooLarge = 431;  // RFC 6585

/// Whether `name` (lower case) concerns one connection and not the message: RFC 9110, 7.6.1.
[[nodiscard]] bool is_hop_by_hop(std::string_view name) noexcept;

/// Whether those headers that copy_headers() would copy keep to the protocol's bounds.
[[nodiscard]] bool are_headers_within_bounds(ngx_http_request_t* r) noexcept;

/// All headers of the client but hop-by-hop ones and content-length, names in lower case.
void copy_headers(ngx_http_request_t* r, wire::Headers& headers);

}  // namespace heddle::ngx
