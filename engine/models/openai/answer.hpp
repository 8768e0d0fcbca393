#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/models/messages.hpp"
#include "engine/models/model.hpp"

namespace heddle::models {

/// Puts together one answer of the chat protocol. What it reads is hostile: every error is
/// model_error and names the member. Memory is bounded by what the caller feeds.
class AnswerReader {
public:
    explicit AnswerReader(std::string message_id) { answer_.id = std::move(message_id); }

    /// One `chat.completion.chunk`; sends what it adds to on_chunk, if there is one.
    base::Status read_chunk(const base::Json& chunk, OnChunk& on_chunk);
    /// One whole `chat.completion`.
    base::Status read_whole(const base::Json& body);
    /// @return whether the provider said that the answer is complete
    [[nodiscard]] bool is_complete() const noexcept { return !answer_.finish_reason.empty(); }
    [[nodiscard]] bool has_choice() const noexcept { return has_choice_; }
    [[nodiscard]] const AiMessage& answer() const noexcept { return answer_; }

private:
    base::Status read_head(const base::Json& body);
    base::Status read_message(const base::Json& message, base::Json& chunk);
    base::Status read_calls(const base::Json& calls, base::Json& chunk);
    base::Status read_call(const base::Json& call, base::Json& chunk);
    base::Status read_usage(const base::Json& usage);

    AiMessage answer_;
    bool has_choice_ = false;
};

/// The provider's own words in an error body: {"error": {"message"}} or {"error": "..."} or
/// {"detail": "..."}; at most 200 characters, "" if there are none.
std::string provider_message(const base::Json& body);

}  // namespace heddle::models
