#pragma once

#include <memory>
#include <string>

#include "engine/storage/sqlite/connection.hpp"

namespace heddle::storage::sqlite {

/// The one connection that writes. Creates what is missing: the caller holds the turn.
/// @throw SqliteError
std::unique_ptr<Connection> open_writer(const std::string& path, base::Duration wait_max);
/// A connection that only reads; the schema must be there. @throw SqliteError
std::unique_ptr<Connection> open_reader(const std::string& path, base::Duration wait_max);

}  // namespace heddle::storage::sqlite
