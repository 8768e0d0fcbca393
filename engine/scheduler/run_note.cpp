#include "engine/scheduler/run_note.hpp"

namespace heddle::scheduler {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

std::int64_t integer_of(const Json& note, const char* key) {
    const auto at = note.find(key);
    return at != note.end() && at->is_number_integer() ? at->get<std::int64_t>() : 0;
}

std::string text_of(const Json& note, const char* key) {
    const auto at = note.find(key);
    return at != note.end() && at->is_string() ? at->get<std::string>() : std::string{};
}

Error error_of(const Json& note) {
    Error error{ErrorCode::internal, text_of(note, "message")};
    const auto name = text_of(note, "error");
    for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
        const auto each = static_cast<ErrorCode>(code);
        if (base::error_traits(each).wire_name == name) {
            error.code = each;
        }
    }
    return error;
}

void read_usage(const Json& note, RunNote& to) {
    const auto usage = note.find("usage");
    const bool is_pair = usage != note.end() && usage->is_array() && usage->size() == 2 &&
                         (*usage)[0].is_number_integer() && (*usage)[1].is_number_integer();
    if (is_pair) {
        to.input_tokens = (*usage)[0].get<std::int64_t>();
        to.output_tokens = (*usage)[1].get<std::int64_t>();
    }
}

}  // namespace

std::string encode_note(const RunNote& note) {
    Json json = Json::object();
    if (note.error) {
        json["error"] = base::error_traits(note.error->code).wire_name;
        json["message"] = note.error->message;
    }
    if (note.asked) {
        json["asked"] = note.asked->interrupts;
        json["checkpoint_id"] = note.asked->checkpoint.to_string();
    }
    if (note.input_tokens != 0 || note.output_tokens != 0) {
        json["usage"] = {note.input_tokens, note.output_tokens};
    }
    if (note.cancel) {
        json["cancel"] = *note.cancel == CancelAction::rollback ? "rollback" : "interrupt";
    }
    if (note.spared != 0) {
        json["spared"] = note.spared;
    }
    if (note.began_us != 0) {
        json["began_us"] = note.began_us;
    }
    return json.empty() ? std::string{} : base::dump_json(json);
}

RunNote read_note(const std::string& text) {
    RunNote note;
    if (text.empty()) {
        return note;
    }
    const auto json = base::parse_stored_json(text);
    if (!json || !json->is_object()) {
        return note;
    }
    if (json->contains("error")) {
        note.error = error_of(*json);
    }
    if (const auto asked = json->find("asked"); asked != json->end()) {
        const auto checkpoint = base::CheckpointId::parse(text_of(*json, "checkpoint_id"));
        note.asked = Asked{*asked, checkpoint.value_or(base::CheckpointId{})};
    }
    read_usage(*json, note);
    if (const auto cancel = text_of(*json, "cancel"); !cancel.empty()) {
        note.cancel = cancel == "rollback" ? CancelAction::rollback : CancelAction::interrupt;
    }
    note.spared = static_cast<std::int32_t>(integer_of(*json, "spared"));
    note.began_us = integer_of(*json, "began_us");
    return note;
}

Error parse_stored_error(const std::string& text) {
    return read_note(text).error.value_or(Error{ErrorCode::internal, "the run failed"});
}

std::optional<Asked> find_asked(const storage::RunRow& row) {
    return row.status == storage::RunStatus::interrupted ? read_note(row.error).asked
                                                         : std::nullopt;
}

bool has_failed(const storage::RunRow& row) {
    return row.status != storage::RunStatus::success && !find_asked(row);
}

}  // namespace heddle::scheduler
