#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/models/model.hpp"

/// Messages as LangChain (langchain-core 1.x, `dumpd`/`model_dump`) writes them: made, read and
/// turned into the OpenAI chat format. All functions are pure.
namespace heddle::models {

/// @param messages  see ChatRequest::messages; also takes role: user|assistant|system|tool
/// @return OpenAI "messages"; invalid_argument with field "messages[i].…" for what it cannot
/// express
base::Result<base::Json> to_openai_messages(const base::Json& messages);

/// @param tools  see ChatRequest::tools
/// @return OpenAI "tools": [{type: "function", function: {...}}]
base::Json to_openai_tools(const base::Json& tools);

/// The text of a message: its content string, or its text blocks joined.
std::string message_text(const base::Json& message);

/// One tool call as the model wrote it, before anything is believed.
struct RawToolCall {
    std::string id;
    std::string name;
    std::string args;  ///< should be a JSON object
};

/// What a driver has learnt about an answer.
struct AiMessage {
    std::string id;
    std::string content;
    std::vector<RawToolCall> tool_calls;
    std::optional<Usage> usage;  ///< empty: the provider did not say
    std::string model_name;
    std::string finish_reason;
    std::string provider_id;  ///< the provider's own name of the answer
    std::string refusal;
};

/// @return {type: "ai", content, id, name, tool_calls, invalid_tool_calls, usage_metadata,
///         response_metadata, additional_kwargs, example}. Calls whose args are no JSON object go
///         to invalid_tool_calls with the reason, as LangChain does.
base::Json make_ai_message(const AiMessage& answer);

/// One increment: {type: "AIMessageChunk", content, id, ..., tool_call_chunks: []}.
base::Json make_ai_chunk(std::string_view id, std::string_view content);
/// Adds {name, args, id, index, type: "tool_call_chunk"}; empty name or id become null.
void add_tool_call_chunk(base::Json& chunk, const RawToolCall& part, std::size_t index);
/// Adds usage_metadata to a chunk (the last one of an answer).
void add_usage(base::Json& message, const Usage& usage);

/// "lc_run--" and a UUID, as LangChain names AI messages. Never the provider's id: add_messages
/// replaces by id, and a provider that repeats one would overwrite the conversation.
std::string make_message_id();

}  // namespace heddle::models
