#include "ngx_module/variables.hpp"

#include "ngx_module/call.hpp"

namespace heddle::ngx {

namespace {

ngx_int_t set_value(ngx_http_variable_value_t* value, std::string_view text) {
    value->data = as_ngx(text).data;
    value->len = static_cast<unsigned>(text.size()) & 0x0fffffffU;
    value->valid = text.empty() ? 0 : 1;
    value->not_found = text.empty() ? 1 : 0;
    value->no_cacheable = 1;
    return NGX_OK;
}

/// A variable that reads one text of the call.
template <std::string_view (*text)(const Call&)>
ngx_int_t get_text(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t /*data*/) {
    const Call* call = call_of(r);
    return set_value(value, call == nullptr ? std::string_view{} : text(*call));
}

std::string_view engine(const Call& call) {
    return call.channel == nullptr ? std::string_view{} : call.channel->endpoint();
}
std::string_view thread_id(const Call& call) {
    return view(call.thread_id);
}
std::string_view run_id(const Call& call) {
    return view(call.run_id);
}
std::string_view error(const Call& call) {
    return call.error;
}

ngx_int_t get_hops(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t /*data*/) {
    const Call* call = call_of(r);
    auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT32_LEN));
    if (call == nullptr || text == nullptr) {
        return set_value(value, {});
    }
    const u_char* end = ngx_sprintf(text, "%uD", call->hop);
    return set_value(value, {reinterpret_cast<char*>(text), static_cast<std::size_t>(end - text)});
}

struct Variable {
    std::string_view name;
    ngx_http_get_variable_pt get;
};

constexpr Variable kVariables[] = {
    {"heddle_engine", get_text<engine>}, {"heddle_thread_id", get_text<thread_id>},
    {"heddle_run_id", get_text<run_id>}, {"heddle_error", get_text<error>},
    {"heddle_hops", get_hops},
};

}  // namespace

ngx_int_t add_variables(ngx_conf_t* cf) noexcept {
    for (const Variable& variable : kVariables) {
        ngx_str_t name = as_ngx(variable.name);
        ngx_http_variable_t* added = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
        if (added == nullptr) {
            return NGX_ERROR;
        }
        added->get_handler = variable.get;
    }
    return NGX_OK;
}

}  // namespace heddle::ngx
