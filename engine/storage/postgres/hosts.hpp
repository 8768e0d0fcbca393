#pragma once

#include <string>
#include <vector>

namespace heddle::storage::postgres {

/// A connection string for each host that `url` names, in their order; everything else as it is
/// there. `url` itself if it names one host or none, or is none that libpq understands.
///
/// libpq goes on to its next host when one refuses or says nothing, but not when one accepts and
/// hangs up, as a proxy does whose server is gone. So each is tried by itself.
std::vector<std::string> one_host_each(const std::string& url);

}  // namespace heddle::storage::postgres
