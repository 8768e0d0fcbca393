#pragma once

#include <memory>

#include "engine/graph/node.hpp"
#include "engine/models/model.hpp"
#include "engine/nodes/prompt_template.hpp"
#include "engine/nodes/tool_selection.hpp"

namespace heddle::nodes {

struct ModelNodeSpec {
    std::shared_ptr<models::ChatModel> model;      // NOLINT: shared by nodes of many agents
    std::shared_ptr<const PromptTemplate> system;  ///< null: no system message
    ToolSelection tools;                           ///< what the model may call
};

/// kind model: calls the model with the system prompt and all messages of the thread, streams its
/// chunks, counts its tokens and appends its answer to `messages`. The prompt sees the channels
/// that are no lists, `config` (configurable), and `now` {date, weekday, time, iso} in UTC.
std::shared_ptr<const graph::Node> make_model_node(ModelNodeSpec spec);

}  // namespace heddle::nodes
