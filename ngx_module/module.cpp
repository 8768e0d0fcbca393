// The module as nginx sees it; read this file first.
//
//   conf        what the directives say                    (configuration, master)
//   limits      preaccess phase: heddle_limit              (shared memory)
//   handler     ENTER: key, path, headers, body -> Request frame
//   pool_peers  which engine; moved, refused, lost
//   channel     one ZeroMQ connection in nginx's event loop; hello, ping
//   endpoint    where an engine listens; names are looked up
//   inflight    request id -> Call -> ngx_http_request_t
//   response    LEAVE: Head, Data, End -> nginx's filters, credit
//   status, variables                                      what operators see
//
// Configuration lives in nginx's pools. What a worker has lives in Worker, made after the fork.

#include <exception>

#include "ngx_module/barrier.hpp"
#include "ngx_module/conf.hpp"
#include "ngx_module/error_pages.hpp"
#include "ngx_module/limits.hpp"
#include "ngx_module/variables.hpp"
#include "ngx_module/worker.hpp"

namespace heddle::ngx {

namespace {

ngx_int_t after_configuration(ngx_conf_t* cf) noexcept {
    if (check_pools(cf) != NGX_OK) {
        return NGX_ERROR;
    }
    auto* core = static_cast<ngx_http_core_main_conf_t*>(
        ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    auto* handler = static_cast<ngx_http_handler_pt*>(
        ngx_array_push(&core->phases[NGX_HTTP_PREACCESS_PHASE].handlers));
    if (handler == nullptr) {
        return NGX_ERROR;
    }
    *handler = handle_limits;
    install_error_filters();
    return NGX_OK;
}

MainConf* main_conf_of(ngx_cycle_t* cycle) {
    return static_cast<MainConf*>(
        ngx_http_cycle_get_module_main_conf(cycle, ngx_http_heddle_module));
}

/// Connections must not exist before the fork, and only workers need them.
ngx_int_t init_process(ngx_cycle_t* cycle) noexcept {
    MainConf* conf = main_conf_of(cycle);
    if (ngx_process != NGX_PROCESS_WORKER || conf == nullptr || conf->pools.nelts == 0) {
        return NGX_OK;
    }
    // A worker without engines answers 503; one that does not start would be started for ever.
    guarded(cycle->log, "starting", [&] { conf->worker = Worker::start(*conf, cycle).release(); });
    return NGX_OK;
}

void exit_process(ngx_cycle_t* cycle) noexcept {
    MainConf* conf = main_conf_of(cycle);
    if (conf != nullptr && conf->worker != nullptr) {
        delete conf->worker;
        conf->worker = nullptr;
    }
}

ngx_http_module_t context = {
    add_variables,        // preconfiguration
    after_configuration,  // postconfiguration
    create_main_conf,    nullptr, nullptr, nullptr, create_loc_conf, merge_loc_conf,
};

}  // namespace
}  // namespace heddle::ngx

extern "C" {
ngx_module_t ngx_http_heddle_module = {
    NGX_MODULE_V1,
    &heddle::ngx::context,
    heddle::ngx::commands,
    NGX_HTTP_MODULE,
    nullptr,                    // init master
    nullptr,                    // init module
    heddle::ngx::init_process,  // init process
    nullptr,                    // init thread
    nullptr,                    // exit thread
    heddle::ngx::exit_process,  // exit process
    nullptr,                    // exit master
    NGX_MODULE_V1_PADDING,
};
}
