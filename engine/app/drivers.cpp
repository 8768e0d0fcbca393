#include "engine/app/drivers.hpp"

#include <cstdlib>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "engine/models/openai/openai.hpp"
#include "engine/models/scripted/scripted.hpp"
#include "engine/storage/memory/memory_store.hpp"
#include "engine/storage/postgres/postgres_store.hpp"
#include "engine/storage/sqlite/sqlite_store.hpp"
#include "engine/tools/http/http_tools.hpp"
#include "engine/tools/mcp/mcp_tools.hpp"

namespace heddle::app {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

bool is_set(const char* name) {
    const auto* value = std::getenv(name);
    return value != nullptr && *value != '\0';
}

// The part after the first ':' may hold a password.
std::string kind_of(const std::string& url) {
    return url.substr(0, url.find(':'));
}

// "postgres://user:password@host/db" -> "postgres://host/db"; a password may also stand in the
// query.
std::string without_password(const std::string& url) {
    const auto begin = url.find("://") + 3;
    const auto at = url.rfind('@');
    auto shown =
        at == std::string::npos || at < begin ? url : url.substr(0, begin) + url.substr(at + 1);
    return shown.substr(0, shown.find('?'));
}

using OpenedStore = base::Result<std::unique_ptr<storage::Store>>;

OpenedStore explained(OpenedStore opened, const std::string& shown, std::string_view advice) {
    if (opened) {
        return opened;
    }
    auto error = std::move(opened).error();
    error.message = fmt::format("{}: {}; {}", shown, error.message, advice);
    return error;
}

// NOLINTNEXTLINE: a source is shared by the nodes of its agent
base::Result<std::shared_ptr<tools::ToolSource>> fixed(base::Result<tools::ToolSet> made) {
    if (!made) {
        return std::move(made).error();
    }
    return tools::make_static_source(*std::move(made));
}

}  // namespace

base::Result<std::unique_ptr<storage::Store>> open_store(const std::string& url,
                                                         const storage::StoreLimits& limits,
                                                         observe::Metrics& metrics) {
    if (url == "memory:") {
        return storage::make_memory_store(limits, metrics);
    }
    if (url.starts_with("sqlite:")) {
        return explained(storage::open_sqlite_store(url, limits, metrics), url,
                         "its folder must exist, be local and writable");
    }
    if (url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return explained(storage::open_postgres_store(url, limits, metrics), without_password(url),
                         "check that the server runs and lets this user in");
    }
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{}: is not a store; use memory:, sqlite:/path/file.db or "
                             "postgres://user@host/database",
                             kind_of(url))};
}

nodes::Factories make_factories(net::HttpClient& http,
                                models::RetryBudget& retries,
                                observe::Metrics& metrics) {
    nodes::Factories factories;
    factories.models["openai"] = [&http, &retries, &metrics](const Json& settings,
                                                             const std::filesystem::path&) {
        return models::make_openai_model(http, retries, metrics, settings);
    };
    factories.models["scripted"] = [&metrics](const Json& settings,
                                              const std::filesystem::path& base_dir) {
        return models::make_scripted_model(metrics, settings, base_dir);
    };
    const bool has_provider = is_set("OPENAI_API_KEY") || is_set("OPENAI_BASE_URL");
    factories.auto_provider = has_provider ? "openai" : "scripted";
    factories.tools["http"] = [&http, &metrics](const Json& settings,
                                                const std::filesystem::path& base_dir) {
        return fixed(tools::make_http_tools(http, metrics, settings, base_dir));
    };
    factories.tools["mcp"] = [&http, &metrics](const Json& settings, const std::filesystem::path&) {
        return tools::make_mcp_source(http, metrics, settings);
    };
    return factories;
}

}  // namespace heddle::app
