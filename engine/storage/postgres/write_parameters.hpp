#pragma once

#include <span>

#include "engine/storage/postgres/parameters.hpp"
#include "engine/storage/postgres/writer.hpp"

namespace heddle::storage::postgres {

/// The arrays of the statement `write` for these operations, merged per thread.
/// @param stamp  becomes updated_at of every thread and run that the statement changes
Parameters write_parameters(std::span<WriteOperation* const> writes, std::int64_t stamp);

}  // namespace heddle::storage::postgres
