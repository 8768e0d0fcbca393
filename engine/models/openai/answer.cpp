#include "engine/models/openai/answer.hpp"

#include <utility>

#include <fmt/format.h>

namespace heddle::models {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Status;

constexpr std::size_t kCallsMax = 128;
constexpr std::size_t kNameBytesMax = 256;
constexpr std::int64_t kTokensMax = 1'000'000'000;

Error nonsense(const std::string& what) {
    return {ErrorCode::model_error, "the model provider's answer is unusable: " + what};
}

// nullptr for a member that is missing or null: providers do both.
const Json* find_member(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
}

Status append_text(const Json& object, const char* key, std::string& to) {
    const auto* value = find_member(object, key);
    if (value == nullptr) {
        return base::ok();
    }
    if (!value->is_string()) {
        return nonsense(fmt::format("\"{}\" is not a string", key));
    }
    to += value->get_ref<const std::string&>();
    return base::ok();
}

}  // namespace

std::string provider_message(const Json& body) {
    if (!body.is_object()) {
        return {};
    }
    const Json* words = find_member(body, "error");
    if (words == nullptr) {
        words = find_member(body, "detail");
    }
    if (words != nullptr && words->is_object()) {
        words = find_member(*words, "message");
    }
    if (words == nullptr || !words->is_string()) {
        return {};
    }
    constexpr std::size_t kShownMax = 200;
    auto text = words->get<std::string>();
    if (text.size() > kShownMax) {
        text = text.substr(0, kShownMax) + "...";
    }
    // Cutting may have split a character.
    const auto whole = base::dump_json(Json(std::move(text)));
    return Json::parse(whole).get<std::string>();
}

Status AnswerReader::read_head(const Json& body) {
    if (!body.is_object()) {
        return nonsense("it is not an object");
    }
    if (body.contains("error") && !body["error"].is_null()) {
        return Error{ErrorCode::unavailable,
                     "the model provider failed: " + provider_message(body)};
    }
    for (auto [key, to] : {std::pair{"id", &answer_.provider_id}, {"model", &answer_.model_name}}) {
        const auto* value = find_member(body, key);
        if (value == nullptr || !to->empty()) {
            continue;
        }
        if (!value->is_string()) {
            return nonsense(fmt::format("\"{}\" is not a string", key));
        }
        *to = value->get<std::string>().substr(0, kNameBytesMax);
    }
    const auto* usage = find_member(body, "usage");
    return usage == nullptr ? base::ok() : read_usage(*usage);
}

Status AnswerReader::read_usage(const Json& usage) {
    if (!usage.is_object()) {
        return nonsense("\"usage\" is not an object");
    }
    Usage read;
    for (auto [key, to] : {std::pair{"prompt_tokens", &read.input_tokens},
                           {"completion_tokens", &read.output_tokens}}) {
        const auto* value = find_member(usage, key);
        if (value == nullptr) {
            continue;
        }
        if (!value->is_number_unsigned() || value->get<std::uint64_t>() > kTokensMax) {
            return nonsense(fmt::format("\"usage.{}\" is not a count", key));
        }
        *to = value->get<std::int64_t>();
    }
    answer_.usage = read;
    return base::ok();
}

Status AnswerReader::read_chunk(const Json& chunk, OnChunk& on_chunk) {
    if (auto head = read_head(chunk); !head) {
        return head;
    }
    Json out = make_ai_chunk(answer_.id, "");
    bool news = false;
    const auto* choices = find_member(chunk, "choices");
    if (choices != nullptr && !choices->is_array()) {
        return nonsense("\"choices\" is not a list");
    }
    if (choices != nullptr && !choices->empty()) {
        has_choice_ = true;
        const Json& choice = choices->front();
        if (!choice.is_object()) {
            return nonsense("\"choices[0]\" is not an object");
        }
        if (const auto* delta = find_member(choice, "delta"); delta != nullptr) {
            if (auto read = read_message(*delta, out); !read) {
                return read;
            }
            news = out["content"] != "" || !out["tool_call_chunks"].empty();
        }
        const bool was_complete = is_complete();
        if (auto read = append_text(choice, "finish_reason", answer_.finish_reason); !read) {
            return read;
        }
        if (is_complete() && !was_complete) {
            out["response_metadata"] = {{"finish_reason", answer_.finish_reason},
                                        {"model_name", answer_.model_name}};
            news = true;
        }
    }
    if (answer_.usage && find_member(chunk, "usage") != nullptr) {
        add_usage(out, *answer_.usage);
        news = true;
    }
    if (news && on_chunk) {
        on_chunk(std::move(out));
    }
    return base::ok();
}

Status AnswerReader::read_whole(const Json& body) {
    if (auto head = read_head(body); !head) {
        return head;
    }
    const auto* choices = find_member(body, "choices");
    if (choices == nullptr || !choices->is_array() || choices->empty()) {
        return nonsense("it holds no choices");
    }
    const Json& choice = choices->front();
    const auto* message = choice.is_object() ? find_member(choice, "message") : nullptr;
    if (message == nullptr) {
        return nonsense("\"choices[0].message\" is missing");
    }
    Json ignored = make_ai_chunk("", "");
    if (auto read = read_message(*message, ignored); !read) {
        return read;
    }
    if (auto read = append_text(choice, "finish_reason", answer_.finish_reason); !read) {
        return read;
    }
    if (answer_.finish_reason.empty()) {
        answer_.finish_reason = "stop";
    }
    return base::ok();
}

Status AnswerReader::read_message(const Json& message, Json& chunk) {
    if (!message.is_object()) {
        return nonsense("a message is not an object");
    }
    std::string text;
    if (auto read = append_text(message, "content", text); !read) {
        return read;
    }
    answer_.content += text;
    chunk["content"] = std::move(text);
    if (auto read = append_text(message, "refusal", answer_.refusal); !read) {
        return read;
    }
    const auto* calls = find_member(message, "tool_calls");
    return calls == nullptr ? base::ok() : read_calls(*calls, chunk);
}

Status AnswerReader::read_calls(const Json& calls, Json& chunk) {
    if (!calls.is_array()) {
        return nonsense("\"tool_calls\" is not a list");
    }
    for (const auto& call : calls) {
        if (auto read = read_call(call, chunk); !read) {
            return read;
        }
    }
    return base::ok();
}

Status AnswerReader::read_call(const Json& call, Json& chunk) {
    if (!call.is_object()) {
        return nonsense("\"tool_calls\" holds something else than objects");
    }
    RawToolCall part;
    if (auto read = append_text(call, "id", part.id); !read) {
        return read;
    }
    if (const auto* function = find_member(call, "function"); function != nullptr) {
        if (!function->is_object()) {
            return nonsense("\"tool_calls[].function\" is not an object");
        }
        if (auto read = append_text(*function, "name", part.name); !read) {
            return read;
        }
        if (auto read = append_text(*function, "arguments", part.args); !read) {
            return read;
        }
    }
    // Without an index an id begins the next call: so do providers that send each call at once.
    auto& known = answer_.tool_calls;
    std::size_t index = part.id.empty() && !known.empty() ? known.size() - 1 : known.size();
    if (const auto* given = find_member(call, "index"); given != nullptr) {
        if (!given->is_number_unsigned()) {
            return nonsense("\"tool_calls[].index\" is not a count");
        }
        index = static_cast<std::size_t>(given->get<std::uint64_t>());
    }
    if (index > known.size() || index >= kCallsMax) {
        return nonsense(fmt::format("tool call {} comes out of order, or there are more than {}",
                                    index, kCallsMax));
    }
    if (index == known.size()) {
        known.emplace_back();
    }
    auto& whole = known[index];
    // The id and the name come once; some providers repeat them in every piece.
    if (whole.id.empty()) {
        whole.id = part.id;
    }
    if (whole.name.empty() || whole.name != part.name) {
        whole.name += part.name;
    }
    if (whole.name.size() > kNameBytesMax || whole.id.size() > kNameBytesMax) {
        return nonsense("a tool call's name or id is too long");
    }
    whole.args += part.args;
    add_tool_call_chunk(chunk, part, index);
    return base::ok();
}

}  // namespace heddle::models
