#pragma once

#include <vector>

#include "engine/storage/store.hpp"

namespace heddle::storage {

/// What load_newest() says of a chain that is here whole.
/// @param chain  unbroken and not empty, as load_chain() answers
StateRows gather(const std::vector<JournalRow>& chain);
/// The same of load_chain()'s answer for a thread's head.
Result<std::optional<StateRows>> gather(const Result<std::vector<JournalRow>>& chain);

}  // namespace heddle::storage
