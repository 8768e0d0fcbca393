#include "engine/tools/source_settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace heddle::tools {
namespace {

using base::Json;

constexpr std::size_t kPlainBytesMax = 8192;

base::Status read_headers(const Json& headers, SourceSettings& settings) {
    if (!headers.is_object()) {
        return base::invalid_field("headers", "expected {NAME: value}");
    }
    for (const auto& item : headers.items()) {
        const auto field = "headers." + item.key();
        if (!item.value().is_string()) {
            return base::invalid_field(field, "expected a text");
        }
        auto value = item.value().get<std::string>();
        if (value.starts_with("env:")) {
            const char* found = std::getenv(value.substr(4).c_str());
            if (found == nullptr) {
                return base::invalid_field(field, "the environment variable is not set");
            }
            value = found;
        }
        if (auto checked = check_plain(field, value); !checked) {
            return checked;
        }
        settings.headers.emplace_back(item.key(), std::move(value));
    }
    return base::ok();
}

base::Status read_on_unknown(const Json& value, SourceSettings& settings) {
    const auto policy_of = [](const Json& text) {
        return text.is_string() ? parse_on_unknown(text.get_ref<const std::string&>())
                                : std::nullopt;
    };
    if (!value.is_object()) {
        settings.on_unknown = policy_of(value);
        return settings.on_unknown
                   ? base::ok()
                   : base::invalid_field("on_unknown",
                                         "expected retry, fail, ask or {TOOL: one of them}");
    }
    for (const auto& item : value.items()) {
        const auto policy = policy_of(item.value());
        if (!policy) {
            return base::invalid_field("on_unknown." + item.key(), "expected retry, fail or ask");
        }
        settings.on_unknown_of[item.key()] = *policy;
    }
    return base::ok();
}

base::Status read_only(const Json& value, SourceSettings& settings) {
    for (const auto& name : value) {
        if (!value.is_array() || !name.is_string()) {
            return base::invalid_field("only", "expected a list of names of tools");
        }
        settings.only.push_back(name.get<std::string>());
    }
    return base::ok();
}

base::Status read_timeout(const Json& value, SourceSettings& settings) {
    if (!value.is_number() || !(value.get<double>() > 0) || value.get<double>() > 3600) {
        return base::invalid_field("timeout", "expected seconds, at most 3600");
    }
    settings.timeout = std::chrono::duration_cast<base::Duration>(
        std::chrono::duration<double>{value.get<double>()});
    return base::ok();
}

base::Status read_answer_bytes_max(const Json& value, SourceSettings& settings) {
    if (!value.is_number_integer() || value < 1024 || value > (16U << 20U)) {
        return base::invalid_field("answer_bytes_max", "expected 1024 to 16777216");
    }
    settings.answer_bytes_max = value.get<std::size_t>();
    return base::ok();
}

}  // namespace

base::Result<bool> read_source_setting(const std::string& key,
                                       const Json& value,
                                       SourceSettings& settings) {
    using Reader = base::Status (*)(const Json&, SourceSettings&);
    static constexpr std::pair<std::string_view, Reader> kReaders[] = {
        {"headers", read_headers},
        {"timeout", read_timeout},
        {"answer_bytes_max", read_answer_bytes_max},
        {"only", read_only},
        {"on_unknown", read_on_unknown},
    };
    for (const auto& [name, read] : kReaders) {
        if (name != key) {
            continue;
        }
        if (auto status = read(value, settings); !status) {
            return std::move(status).error();
        }
        return true;
    }
    return false;
}

void apply_on_unknown(const SourceSettings& settings, ToolSpec& spec) {
    if (settings.on_unknown) {
        spec.on_unknown = *settings.on_unknown;
    }
    const auto own = settings.on_unknown_of.find(spec.name);
    if (own != settings.on_unknown_of.end()) {
        spec.on_unknown = own->second;
        spec.recorded = true;
    }
}

base::Status check_plain(const std::string& field, const std::string& text) {
    const bool control = std::any_of(text.begin(), text.end(),
                                     [](unsigned char c) { return c < 0x20 || c == 0x7F; });
    if (control) {
        return base::invalid_field(field, "holds a control character");
    }
    if (text.size() > kPlainBytesMax) {
        return base::invalid_field(field, "is too long");
    }
    return base::ok();
}

}  // namespace heddle::tools
