#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/graph/node.hpp"

namespace heddle::nodes {

/// Makes a native node from its entry in the agent file, without `kind`, `class`, `retry` and
/// `timeout`. @return invalid_argument with the key as field
using NativeFactory =
    std::function<base::Result<std::shared_ptr<const graph::Node>>(const base::Json& settings)>;

/// The C++ nodes by `class`:
///   echo    answers the last human message with one ai message of the same content
///   append  appends one ai message of `bytes` bytes (default 200, at most 1,000,000)
const std::map<std::string, NativeFactory, std::less<>>& native_nodes();

}  // namespace heddle::nodes
