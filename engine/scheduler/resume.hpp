#pragma once

#include <map>
#include <string>
#include <string_view>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

/// What `command.resume` of a run answers. Pure functions, any OS thread.
namespace heddle::scheduler {

/// Whether it is a map of answers by interrupt id, and not one answer: LangGraph's rule, an object
/// whose keys are all 32 hexadecimal digits.
bool is_resume_map(const base::Json& resume) noexcept;

/// The answers by interrupt id.
/// @param interrupts  text of Thread.interrupts: what the thread asks
/// @return invalid_argument, field command.resume, if the thread asks nothing; if it asks several
///         questions and the answer names none; or if the answer names one that it does not ask
base::Result<std::map<std::string, base::Json>> address_resume(const base::Json& resume,
                                                               std::string_view interrupts);

}  // namespace heddle::scheduler
