// POST /chat: one call a turn, for people with curl.
#include <utility>

#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/api/fields.hpp"
#include "engine/api/shapes.hpp"
#include "engine/base/json_scan.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::ThreadId;

constexpr std::size_t kMessageBytesMax = 1U << 20U;

// A message's content is a string or a list of blocks, of which the text ones are the reply.
std::string text_of(const Json& message) {
    const auto content = message.find("content");
    if (content == message.end()) {
        return {};
    }
    if (content->is_string()) {
        return content->get<std::string>();
    }
    std::string text;
    if (content->is_array()) {
        for (const auto& block : *content) {
            if (block.is_object() && block.value("type", Json{}) == "text") {
                const auto at = block.find("text");
                if (at != block.end() && at->is_string()) {
                    text += at->get<std::string>();
                }
            }
        }
    }
    return text;
}

// The agent's last word: the newest message, if the agent wrote it.
std::optional<std::string> reply_of(const scheduler::RunOutcome& outcome) {
    const auto messages = base::find_member(outcome.values, "messages");
    if (!messages) {
        return std::nullopt;
    }
    const auto last = base::find_last_element(*messages);
    if (!last) {
        return std::nullopt;
    }
    const auto message = base::parse_stored_json(*last);
    if (!message || !message->is_object() || message->value("type", Json{}) != "ai") {
        return std::nullopt;
    }
    return text_of(*message);
}

Response chat_response(const scheduler::RunOutcome& outcome, const storage::RunRow& run) {
    const Json ids{{"thread_id", run.thread_id.to_string()}, {"run_id", run.id.to_string()}};
    if (is_failure(outcome)) {
        auto body = Json::parse(error_json(outcome.error));
        body.update(ids);
        return json_response(base::error_traits(outcome.error.code).http_status,
                             base::dump_json(body));
    }
    Json body = ids;
    const auto reply = reply_of(outcome);
    body["reply"] = reply ? Json(*reply) : Json{};
    body["status"] = outcome.interrupts.empty() ? "done" : "interrupted";
    body["usage"] = {{"input_tokens", outcome.input_tokens},
                     {"output_tokens", outcome.output_tokens},
                     {"total_tokens", outcome.input_tokens + outcome.output_tokens}};
    return json_response(200, base::dump_json(body));
}

struct ChatBody {
    std::optional<ThreadId> thread;
    scheduler::RunRequest run;
};

base::Result<ChatBody> read_chat_body(const std::string& text, const scheduler::Catalog& catalog) {
    const auto json = parse_body(text);
    if (!json) {
        return json.error();
    }
    Fields body{*json};
    const auto agent = body.text("agent");
    if (!agent) {
        body.refuse("agent", "is required");
    }
    const auto message = body.text("message");
    if (!message) {
        body.refuse("message", "is required");
    }
    if (message && message->size() > kMessageBytesMax) {
        body.refuse("message", fmt::format("has more than {} bytes", kMessageBytesMax));
    }
    ChatBody chat;
    chat.thread = body.id<ThreadId>("thread_id");
    const auto* metadata = body.object("metadata");
    const auto* context = body.object("context");
    if (auto status = body.finish(); !status) {
        return std::move(status).error();
    }
    const auto* assistant = catalog.find(*agent);
    if (assistant == nullptr) {
        constexpr std::size_t kShownMax = 64;
        return Error{ErrorCode::not_found,
                     fmt::format("Agent not found: {}", agent->substr(0, kShownMax)), "agent"};
    }
    chat.run.assistant = *assistant;
    chat.run.recursion_limit = assistant->graph->recursion_limit;
    chat.run.create_thread = true;
    Json said{{"type", "human"}, {"content", *message}};
    chat.run.input = Json{{"messages", Json::array({std::move(said)})}};
    if (metadata != nullptr) {
        chat.run.metadata = *metadata;
    }
    if (context != nullptr) {
        chat.run.configurable = *context;
    }
    return chat;
}

}  // namespace

base::Task<Api::Outcome> Api::chat(Call& call) {
    auto body = read_chat_body(call.request.body, scheduler_.catalog());
    if (!body) {
        co_return std::move(body).error();
    }
    const auto here = *ThreadId::parse(call.request.thread_id);
    const auto thread = body->thread.value_or(here);
    if (&scheduler_.pool().of(thread) != &scheduler_.pool().of(here)) {
        co_return Answer{Elsewhere{thread}};
    }
    body->run.thread_id = thread;
    auto scope = body->thread ? "thread " + thread.to_string() : std::string{"chat"};
    auto claimed = co_await claim_key(call, std::move(scope), body->run);
    if (!claimed) {
        co_return std::move(claimed).error();
    }
    if (&scheduler_.pool().of(body->run.thread_id) != &scheduler_.pool().of(here)) {
        co_return Answer{Elsewhere{body->run.thread_id}};
    }
    auto run = co_await start_run(call, std::move(body->run));
    if (!run) {
        co_return std::move(run).error();
    }
    Render render = [row = (*run)->row()](const scheduler::RunOutcome& outcome) {
        return chat_response(outcome, row);
    };
    co_return co_await answer_at_end(call, *run, options_.chat_silence_max, std::move(render));
}

}  // namespace heddle::api
