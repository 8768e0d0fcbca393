#pragma once

#include <span>

#include "engine/storage/postgres/parameters.hpp"
#include "engine/storage/postgres/statements.hpp"
#include "engine/storage/postgres/writer.hpp"

namespace heddle::storage::postgres {

/// A statement and what it is to be executed with.
struct BoundStatement {
    const Statement& statement;
    Parameters parameters;
};

/// What writes these operations, merged per thread.
/// @param number  of the batch: threads that carry a later one already are refused
BoundStatement write_statement(std::span<WriteOperation* const> writes, std::int64_t number);

}  // namespace heddle::storage::postgres
