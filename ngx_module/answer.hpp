#pragma once

#include <cstdint>
#include <string_view>

#include "ngx_module/ngx.hpp"

/// Answers that the module gives itself.
namespace heddle::ngx {

/// `detail` and `code` are plain ASCII without quotes or backslashes: written into JSON as they
/// are.
struct ErrorAnswer {
    ngx_uint_t status;
    std::string_view code;  ///< as in the HTTP API, engine/base/error.hpp
    std::string_view detail;
    ngx_uint_t retry_after_s = 0;  ///< 0: no Retry-After
};

inline constexpr std::string_view kUnavailable = "unavailable";
inline constexpr std::string_view kOverloaded = "overloaded";

/// Sends {"detail", "code"}, unless the location has an error_page for that status: then nothing is
/// sent and the status returned, so that nginx goes there.
/// @return what to give to ngx_http_finalize_request(), or to return from a content handler
ngx_int_t answer_error(ngx_http_request_t* r, const ErrorAnswer& answer) noexcept;

/// Sends a whole JSON text with that status. @return as answer_error()
ngx_int_t answer_json(ngx_http_request_t* r, ngx_uint_t status, std::string_view json) noexcept;

/// Sets the response's status, with a reason where nginx 1.22 knows none.
void set_status(ngx_http_request_t* r, ngx_uint_t status) noexcept;

/// Adds one response header; both texts must live as long as the request.
bool add_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept;

}  // namespace heddle::ngx
