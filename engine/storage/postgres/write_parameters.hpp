#pragma once

#include <span>

#include "engine/storage/postgres/parameters.hpp"
#include "engine/storage/postgres/writer.hpp"

namespace heddle::storage::postgres {

/// The arrays of the statement `write` for these operations, merged per thread.
/// @param number  of the batch: threads that carry a later one already are refused
Parameters write_parameters(std::span<WriteOperation* const> writes, std::int64_t number);

}  // namespace heddle::storage::postgres
