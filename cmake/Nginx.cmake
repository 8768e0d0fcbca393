# heddle_nginx(): the headers of the nginx that will load the module.
#
# A module must be built with the same configure flags as its nginx. Debian's nginx-dev ships the
# sources and those flags in /usr/share/nginx/src (conf_flags is a bash array there); a copy of it is
# configured in the build folder, which generates objs/ngx_auto_config.h.
#
# HEDDLE_NGINX_DIR names another source tree: either one with objs/ (configured by you, with the
# flags of your nginx, `nginx -V`), or one with a conf_flags file like Debian's.
set(HEDDLE_NGINX_DIR "/usr/share/nginx/src" CACHE PATH "nginx source tree to build the module for")

function(heddle_nginx)
    set(source "${HEDDLE_NGINX_DIR}")
    if(EXISTS "${source}/objs/ngx_auto_config.h")
        set(tree "${source}")
    else()
        if(NOT EXISTS "${source}/configure" OR NOT EXISTS "${source}/conf_flags")
            message(FATAL_ERROR "${source} has no configured nginx sources. Install nginx-dev, or set "
                "HEDDLE_NGINX_DIR to a source tree configured with your nginx's flags (nginx -V).")
        endif()
        set(tree "${CMAKE_BINARY_DIR}/nginx-src")
        if(NOT EXISTS "${tree}/objs/ngx_auto_config.h"
                OR "${source}/conf_flags" IS_NEWER_THAN "${tree}/objs/ngx_auto_config.h")
            message(STATUS "Configuring nginx headers from ${source}")
            file(REMOVE_RECURSE "${tree}")
            file(COPY "${source}/" DESTINATION "${tree}")
            execute_process(
                COMMAND bash -c ". ./conf_flags && exec sh ./configure \"\${NGX_CONF_FLAGS[@]}\""
                WORKING_DIRECTORY "${tree}" RESULT_VARIABLE failed
                OUTPUT_FILE "${CMAKE_BINARY_DIR}/nginx-configure.log"
                ERROR_FILE "${CMAKE_BINARY_DIR}/nginx-configure.log")
            if(NOT EXISTS "${tree}/objs/ngx_auto_config.h")
                message(FATAL_ERROR "nginx configure failed (${failed}); see "
                    "${CMAKE_BINARY_DIR}/nginx-configure.log")
            endif()
        endif()
    endif()
    add_library(heddle_nginx INTERFACE)
    target_include_directories(heddle_nginx SYSTEM INTERFACE
        "${tree}/src/core" "${tree}/src/event" "${tree}/src/event/modules" "${tree}/src/os/unix"
        "${tree}/src/http" "${tree}/src/http/modules" "${tree}/src/http/v2" "${tree}/objs")
endfunction()
