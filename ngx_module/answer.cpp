#include "ngx_module/answer.hpp"

#include <array>

namespace heddle::ngx {

namespace {

/// Whether nginx would go elsewhere for this status: the test of ngx_http_special_response_handler.
bool has_error_page(ngx_http_request_t* r, ngx_uint_t status) {
    const auto* core = static_cast<const ngx_http_core_loc_conf_t*>(
        ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (r->error_page || core->error_pages == nullptr || r->uri_changes == 0) {
        return false;
    }
    for (const ngx_http_err_page_t& page : ArrayView<ngx_http_err_page_t>{core->error_pages}) {
        if (page.status == static_cast<ngx_int_t>(status)) {
            return true;
        }
    }
    return false;
}

}  // namespace

void set_status(ngx_http_request_t* r, ngx_uint_t status) noexcept {
    r->headers_out.status = status;
    r->headers_out.status_line.len = 0;
    if (status == 422) {
        ngx_str_set(&r->headers_out.status_line, "422 Unprocessable Entity");
    } else if (status == 431) {
        ngx_str_set(&r->headers_out.status_line, "431 Request Header Fields Too Large");
    }
}

bool add_header(ngx_http_request_t* r, std::string_view name, std::string_view value) noexcept {
    auto* header = static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
    if (header == nullptr) {
        return false;
    }
    header->hash = 1;
    header->key = as_ngx(name);
    header->value = as_ngx(value);
    header->lowcase_key = nullptr;
    return true;
}

ngx_int_t answer_json(ngx_http_request_t* r, ngx_uint_t status, std::string_view json) noexcept {
    const ngx_int_t discarded = ngx_http_discard_request_body(r);
    if (discarded != NGX_OK) {
        return discarded;
    }
    ngx_buf_t* buffer = ngx_create_temp_buf(r->pool, json.size());
    if (buffer == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    buffer->last = ngx_cpymem(buffer->last, json.data(), json.size());
    buffer->last_buf = r == r->main ? 1 : 0;
    buffer->last_in_chain = 1;

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = nullptr;
    set_status(r, status);
    r->headers_out.content_length_n = static_cast<off_t>(json.size());
    const ngx_int_t sent = ngx_http_send_header(r);
    if (sent == NGX_ERROR || sent > NGX_OK || r->header_only) {
        return sent;
    }
    ngx_chain_t out{buffer, nullptr};
    return ngx_http_output_filter(r, &out);
}

ngx_int_t answer_error(ngx_http_request_t* r, const ErrorAnswer& answer) noexcept {
    if (answer.retry_after_s > 0) {
        auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT_T_LEN));
        if (text == nullptr) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
        const u_char* end = ngx_sprintf(text, "%ui", answer.retry_after_s);
        const std::string_view value{reinterpret_cast<char*>(text),
                                     static_cast<std::size_t>(end - text)};
        if (!add_header(r, "Retry-After", value)) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }
    if (has_error_page(r, answer.status)) {
        return static_cast<ngx_int_t>(answer.status);
    }
    std::array<u_char, 512> json{};
    ngx_str_t code = as_ngx(answer.code);
    ngx_str_t detail = as_ngx(answer.detail);
    const u_char* end = ngx_snprintf(json.data(), json.size(),
                                     "{\"detail\":\"%V\",\"code\":\"%V\"}\n", &detail, &code);
    return answer_json(
        r, answer.status,
        {reinterpret_cast<const char*>(json.data()), static_cast<std::size_t>(end - json.data())});
}

}  // namespace heddle::ngx
