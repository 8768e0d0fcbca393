include_guard(GLOBAL)
# heddle_add_pytest(<label> FILE test_x.py [TIMEOUT 300]): one pytest file is one CTest test, named
# <label>/x, against the binaries of this build folder. Each has servers, ports and a database of its
# own and waits more than it computes, so two may run side by side (ctest -j 2).
function(heddle_add_pytest label)
    cmake_parse_arguments(ARG "" "FILE;TIMEOUT" "" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 300)
    endif()
    get_filename_component(stem "${ARG_FILE}" NAME_WE)
    string(REGEX REPLACE "^test_" "" stem "${stem}")
    set(environment "HEDDLE_BUILD=${PROJECT_BINARY_DIR}" "HEDDLE_BUILD_DIR=${PROJECT_BINARY_DIR}")
    if(HEDDLE_SANITIZE MATCHES "address")
        execute_process(COMMAND "${CMAKE_CXX_COMPILER}" -print-file-name=libasan.so
            OUTPUT_VARIABLE libasan OUTPUT_STRIP_TRAILING_WHITESPACE)
        list(APPEND environment "HEDDLE_ASAN_PRELOAD=${libasan}")
    endif()
    add_test(NAME "${label}/${stem}"
        COMMAND /usr/bin/python3 -B -m pytest -q -rA -p no:cacheprovider --tb=short
                "${CMAKE_CURRENT_SOURCE_DIR}/${ARG_FILE}")
    set_tests_properties("${label}/${stem}" PROPERTIES
        LABELS "${label}" TIMEOUT "${ARG_TIMEOUT}"
        ENVIRONMENT "${environment}")
endfunction()

# Registers every test_*.py of the calling folder.
function(heddle_add_pytests label)
    file(GLOB files RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" CONFIGURE_DEPENDS
        "${CMAKE_CURRENT_SOURCE_DIR}/test_*.py")
    foreach(file IN LISTS files)
        heddle_add_pytest("${label}" FILE "${file}" ${ARGN})
    endforeach()
endfunction()
