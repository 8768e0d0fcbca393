// A state from its journal: the rows of a chain, one after the other.
#include <utility>

#include "engine/base/json_scan.hpp"
#include "engine/graph/row_events.hpp"
#include "engine/graph/state.hpp"

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Status;

}  // namespace

struct State::Texts {
    struct Part {
        std::size_t channel;
        std::string_view text;
    };
    std::vector<Part> parts;
    std::vector<std::size_t> lists;

    bool take_list(base::JsonScan& scan, std::size_t channel) {
        lists.push_back(channel);
        if (!scan.take("[")) {
            return false;
        }
        if (scan.take("]")) {
            return true;
        }
        do {
            const auto element = scan.take_value();
            if (!element) {
                return false;
            }
            parts.push_back({channel, *element});
        } while (scan.take(","));
        return scan.take("]");
    }
    bool take_value(base::JsonScan& scan, std::size_t channel) {
        const auto value = scan.take_value();
        if (value && channel != kUnknown) {  // else the graph no longer has it
            parts.push_back({channel, *value});
        }
        return value.has_value();
    }
};

// The two common kinds of row, without building values: a delta that only appends, and a snapshot.
// @return false if it is another kind, or not in order: nothing is changed then
bool State::replay_texts(std::string_view row) {
    base::JsonScan scan{row};
    Texts texts;
    const bool is_snapshot = scan.take(R"({"s":{)");
    if (!is_snapshot && !scan.take(R"({"d":{)")) {
        return false;
    }
    if (!scan.take("}")) {
        do {
            const auto name = scan.take_key();
            const auto channel = name ? index_of(*name) : kUnknown;
            const bool list = channel != kUnknown && slots_[channel].list != nullptr;
            const bool taken =
                !name                  ? false
                : is_snapshot && !list ? texts.take_value(scan, channel)
                : is_snapshot          ? texts.take_list(scan, channel)
                : list ? scan.take(R"({"a":)") && texts.take_list(scan, channel) && scan.take("}")
                       : false;
            if (!taken) {
                return false;
            }
        } while (scan.take(","));
        if (!scan.take("}")) {
            return false;
        }
    }
    if (!scan.take("}") || !scan.at_end()) {
        return false;
    }
    if (is_snapshot) {
        *this = State{channels_};
        for (const auto channel : texts.lists) {
            slots_[channel].list = std::make_shared<List>();
        }
    }
    for (const auto& [channel, text] : texts.parts) {
        if (slots_[channel].list != nullptr) {
            append_item(channel, Item::from_stored(text));
        } else {
            slots_[channel].value = std::make_shared<const Item>(Item::from_stored(text));
        }
    }
    return true;
}

Status State::replay(std::string_view data) {
    if (replay_texts(state_part(data))) {
        return base::ok();
    }
    auto parsed = base::parse_stored_json(state_part(data));
    if (!parsed) {
        return std::move(parsed).error();
    }
    if (parsed->is_object() && parsed->contains("s")) {
        return replay_snapshot((*parsed)["s"]);
    }
    if (!parsed->is_object() || !parsed->contains("d") || !(*parsed)["d"].is_object()) {
        return Error{ErrorCode::internal, "a journal row holds neither a delta nor a snapshot"};
    }
    for (auto& [name, change] : (*parsed)["d"].items()) {
        const auto channel = index_of(name);
        if (channel == kUnknown) {
            continue;
        }
        const bool value = change.is_object() && change.contains("v");
        if (value && slots_[channel].list == nullptr) {
            slots_[channel].value = std::make_shared<const Item>(std::move(change["v"]));
            continue;
        }
        auto status = value || !change.is_object()
                          ? Status{Error{ErrorCode::internal, "a delta does not fit its channel"}}
                          : replay_list(channel, change);
        if (!status) {
            return status;
        }
    }
    return base::ok();
}

Status State::replay_snapshot(Json& values) {
    if (!values.is_object()) {
        return Error{ErrorCode::internal, "a snapshot is broken"};
    }
    *this = State{channels_};
    for (auto& [name, value] : values.items()) {
        const auto channel = index_of(name);
        if (channel == kUnknown) {
            continue;
        }
        if (slots_[channel].list == nullptr) {
            slots_[channel].value = std::make_shared<const Item>(std::move(value));
            continue;
        }
        if (!value.is_array()) {
            return Error{ErrorCode::internal, "a snapshot does not fit its channel"};
        }
        slots_[channel].list = std::make_shared<List>();
        for (auto& element : value) {
            append_item(channel, Item{std::move(element)});
        }
    }
    return base::ok();
}

Status State::replay_list(std::size_t channel, Json& change) {
    const Error broken{ErrorCode::internal, "a delta does not fit its channel"};
    if (slots_[channel].list == nullptr) {
        return broken;
    }
    const bool messages = (*channels_)[channel].reducer == Reducer::add_messages;
    List& list = own_list(channel);
    for (auto& pair : change.value("r", Json::array())) {
        if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_unsigned()) {
            return broken;
        }
        const auto at = pair[0].get<std::size_t>();
        if (at >= list.items.size()) {
            return broken;
        }
        if (messages) {
            list.by_id.erase(list.items[at].id());
        }
        (void)list.replace(at, Item{std::move(pair[1])});
        if (messages) {
            list.by_id.emplace(list.items[at].id(), at);
        }
    }
    const auto old_size = list.items.size();
    std::vector<bool> removed(old_size, false);
    bool any_removed = false;
    for (const auto& at : change.value("x", Json::array())) {
        if (!at.is_number_unsigned() || at.get<std::size_t>() >= old_size) {
            return broken;
        }
        removed[at.get<std::size_t>()] = true;
        any_removed = true;
    }
    if (any_removed) {
        auto kept = std::make_shared<List>();
        std::swap(slots_[channel].list, kept);
        for (std::size_t i = 0; i < old_size; ++i) {
            if (!removed[i]) {
                append_item(channel, kept->items[i]);
            }
        }
    }
    if (const auto added = change.find("a"); added != change.end() && added->is_array()) {
        for (auto& element : *added) {
            append_item(channel, Item{std::move(element)});
        }
    }
    return base::ok();
}

}  // namespace heddle::graph
