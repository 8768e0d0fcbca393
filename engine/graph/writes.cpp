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

Status add_message(PreparedWrite& to, Json form, const std::string& path, IdMint& mint) {
    auto message = normalize_message(std::move(form), path, mint);
    if (!message) {
        return std::move(message).error();
    }
    to.has_removals = to.has_removals || (*message)["type"] == "remove";
    to.items.emplace_back(std::move(*message));
    return base::ok();
}

// What is written to a channel of messages, one or a list.
Status add_messages(PreparedWrite& to, Json value, const std::string& path, IdMint& mint) {
    if (!value.is_array()) {
        return add_message(to, std::move(value), path, mint);
    }
    to.items.reserve(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) {
        auto status = add_message(to, std::move(value[i]), fmt::format("{}[{}]", path, i), mint);
        if (!status) {
            return status;
        }
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
        auto status = add_messages(prepared, std::move(write.value), field, mint);
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

Result<PreparedInput> prepare_input(const Channels& channels, Json input, const base::RunId& run) {
    auto writes = input_writes(std::move(input));
    if (!writes) {
        return std::move(writes).error();
    }
    IdMint mint{run.uuid};
    auto prepared = prepare_writes(channels, std::move(*writes), "input", mint);
    if (!prepared) {
        return std::move(prepared).error();
    }
    return std::make_shared<const std::vector<PreparedWrite>>(std::move(*prepared));
}

}  // namespace heddle::graph
