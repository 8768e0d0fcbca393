#include "engine/models/openai/settings.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>

#include <fmt/format.h>

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr std::string_view kDefaultBaseUrl = "https://api.openai.com/v1";

struct NumberRow {
    const char* name;
    double least;
    double most;
    std::optional<double> otherwise;  ///< empty: only sent when set
    bool whole;
};
constexpr std::array kNumbers{
    NumberRow{"temperature", 0, 2, std::nullopt, false},
    NumberRow{"top_p", 0, 1, std::nullopt, false},
    NumberRow{"max_tokens", 1, 1e6, std::nullopt, true},
    NumberRow{"max_completion_tokens", 1, 1e6, std::nullopt, true},
    NumberRow{"seed", 0, 9e15, std::nullopt, true},
    NumberRow{"timeout", 0.001, 3600, 120, false},
    NumberRow{"connect_timeout", 0.001, 300, 5, false},
    NumberRow{"idle_timeout", 0.001, 3600, 60, false},
    NumberRow{"retries_max", 0, 10, 3, true},
    NumberRow{"answer_bytes_max", 1024, 256U << 20U, 8U << 20U, true},
    NumberRow{"concurrency_max", 1, 100'000, 2048, true},
    NumberRow{"waiting_max", 0, 1'000'000, 8192, true},
};
constexpr std::array kTexts{"model", "base_url", "api_key_env"};
// What `extra` may not touch: these are the driver's own.
constexpr std::array kReserved{"model", "messages", "tools", "stream", "stream_options", "n"};

Error refuse(std::string field, std::string expected) {
    return {ErrorCode::invalid_argument, field + ": " + expected, field};
}

base::Status check_known(const Json& settings) {
    for (const auto& item : settings.items()) {
        const auto is = [&](std::string_view name) { return item.key() == name; };
        const bool number = std::any_of(kNumbers.begin(), kNumbers.end(),
                                        [&](const NumberRow& row) { return is(row.name); });
        if (!number && !is("extra") && std::none_of(kTexts.begin(), kTexts.end(), is)) {
            return refuse(item.key(), "unknown setting of an openai model");
        }
    }
    return base::ok();
}

base::Result<std::string> read_text(const Json& settings, const char* name, std::string otherwise) {
    const auto at = settings.find(name);
    if (at == settings.end() || at->is_null()) {
        return otherwise;
    }
    if (!at->is_string() || at->get_ref<const std::string&>().empty()) {
        return refuse(name, "expected a text");
    }
    return at->get<std::string>();
}

std::string environment(const std::string& name, std::string_view otherwise) {
    const char* value = std::getenv(name.c_str());
    return value == nullptr || *value == '\0' ? std::string{otherwise} : std::string{value};
}

/// Reads row `name` into `value`; unchanged if it is not set and has no default.
base::Status read_number(const Json& settings, const NumberRow& row, std::optional<double>& value) {
    const auto at = settings.find(row.name);
    if (at == settings.end() || at->is_null()) {
        value = row.otherwise;
        return base::ok();
    }
    if (!at->is_number() || (row.whole && !at->is_number_integer()) ||
        !(at->get<double>() >= row.least && at->get<double>() <= row.most)) {
        return refuse(row.name,
                      fmt::format("expected {} from {} to {}",
                                  row.whole ? "a whole number" : "a number", row.least, row.most));
    }
    value = at->get<double>();
    return base::ok();
}

base::Duration seconds(double value) {
    return std::chrono::duration_cast<base::Duration>(std::chrono::duration<double>{value});
}

void place(OpenAiSettings& out, std::string_view name, double value) {
    if (name == "timeout") {
        out.timeout = seconds(value);
    }
    if (name == "connect_timeout") {
        out.connect_timeout = seconds(value);
    }
    if (name == "idle_timeout") {
        out.idle_timeout = seconds(value);
    }
    if (name == "retries_max") {
        out.retries_max = static_cast<unsigned>(value);
    }
    if (name == "answer_bytes_max") {
        out.answer_bytes_max = static_cast<std::size_t>(value);
    }
    if (name == "concurrency_max") {
        out.concurrency_max = static_cast<std::size_t>(value);
    }
    if (name == "waiting_max") {
        out.waiting_max = static_cast<std::size_t>(value);
    }
}

base::Status read_numbers(const Json& settings, OpenAiSettings& out) {
    for (const auto& row : kNumbers) {
        std::optional<double> value;
        if (auto read = read_number(settings, row, value); !read) {
            return read;
        }
        if (row.otherwise) {
            place(out, row.name, *value);
        } else if (value) {
            out.body[row.name] = settings[row.name];
        }
    }
    return base::ok();
}

base::Status read_extra(const Json& settings, OpenAiSettings& out) {
    const auto at = settings.find("extra");
    if (at == settings.end() || at->is_null()) {
        return base::ok();
    }
    if (!at->is_object()) {
        return refuse("extra", "expected members of the request's body");
    }
    for (const auto& item : at->items()) {
        if (std::any_of(kReserved.begin(), kReserved.end(),
                        [&](std::string_view name) { return item.key() == name; })) {
            return refuse("extra." + item.key(), "is set by the driver");
        }
        out.body[item.key()] = item.value();
    }
    return base::ok();
}

}  // namespace

base::Result<OpenAiSettings> read_openai_settings(const Json& settings) {
    if (!settings.is_object()) {
        return refuse("", "expected an object of settings");
    }
    if (auto known = check_known(settings); !known) {
        return std::move(known).error();
    }
    auto model = read_text(settings, "model", "");
    if (!model) {
        return std::move(model).error();
    }
    if (model->empty()) {
        return refuse("model", "missing: the name the provider knows");
    }
    auto base_url =
        read_text(settings, "base_url", environment("OPENAI_BASE_URL", kDefaultBaseUrl));
    if (!base_url) {
        return std::move(base_url).error();
    }
    if (!base_url->starts_with("http://") && !base_url->starts_with("https://")) {
        return refuse("base_url", "expected http:// or https://");
    }
    auto key_name = read_text(settings, "api_key_env", "OPENAI_API_KEY");
    if (!key_name) {
        return std::move(key_name).error();
    }

    OpenAiSettings out;
    while (base_url->ends_with('/')) {
        base_url->pop_back();
    }
    out.url = *base_url + "/chat/completions";
    out.api_key = environment(*key_name, "");
    if (std::any_of(out.api_key.begin(), out.api_key.end(),
                    [](unsigned char c) { return c <= 0x20 || c >= 0x7F; })) {
        return refuse("api_key_env",
                      "the key in this variable holds a blank or a control character");
    }
    out.body = Json{{"model", *model}};
    if (auto read = read_numbers(settings, out); !read) {
        return std::move(read).error();
    }
    if (auto read = read_extra(settings, out); !read) {
        return std::move(read).error();
    }
    return out;
}

}  // namespace heddle::models
