#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

/// An OpenAPI document, written in YAML, as JSON.
namespace heddle::tools {

struct YamlLimits {
    std::size_t bytes_max = 4U << 20U;
    std::size_t depth_max = 64;
    std::size_t nodes_max = 100'000;  ///< aliases counted as often as they are used
};

/// One document by YAML's core schema: plain null, true, 12 and 0.5 have their type, everything
/// else and every quoted scalar is text. JSON is YAML too. Never throws.
/// @param what  how errors name the text
/// @return bad_request with the line, also for a repeated key; payload_too_large
base::Result<base::Json> parse_yaml(std::string_view text,
                                    std::string_view what,
                                    YamlLimits limits = {});

/// @return as parse_yaml(); not_found if the file cannot be read
base::Result<base::Json> load_yaml(const std::filesystem::path& file, YamlLimits limits = {});

}  // namespace heddle::tools
