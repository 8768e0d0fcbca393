#include "engine/nodes/chat_state.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace heddle::nodes {
namespace {

using base::Json;

bool has_type(const graph::Item& item, std::string_view type) {
    const auto at = item.json().find("type");
    return at != item.json().end() && at->is_string() && at->get_ref<const std::string&>() == type;
}

}  // namespace

const graph::Item* find_last_message(const graph::State& state, std::string_view type) {
    const auto* messages = state.find_list(kMessages);
    if (messages == nullptr) {
        return nullptr;
    }
    const auto found = std::find_if(messages->rbegin(), messages->rend(),
                                    [&](const auto& item) { return has_type(item, type); });
    return found == messages->rend() ? nullptr : &*found;
}

const Json& pending_tool_calls(const graph::State& state) {
    static const Json kNone = Json::array();
    const auto* messages = state.find_list(kMessages);
    if (messages == nullptr || messages->empty() || !has_type(messages->back(), "ai")) {
        return kNone;
    }
    const auto& message = messages->back().json();
    const auto calls = message.find("tool_calls");
    return calls == message.end() || !calls->is_array() ? kNone : *calls;
}

graph::NodeOutput write_message(Json message) {
    graph::NodeOutput output;
    output.writes.push_back(graph::ChannelWrite{std::string{kMessages}, Json::array()});
    output.writes.back().value.push_back(std::move(message));
    return output;
}

}  // namespace heddle::nodes
