#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/graph/state.hpp"

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;

std::string join(std::string_view path, std::string_view key) {
    return path.empty() ? std::string{key} : fmt::format("{}.{}", path, key);
}

bool has_type(const Json& value, std::string_view type) {
    if (type.empty() || value.is_null()) {
        return true;
    }
    if (type == "string") {
        return value.is_string();
    }
    if (type == "number") {
        return value.is_number();
    }
    if (type == "integer") {
        return value.is_number_integer();
    }
    if (type == "boolean") {
        return value.is_boolean();
    }
    if (type == "array") {
        return value.is_array();
    }
    return type == "object" && value.is_object();
}

Status prepare_messages(PreparedWrite& prepared,
                        Json value,
                        const std::string& path,
                        IdMint& mint) {
    if (!value.is_array()) {
        auto message = normalize_message(std::move(value), path, mint);
        if (!message) {
            return std::move(message).error();
        }
        prepared.has_removals = (*message)["type"] == "remove";
        prepared.items.emplace_back(std::move(*message));
        return base::ok();
    }
    prepared.items.reserve(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
        auto message = normalize_message(std::move(value[i]), fmt::format("{}[{}]", path, i), mint);
        if (!message) {
            return std::move(message).error();
        }
        prepared.has_removals = prepared.has_removals || (*message)["type"] == "remove";
        prepared.items.emplace_back(std::move(*message));
    }
    return base::ok();
}

Result<PreparedWrite> prepare_write(const Channels& channels,
                                    ChannelWrite write,
                                    std::string_view path,
                                    IdMint& mint) {
    const auto spec = std::find_if(channels.begin(), channels.end(), [&](const auto& channel) {
        return channel.name == write.channel;
    });
    const auto field = join(path, write.channel);
    if (spec == channels.end()) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("{}: the agent has no such channel", field), field};
    }
    PreparedWrite prepared;
    prepared.channel = static_cast<std::size_t>(spec - channels.begin());
    if (spec->reducer == Reducer::add_messages) {
        auto status = prepare_messages(prepared, std::move(write.value), field, mint);
        if (!status) {
            return std::move(status).error();
        }
        return prepared;
    }
    if (spec->reducer == Reducer::append && write.value.is_array()) {
        for (auto& element : write.value) {
            prepared.items.emplace_back(std::move(element));
        }
        return prepared;
    }
    if (spec->reducer == Reducer::last_value && !has_type(write.value, spec->type)) {
        return Error{
            ErrorCode::invalid_argument,
            fmt::format("{}: expected {}, got {}", field, spec->type, write.value.type_name()),
            field};
    }
    prepared.items.emplace_back(std::move(write.value));
    return prepared;
}

}  // namespace

Result<std::vector<PreparedWrite>> prepare_writes(const Channels& channels,
                                                  std::vector<ChannelWrite> writes,
                                                  std::string_view path,
                                                  IdMint& mint) {
    std::vector<PreparedWrite> prepared;
    prepared.reserve(writes.size());
    for (auto& write : writes) {
        auto one = prepare_write(channels, std::move(write), path, mint);
        if (!one) {
            return std::move(one).error();
        }
        prepared.push_back(std::move(*one));
    }
    return prepared;
}

Result<std::vector<ChannelWrite>> input_writes(Json input) {
    if (!input.is_object()) {
        return Error{ErrorCode::invalid_argument,
                     "input: expected an object with a value for each channel to write", "input"};
    }
    std::vector<ChannelWrite> writes;
    writes.reserve(input.size());
    for (auto& [channel, value] : input.items()) {
        writes.push_back(ChannelWrite{channel, std::move(value)});
    }
    return writes;
}

Status validate_input(const Channels& channels, const Json& input) {
    auto writes = input_writes(input);
    if (!writes) {
        return std::move(writes).error();
    }
    IdMint mint;
    auto prepared = prepare_writes(channels, std::move(*writes), "input", mint);
    if (!prepared) {
        return std::move(prepared).error();
    }
    return base::ok();
}

}  // namespace heddle::graph
