#include "ngx_module/error_pages.hpp"

#include <array>

#include "ngx_module/answer.hpp"
#include "ngx_module/call.hpp"
#include "ngx_module/conf.hpp"

namespace heddle::ngx {

namespace {

// nginx's filters are a chain of function pointers, so these two cannot be anywhere else.
ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

struct Page {
    ngx_uint_t status;
    std::string_view json;
};

constexpr std::array kPages{
    Page{NGX_HTTP_BAD_REQUEST,
         "{\"detail\":\"the request is not well-formed HTTP\",\"code\":\"bad_request\"}\n"},
    Page{NGX_HTTP_LENGTH_REQUIRED,
         "{\"detail\":\"the request has no length\",\"code\":\"bad_request\"}\n"},
    Page{NGX_HTTP_REQUEST_TIME_OUT,
         "{\"detail\":\"the request body did not arrive in time\",\"code\":\"timeout\"}\n"},
    Page{NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
         "{\"detail\":\"the request body is too large\",\"code\":\"payload_too_large\"}\n"},
    Page{NGX_HTTP_INTERNAL_SERVER_ERROR,
         "{\"detail\":\"the request could not be answered\",\"code\":\"internal\"}\n"},
    Page{NGX_HTTP_SERVICE_UNAVAILABLE,
         "{\"detail\":\"the service is not available\",\"code\":\"unavailable\"}\n"},
};

/// The page for what nginx is about to answer, if that is its own HTML. err_status is set by
/// nothing but nginx's special responses, and theirs is the HTML if no location took them over.
const Page* page_for(const ngx_http_request_t* r) {
    const auto* conf =
        static_cast<const LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_heddle_module));
    if (conf->pool == nullptr || r != r->main || r->err_status == 0 || r->error_page) {
        return nullptr;
    }
    for (const Page& page : kPages) {
        if (page.status == r->err_status) {
            return &page;
        }
    }
    return nullptr;
}

ngx_int_t filter_header(ngx_http_request_t* r) noexcept {
    const Page* page = page_for(r);
    if (page != nullptr) {
        ngx_str_set(&r->headers_out.content_type, "application/json");
        r->headers_out.content_type_len = r->headers_out.content_type.len;
        r->headers_out.content_type_lowcase = nullptr;
        r->headers_out.content_length_n = static_cast<off_t>(page->json.size());
        if (r->headers_out.content_length != nullptr) {
            r->headers_out.content_length->hash = 0;
            r->headers_out.content_length = nullptr;
        }
    }
    return next_header_filter(r);
}

ngx_int_t filter_body(ngx_http_request_t* r, ngx_chain_t* in) noexcept {
    const Page* page = in == nullptr ? nullptr : page_for(r);
    if (page == nullptr) {
        return next_body_filter(r, in);
    }
    ngx_buf_t* buffer = ngx_create_temp_buf(r->pool, page->json.size());
    if (buffer == nullptr) {
        return NGX_ERROR;
    }
    buffer->last = ngx_cpymem(buffer->last, page->json.data(), page->json.size());
    buffer->last_buf = 1;
    buffer->last_in_chain = 1;
    ngx_chain_t out{buffer, nullptr};
    return next_body_filter(r, &out);
}

}  // namespace

void install_error_filters() noexcept {
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = filter_header;
    next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = filter_body;
}

}  // namespace heddle::ngx
