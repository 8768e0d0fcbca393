/* What nginx looks up with dlsym() when it loads the .so. */
#include <ngx_config.h>
#include <ngx_core.h>

extern ngx_module_t ngx_http_heddle_module;

/*
 * Response filters are called in the reverse of this order; ours only replaces nginx's own HTML
 * error pages, so it stands where third-party header filters stand.
 */
ngx_module_t* ngx_modules[] = {&ngx_http_heddle_module, NULL};
char* ngx_module_names[] = {"ngx_http_heddle_module", NULL};
char* ngx_module_order[] = {NULL};
