#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"

/// The model port. Drivers: models/scripted, models/openai. Everything runs on the calling shard;
/// drivers that need another OS thread come back to it.
namespace heddle::models {

struct ChatRequest {
    /// Messages as LangChain serialises them: {type: human|ai|system|tool, content, id?, name?,
    /// tool_calls? [{id, name, args}], tool_call_id?}. content is a string or a list of blocks.
    base::Json messages = base::Json::array();
    /// Tools the model may call: [{name, description, parameters: JSON Schema}]; empty: none.
    base::Json tools = base::Json::array();
    base::Instant deadline{};  ///< the answer must be complete by then, retries included
    bool stream = false;       ///< call on_chunk while the answer arrives
};

struct Usage {
    std::int64_t input_tokens = 0;
    std::int64_t output_tokens = 0;
};

struct ChatReply {
    /// {type: "ai", content, id, tool_calls, usage_metadata, response_metadata, ...}: what goes
    /// into the messages channel.
    base::Json message;
    Usage usage;
};

/// One increment of the answer: an AIMessageChunk as LangChain serialises it (type
/// "AIMessageChunk", content, id, tool_call_chunks?).
using OnChunk = base::UniqueFunction<void(base::Json chunk)>;

class ChatModel {
public:
    virtual ~ChatModel() = default;
    /// Calls the model once, with the driver's own retries inside request.deadline.
    /// @param on_chunk  may be empty; after a retry chunks begin again under a new message id
    /// @return model_error   refused or nonsense (hostile answers are bounded and never crash)
    ///         timeout       the deadline passed
    ///         unavailable   cannot be reached, retries used up
    ///         cancelled     cancel fired; the connection is closed
    virtual base::Task<base::Result<ChatReply>> call(ChatRequest request,
                                                     OnChunk on_chunk,
                                                     base::CancelSource& cancel) = 0;
};

}  // namespace heddle::models
