#include "engine/graph/state.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

namespace heddle::graph {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;

bool is_list(const ChannelSpec& spec) noexcept {
    return spec.reducer != Reducer::last_value;
}

bool is_removal(const Item& item) noexcept {
    const auto at = item.json().find("type");
    return at != item.json().end() && at->is_string() &&
           at->get_ref<const std::string&>() == "remove";
}

void append_items(std::string& out,
                  std::vector<Item>::const_iterator begin,
                  std::vector<Item>::const_iterator end) {
    out += '[';
    for (auto at = begin; at != end; ++at) {
        if (at != begin) {
            out += ',';
        }
        out += at->text();
    }
    out += ']';
}

void append_key(std::string& out, std::string_view key) {
    if (out.back() != '{') {
        out += ',';
    }
    base::append_json_string(out, key);
    out += ':';
}

}  // namespace

void State::List::push(Item item) {
    bytes += item.text().size();
    items.push_back(std::move(item));
}

Item State::List::replace(std::size_t at, Item item) {
    bytes = bytes - items[at].text().size() + item.text().size();
    return std::exchange(items[at], std::move(item));
}

void State::List::pop() {
    bytes -= items.back().text().size();
    items.pop_back();
}

State::State(std::shared_ptr<const Channels> channels)
    : channels_{std::move(channels)}, slots_(channels_->size()) {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        const ChannelSpec& spec = (*channels_)[i];
        if (!is_list(spec)) {
            if (!spec.initial.is_null()) {
                slots_[i].value = std::make_shared<const Item>(spec.initial);
            }
            continue;
        }
        slots_[i].list = std::make_shared<List>();
        if (spec.reducer == Reducer::append && spec.initial.is_array()) {
            for (const auto& element : spec.initial) {
                append_item(i, Item{element});
            }
        }
    }
}

std::size_t State::index_of(std::string_view channel) const noexcept {
    for (std::size_t i = 0; i < channels_->size(); ++i) {
        if ((*channels_)[i].name == channel) {
            return i;
        }
    }
    return kUnknown;
}

const Item* State::find_value(std::string_view channel) const noexcept {
    const auto index = index_of(channel);
    return index == kUnknown ? nullptr : slots_[index].value.get();
}

const std::vector<Item>* State::find_list(std::string_view channel) const noexcept {
    const auto index = index_of(channel);
    if (index == kUnknown || slots_[index].list == nullptr) {
        return nullptr;
    }
    return &slots_[index].list->items;
}

bool State::has_message(std::size_t channel, std::string_view id) const {
    const auto& list = slots_[channel].list;
    return list != nullptr && list->by_id.contains(id);
}

State::List& State::own_list(std::size_t channel) {
    auto& list = slots_[channel].list;
    if (list.use_count() > 1) {
        list = std::make_shared<List>(*list);
    }
    return *list;
}

void State::append_item(std::size_t channel, Item item) {
    List& list = own_list(channel);
    if ((*channels_)[channel].reducer == Reducer::add_messages) {
        list.by_id.emplace(item.id(), list.items.size());
    }
    list.push(std::move(item));
}

std::size_t State::bytes() const noexcept {
    std::size_t sum = 0;
    for (const auto& slot : slots_) {
        if (slot.value != nullptr) {
            sum += slot.value->text().size();
        }
        if (slot.list != nullptr) {
            sum += slot.list->bytes + slot.list->items.size();
        }
    }
    return sum;
}

void State::append_value_text(std::string& out, std::size_t channel) const {
    const Slot& slot = slots_[channel];
    if (slot.list != nullptr) {
        append_items(out, slot.list->items.begin(), slot.list->items.end());
    } else {
        out += slot.value->text();
    }
}

std::string State::to_text() const {
    std::string out;
    out.reserve(bytes() + 2 + slots_.size() * 64);
    out += '{';
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].value == nullptr && slots_[i].list == nullptr) {
            continue;
        }
        append_key(out, (*channels_)[i].name);
        append_value_text(out, i);
    }
    out += '}';
    return out;
}

Json State::to_json() const {
    Json out = Json::object();
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        const auto& name = (*channels_)[i].name;
        if (slots_[i].value != nullptr) {
            out[name] = slots_[i].value->json();
        }
        if (slots_[i].list == nullptr) {
            continue;
        }
        Json& list = out[name] = Json::array();
        for (const auto& item : slots_[i].list->items) {
            list.push_back(item.json());
        }
    }
    return out;
}

std::string State::to_snapshot() const {
    return R"({"s":)" + to_text() + "}";
}

Status State::apply(const std::vector<PreparedWrite>& writes, std::string& delta, Undo* undo) {
    Undo done;
    delta = R"({"d":{)";
    std::vector<const PreparedWrite*> of_channel;
    for (std::size_t channel = 0; channel < slots_.size(); ++channel) {
        of_channel.clear();
        for (const auto& write : writes) {
            if (write.channel == channel) {
                of_channel.push_back(&write);
            }
        }
        if (of_channel.empty()) {
            continue;
        }
        auto status = merge(channel, of_channel, delta, &done);
        if (!status) {
            revert(std::move(done));
            delta.clear();
            return status;
        }
    }
    delta += "}}";
    if (undo != nullptr) {
        *undo = std::move(done);
    }
    return base::ok();
}

Status State::apply(const std::vector<ChannelWrite>& writes, std::string& delta) {
    IdMint mint;
    auto prepared = prepare_writes(*channels_, writes, "", mint);
    if (!prepared) {
        auto error = std::move(prepared).error();
        error.code = ErrorCode::graph_error;
        return error;
    }
    return apply(*prepared, delta, nullptr);
}

Status State::merge(std::size_t channel,
                    const std::vector<const PreparedWrite*>& writes,
                    std::string& delta,
                    Undo* undo) {
    const ChannelSpec& spec = (*channels_)[channel];
    if (is_list(spec)) {
        const bool removing = std::any_of(writes.begin(), writes.end(),
                                          [](const auto* write) { return write->has_removals; });
        if (removing) {
            return merge_removing(channel, writes, delta, undo);
        }
        merge_appending(channel, writes, delta, undo);
        return base::ok();
    }
    if (writes.size() > 1) {
        return Error{ErrorCode::graph_error,
                     fmt::format("At key '{}': Can receive only one value per step. Give the "
                                 "channel a reducer to handle multiple values.",
                                 spec.name),
                     spec.name};
    }
    Undo::Entry entry;
    entry.channel = channel;
    entry.whole = true;
    entry.before = std::move(slots_[channel]);
    undo->entries.push_back(std::move(entry));
    slots_[channel] = Slot{std::make_shared<const Item>(writes.front()->items.front()), nullptr};
    append_key(delta, spec.name);
    delta += R"({"v":)";
    delta += slots_[channel].value->text();
    delta += '}';
    return base::ok();
}

void State::merge_appending(std::size_t channel,
                            const std::vector<const PreparedWrite*>& writes,
                            std::string& delta,
                            Undo* undo) {
    const bool messages = (*channels_)[channel].reducer == Reducer::add_messages;
    List& list = own_list(channel);
    Undo::Entry entry;
    entry.channel = channel;
    entry.size_before = list.items.size();
    std::vector<std::size_t> replaced;
    for (const auto* write : writes) {
        for (const auto& item : write->items) {
            if (messages) {
                const auto id = item.id();
                const auto found = list.by_id.find(id);
                if (found != list.by_id.end()) {
                    const auto at = found->second;
                    // The old key points into the item that goes away.
                    list.by_id.erase(found);
                    list.by_id.emplace(id, at);
                    auto old = list.replace(at, item);
                    if (at < entry.size_before) {
                        replaced.push_back(at);
                        entry.replaced.emplace_back(at, std::move(old));
                    }
                    continue;
                }
                list.by_id.emplace(id, list.items.size());
            }
            list.push(item);
        }
    }
    if (replaced.empty() && list.items.size() == entry.size_before) {
        return;
    }
    append_key(delta, (*channels_)[channel].name);
    delta += '{';
    if (!replaced.empty()) {
        std::sort(replaced.begin(), replaced.end());
        replaced.erase(std::unique(replaced.begin(), replaced.end()), replaced.end());
        delta += R"("r":[)";
        for (const auto at : replaced) {
            if (delta.back() != '[') {
                delta += ',';
            }
            delta += fmt::format("[{},{}]", at, list.items[at].text());
        }
        delta += "],";
    }
    delta += R"("a":)";
    const auto grown = list.items.begin() + static_cast<std::ptrdiff_t>(entry.size_before);
    append_items(delta, grown, list.items.end());
    delta += '}';
    undo->entries.push_back(std::move(entry));
}

/// A messages list under add_messages with removals: where each element came from.
struct State::Merge {
    struct Element {
        Item item;
        std::size_t old_index = kUnknown;
        bool replaced = false;
        bool removed = false;
    };
    std::vector<Element> elements;
    std::unordered_map<std::string_view, std::size_t> by_id;

    void put(const Item& item, std::size_t old_index) {
        by_id.insert_or_assign(item.id(), elements.size());
        elements.push_back(Element{item, old_index});
    }
    void clear() {
        for (auto& element : elements) {
            element.removed = true;
        }
        by_id.clear();
    }

    // One write, as LangGraph's add_messages merges `right`: removals take effect at its end, so
    // that a message may be removed and put again in one write.
    Status take(const PreparedWrite& write, const std::string& channel) {
        auto begin = write.items.begin();
        for (auto at = begin; at != write.items.end(); ++at) {
            if (is_removal(*at) && at->id() == kRemoveAll) {
                clear();
                begin = at + 1;
            }
        }
        std::vector<std::size_t> doomed;
        for (auto at = begin; at != write.items.end(); ++at) {
            const auto found = by_id.find(at->id());
            if (is_removal(*at)) {
                if (found == by_id.end()) {
                    return Error{ErrorCode::graph_error,
                                 fmt::format("{}: Attempting to delete a message with an ID that "
                                             "doesn't exist ('{}')",
                                             channel, at->id()),
                                 channel};
                }
                doomed.push_back(found->second);
            } else if (found != by_id.end()) {
                auto& element = elements[found->second];
                std::erase(doomed, found->second);
                const auto index = found->second;
                by_id.erase(found);
                element.item = *at;
                element.replaced = true;
                by_id.emplace(element.item.id(), index);
            } else {
                put(*at, kUnknown);
            }
        }
        for (const auto index : doomed) {
            by_id.erase(elements[index].item.id());
            elements[index].removed = true;
        }
        return base::ok();
    }
};

Status State::merge_removing(std::size_t channel,
                             const std::vector<const PreparedWrite*>& writes,
                             std::string& delta,
                             Undo* undo) {
    const auto& name = (*channels_)[channel].name;
    Merge work;
    const auto& old_items = slots_[channel].list->items;
    for (std::size_t i = 0; i < old_items.size(); ++i) {
        work.put(old_items[i], i);
    }
    for (const auto* write : writes) {
        auto status = work.take(*write, name);
        if (!status) {
            return status;
        }
    }

    auto fresh = std::make_shared<List>();
    std::string replaced;
    std::string removed;
    std::string appended;
    for (const auto& element : work.elements) {
        if (element.removed) {
            if (element.old_index == kUnknown) {
                continue;
            }
            removed += fmt::format("{}{}", removed.empty() ? "" : ",", element.old_index);
            continue;
        }
        if (element.old_index == kUnknown) {
            if (!appended.empty()) {
                appended += ',';
            }
            appended += element.item.text();
        } else if (element.replaced) {
            if (!replaced.empty()) {
                replaced += ',';
            }
            replaced += fmt::format("[{},{}]", element.old_index, element.item.text());
        }
        fresh->by_id.emplace(element.item.id(), fresh->items.size());
        fresh->push(element.item);
    }
    append_key(delta, name);
    delta += fmt::format(R"({{"r":[{}],"x":[{}],"a":[{}]}})", replaced, removed, appended);

    Undo::Entry entry;
    entry.channel = channel;
    entry.whole = true;
    entry.before = std::exchange(slots_[channel], Slot{nullptr, std::move(fresh)});
    undo->entries.push_back(std::move(entry));
    return base::ok();
}

void State::revert(Undo undo) {
    for (auto entry = undo.entries.rbegin(); entry != undo.entries.rend(); ++entry) {
        if (entry->whole) {
            slots_[entry->channel] = std::move(entry->before);
            continue;
        }
        List& list = own_list(entry->channel);
        const bool messages = (*channels_)[entry->channel].reducer == Reducer::add_messages;
        while (list.items.size() > entry->size_before) {
            if (messages) {
                list.by_id.erase(list.items.back().id());
            }
            list.pop();
        }
        // Backwards: of an element that was replaced twice the first version is the old one.
        for (auto at = entry->replaced.rbegin(); at != entry->replaced.rend(); ++at) {
            list.by_id.erase(list.items[at->first].id());
            (void)list.replace(at->first, std::move(at->second));
            list.by_id.emplace(list.items[at->first].id(), at->first);
        }
    }
}

}  // namespace heddle::graph
