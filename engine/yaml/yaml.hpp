#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

/// Documents that people write in YAML (scripts, OpenAPI), as JSON.
namespace heddle::yaml {

struct Limits {
    std::size_t bytes_max = 4U << 20U;
    std::size_t depth_max = 64;
    std::size_t nodes_max = 100'000;  ///< aliases counted as often as they are used
};

/// One document by YAML's core schema: plain null, true, 12 and 0.5 have their type, everything
/// else and every quoted scalar is text. JSON is YAML too. Never throws.
/// @param what  how errors name the text
/// @return bad_request with the line, also for a repeated key; payload_too_large
base::Result<base::Json> parse(std::string_view text, std::string_view what, Limits limits = {});

/// @return as parse(); not_found if the file cannot be read
base::Result<base::Json> load(const std::filesystem::path& file, Limits limits = {});

}  // namespace heddle::yaml
