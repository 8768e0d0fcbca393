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

// Each message of what is written to a channel of messages, one or a list, in its one form.
template <class Take>
Status each_message(Json value, const std::string& path, IdMint& mint, Take take) {
    if (!value.is_array()) {
        auto message = normalize_message(std::move(value), path, mint);
        if (!message) {
            return std::move(message).error();
        }
        take(std::move(*message));
        return base::ok();
    }
    for (std::size_t i = 0; i < value.size(); ++i) {
        auto message = normalize_message(std::move(value[i]), fmt::format("{}[{}]", path, i), mint);
        if (!message) {
            return std::move(message).error();
        }
        take(std::move(*message));
    }
    return base::ok();
}

// @return where the channel is, if it may hold the value; of messages nothing is said yet
Result<std::size_t> find_channel(const Channels& channels,
                                 const ChannelWrite& write,
                                 const std::string& field) {
    const auto spec = std::find_if(channels.begin(), channels.end(), [&](const auto& channel) {
        return channel.name == write.channel;
    });
    if (spec == channels.end()) {
        return Error{ErrorCode::invalid_argument,
                     fmt::format("{}: the agent has no such channel", field), field};
    }
    if (spec->reducer == Reducer::last_value && !has_type(write.value, spec->type)) {
        return Error{
            ErrorCode::invalid_argument,
            fmt::format("{}: expected {}, got {}", field, spec->type, write.value.type_name()),
            field};
    }
    return static_cast<std::size_t>(spec - channels.begin());
}

Result<PreparedWrite> prepare_write(const Channels& channels,
                                    ChannelWrite write,
                                    std::string_view path,
                                    IdMint& mint) {
    const auto field = join(path, write.channel);
    const auto channel = find_channel(channels, write, field);
    if (!channel) {
        return channel.error();
    }
    PreparedWrite prepared;
    prepared.channel = *channel;
    const auto reducer = channels[*channel].reducer;
    if (reducer == Reducer::add_messages) {
        prepared.items.reserve(write.value.is_array() ? write.value.size() : 1);
        auto status = each_message(std::move(write.value), field, mint, [&prepared](Json message) {
            prepared.has_removals = prepared.has_removals || message["type"] == "remove";
            prepared.items.emplace_back(std::move(message));
        });
        if (!status) {
            return std::move(status).error();
        }
        return prepared;
    }
    if (reducer == Reducer::append && write.value.is_array()) {
        for (auto& element : write.value) {
            prepared.items.emplace_back(std::move(element));
        }
        return prepared;
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
    for (auto& write : *writes) {
        const auto field = join("input", write.channel);
        const auto channel = find_channel(channels, write, field);
        if (!channel) {
            return channel.error();
        }
        if (channels[*channel].reducer == Reducer::add_messages) {
            auto status =
                each_message(std::move(write.value), field, mint, [](const Json& /*message*/) {});
            if (!status) {
                return status;
            }
        }
    }
    return base::ok();
}

}  // namespace heddle::graph
