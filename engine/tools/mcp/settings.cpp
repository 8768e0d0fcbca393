#include "engine/tools/mcp/settings.hpp"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

namespace heddle::tools::mcp {
namespace {

using base::Json;

constexpr const char* kNoStdio =
    "stdio is not supported; expected mcp: the URL of a server that speaks MCP over streamable "
    "HTTP";

base::Status read_url(const std::string& url, McpSettings& settings) {
    const auto scheme = url.starts_with("http://") ? 7U : url.starts_with("https://") ? 8U : 0U;
    const auto rest = std::string_view{url}.substr(scheme);
    const auto host = rest.substr(0, rest.find_first_of("/?"));
    if (scheme == 0 || host.empty()) {
        return base::invalid_field("mcp", "expected http://HOST/PATH or https://HOST/PATH");
    }
    const bool blank = std::any_of(url.begin(), url.end(), [](unsigned char c) {
        return c <= 0x20 || c == 0x7F || c == '\\' || c == '#';
    });
    if (blank) {
        return base::invalid_field("mcp", "may hold no blank, fragment or control character");
    }
    // The host is named in errors that clients get to read.
    if (host.find('@') != std::string_view::npos) {
        return base::invalid_field("mcp", "may hold no user and password; use headers");
    }
    settings.url = url;
    settings.host = host;
    return base::ok();
}

// What the protocol itself sends.
base::Status check_headers(const SourceSettings& source) {
    for (const auto& [name, value] : source.headers) {
        std::string lower{name};
        std::transform(lower.begin(), lower.end(), lower.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        if (lower.starts_with("mcp-") || lower == "accept" || lower == "content-type") {
            return base::invalid_field("headers." + name, "is a header of the protocol's own");
        }
    }
    return base::ok();
}

}  // namespace

base::Result<McpSettings> read_mcp_settings(const Json& settings) {
    if (!settings.is_object() || settings.contains("command")) {
        return base::invalid_field("command", kNoStdio);
    }
    const auto url = settings.find("mcp");
    if (url == settings.end() || !url->is_string()) {
        const bool stdio = url != settings.end() && url->is_object() && url->contains("command");
        return base::invalid_field("mcp", stdio ? kNoStdio : "expected the URL of a server");
    }
    McpSettings read;
    if (auto status = read_url(url->get<std::string>(), read); !status) {
        return std::move(status).error();
    }
    for (const auto& item : settings.items()) {
        auto known = read_source_setting(item.key(), item.value(), read.source);
        if (!known) {
            return std::move(known).error();
        }
        if (!*known && item.key() != "mcp") {
            return base::invalid_field(item.key(), "unknown setting of mcp tools");
        }
    }
    if (auto status = check_headers(read.source); !status) {
        return std::move(status).error();
    }
    return read;
}

}  // namespace heddle::tools::mcp
