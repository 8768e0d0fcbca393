#include "engine/nodes/call_decision.hpp"

#include <utility>

namespace heddle::nodes {
namespace {

using base::Json;

base::Error refuse(const std::string& field, const char* problem) {
    return {base::ErrorCode::invalid_argument, field + ' ' + problem, field};
}

}  // namespace

base::Result<CallDecision> read_call_decision(const Json& value, const std::string& field) {
    if (!value.is_object()) {
        return refuse(field, R"(must be an object such as {"action": "retry"})");
    }
    CallDecision decision;
    const auto action = value.find("action");
    if (action != value.end() && *action == "retry") {
        decision.action = CallDecision::Action::retry;
    } else if (action != value.end() && *action == "result") {
        decision.action = CallDecision::Action::result;
    } else if (action == value.end() || *action != "fail") {
        return refuse(field + ".action", "must be retry, fail or result");
    }
    const bool is_result = decision.action == CallDecision::Action::result;
    const auto content = value.find("content");
    if (is_result && (content == value.end() || !content->is_string())) {
        return refuse(field + ".content", "must be a text: the tool's answer");
    }
    for (const auto& member : value.items()) {
        if (member.key() != "action" && !(is_result && member.key() == "content")) {
            return refuse(field + '.' + member.key(), "is not a known field");
        }
    }
    if (is_result) {
        decision.content = content->get<std::string>();
    }
    return decision;
}

base::Status check_call_decision(const Json& value, const std::string& field) {
    auto decision = read_call_decision(value, field);
    return decision ? base::ok() : base::Status{std::move(decision).error()};
}

}  // namespace heddle::nodes
