# heddle_add_layer(<dir> SOURCES a.cpp ... [LINK <external targets>...])
#
# One static library per row of engine/layers.txt, linked to exactly what the row allows. A row may
# only name lower levels, so a cycle cannot be configured. External libraries are linked PRIVATE:
# one library, one layer.
file(STRINGS "${PROJECT_SOURCE_DIR}/engine/layers.txt" _rows REGEX "^[^#]")
set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY
    CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/engine/layers.txt")
set(_all_layers "")
foreach(_row IN LISTS _rows)
    separate_arguments(_row UNIX_COMMAND "${_row}")
    list(POP_FRONT _row _name _level)
    set(_level_of_${_name} ${_level})
    set(_deps_of_${_name} ${_row})
    list(APPEND _all_layers ${_name})
endforeach()

function(heddle_target_name dir out)
    string(REPLACE "/" "_" name "heddle_${dir}")
    set(${out} ${name} PARENT_SCOPE)
endfunction()

# The layers a row may use; "*" is every engine layer below it, and shared/wire.
function(_heddle_deps dir out)
    set(deps ${_deps_of_${dir}})
    if("${deps}" STREQUAL "*")
        set(deps "")
        foreach(other IN LISTS _all_layers)
            if("${_level_of_${other}}" LESS "${_level_of_${dir}}" AND NOT other STREQUAL "ngx_module")
                list(APPEND deps ${other})
            endif()
        endforeach()
    endif()
    foreach(dep IN LISTS deps)
        if(NOT DEFINED "_level_of_${dep}")
            message(FATAL_ERROR "${dir}: ${dep} has no row in engine/layers.txt")
        endif()
        if(NOT "${_level_of_${dep}}" LESS "${_level_of_${dir}}")
            message(FATAL_ERROR "${dir} (level ${_level_of_${dir}}) may not "
                "depend on ${dep} (level ${_level_of_${dep}})")
        endif()
    endforeach()
    set(${out} ${deps} PARENT_SCOPE)
endfunction()

function(heddle_add_layer dir)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
    if(NOT DEFINED "_level_of_${dir}")
        message(FATAL_ERROR "${dir} has no row in engine/layers.txt")
    endif()
    heddle_target_name(${dir} target)
    list(TRANSFORM ARG_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/${dir}/")
    add_library(${target} STATIC ${ARG_SOURCES})
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}")
    _heddle_deps(${dir} deps)
    foreach(dep IN LISTS deps)
        heddle_target_name(${dep} dep_target)
        target_link_libraries(${target} PUBLIC ${dep_target})
    endforeach()
    target_link_libraries(${target} PRIVATE heddle_warnings ${ARG_LINK})
endfunction()

# What each suite runs, for builds that run no other: build.sh tsan heddle-unit.
add_custom_target(heddle-unit)
add_custom_target(heddle-conformance)
add_custom_target(heddle-sim)

# heddle_add_test(<name> LAYER <dir> SOURCES ... [LINK ...] [LABEL unit] [TIMEOUT 240]): links only
# that layer, so code that reaches up fails to link here even if it happens to compile.
function(heddle_add_test name)
    cmake_parse_arguments(ARG "" "LAYER;LABEL;TIMEOUT" "SOURCES;LINK" ${ARGN})
    if(NOT ARG_LABEL)
        set(ARG_LABEL unit)
    endif()
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 240)
    endif()
    heddle_target_name(${ARG_LAYER} layer_target)
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE ${layer_target} heddle_warnings ${ARG_LINK}
        GTest::gtest_main)
    add_dependencies(heddle-${ARG_LABEL} ${name})
    gtest_discover_tests(${name} TEST_PREFIX "${ARG_LAYER}/" DISCOVERY_TIMEOUT 60
        PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()
