#pragma once

#include <cstddef>
#include <string>

#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

namespace heddle::models {

/// The settings of make_openai_model(), checked.
struct OpenAiSettings {
    std::string url;      ///< of the chat completions
    std::string api_key;  ///< may be empty; never logged
    base::Json body;      ///< the request's constant members: model, temperature, ...
    base::Duration timeout{};
    base::Duration connect_timeout{};
    base::Duration idle_timeout{};
    unsigned retries_max = 0;
    std::size_t answer_bytes_max = 0;
    std::size_t concurrency_max = 0;
    std::size_t waiting_max = 0;
};

/// @return invalid_argument with `field` for a setting that is missing, unknown or out of range
base::Result<OpenAiSettings> read_openai_settings(const base::Json& settings);

}  // namespace heddle::models
