#include "engine/storage/checks.hpp"

#include <algorithm>

#include "engine/base/json.hpp"

namespace heddle::storage {
namespace {

// Whether JSON text holds the escape of U+0000, which jsonb cannot store. A backslash takes the
// next character with it, so that the text "\\u0000" (an escaped backslash) passes.
bool has_escaped_nul(std::string_view text) noexcept {
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
        if (text[i] != '\\') {
            continue;
        }
        if (text.substr(i + 1, 5) == "u0000") {
            return true;
        }
        ++i;
    }
    return false;
}

Status check_object(std::string_view text, std::string field) {
    // Most threads' metadata name their agent and nothing else: the same text again and again.
    constexpr std::size_t kKnownBytesMax = 1024;
    thread_local std::string known = "{}";
    if (text == known) {
        return base::ok();
    }
    const auto parsed = base::parse_json(text, field);
    if (!parsed || !parsed->is_object()) {
        return base::Error{base::ErrorCode::invalid_argument, field + " must be a JSON object",
                           std::move(field)};
    }
    if (has_escaped_nul(text)) {
        return base::Error{base::ErrorCode::invalid_argument,
                           field + " must not hold the character U+0000", std::move(field)};
    }
    if (text.size() <= kKnownBytesMax) {
        known = text;
    }
    return base::ok();
}

bool is_lasting(base::Duration duration) {
    return duration >= std::chrono::microseconds{1} && duration <= kTtlMax;
}

Status check_ttl(const std::optional<ThreadTtl>& ttl) {
    if (ttl && !is_lasting(ttl->after)) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "a time to live is at least a microsecond and at most ten years", "ttl"};
    }
    return base::ok();
}

// What goes to the database as a statement of its own.
Status check_alone(const ThreadWrite& write) {
    const bool is_plain = !write.metadata && !write.interrupts && !write.release &&
                          write.journal.empty() && write.new_runs.empty() &&
                          write.run_updates.empty() && write.tool_calls.empty() &&
                          write.tool_calls_done == kNoSeq;
    const int kinds = (write.rollback_to ? 1 : 0) + (write.prune ? 1 : 0) + (write.ttl ? 1 : 0);
    const bool deletes = write.delete_thread || !write.deleted_runs.empty();
    if (write.rollback_to && (!is_plain || kinds > 1 || *write.rollback_to < kNoSeq)) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "a rollback names a row, or none, and stands alone", "rollback_to"};
    }
    if (write.prune && (!is_plain || write.status || kinds > 1 || deletes ||
                        write.prune->first < 0 || write.prune->delete_below > write.prune->first)) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "a prune names the row that stays and stands alone", "prune"};
    }
    if (write.ttl && (!is_plain || write.status || kinds > 1 || deletes)) {
        return base::Error{base::ErrorCode::invalid_argument, "a time to live stands alone", "ttl"};
    }
    if (write.ttl_kept < base::Duration::zero() || write.ttl_kept > kTtlMax) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "a thread is kept for at most ten years", "ttl_kept"};
    }
    return check_ttl(write.ttl);
}

}  // namespace

Status check_write(const ThreadWrite& write) {
    if (write.metadata) {
        if (auto checked = check_object(*write.metadata, "metadata"); !checked) {
            return checked;
        }
    }
    if (auto checked = check_alone(write); !checked) {
        return checked;
    }
    for (const auto& call : write.tool_calls) {
        if (call.seq <= write.tool_calls_done || call.number < 0) {
            return base::Error{base::ErrorCode::invalid_argument,
                               "a tool call belongs to a superstep that is not over", "tool_calls"};
        }
    }
    for (const auto& run : write.new_runs) {
        if (run.request_hash.size() > kRequestHashBytesMax) {
            return base::Error{base::ErrorCode::invalid_argument,
                               "request_hash is longer than 64 bytes", "request_hash"};
        }
    }
    return base::ok();
}

Status check_create(const ThreadClaim& claim, const ThreadWrite& first) {
    if (first.delete_thread || first.rollback_to || first.prune || first.ttl) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "a thread does not begin with what stands alone", "first"};
    }
    if (auto checked = check_claim(claim); !checked) {
        return checked;
    }
    return check_write(first);
}

Status check_key(const KeyClaim& claim) {
    if (claim.key.empty() || claim.key.size() > kKeyBytesMax) {
        return base::Error{base::ErrorCode::invalid_argument, "a key has 1 to 64 bytes", "key"};
    }
    if (!is_lasting(claim.kept)) {
        return base::Error{base::ErrorCode::invalid_argument,
                           "a key is kept for a microsecond to ten years", "kept"};
    }
    return base::ok();
}

Status check_claim(const ThreadClaim& claim) {
    if (auto checked = check_ttl(claim.ttl); !checked) {
        return checked;
    }
    return check_object(claim.metadata, "metadata");
}

Status check_page(std::int32_t limit, std::int32_t offset) {
    if (limit < 1 || limit > kPageMax) {
        return base::Error{base::ErrorCode::invalid_argument, "limit must be from 1 to 1000",
                           "limit"};
    }
    if (offset < 0) {
        return base::Error{base::ErrorCode::invalid_argument, "offset must not be negative",
                           "offset"};
    }
    return base::ok();
}

Status check_filter(const ThreadFilter& filter) {
    if (auto checked = check_page(filter.limit, filter.offset); !checked) {
        return checked;
    }
    if (filter.ids.size() > static_cast<std::size_t>(kPageMax)) {
        return base::Error{base::ErrorCode::invalid_argument, "ids names more than 1000 threads",
                           "ids"};
    }
    if (filter.metadata_contains.empty()) {
        return base::ok();
    }
    return check_object(filter.metadata_contains, "metadata");
}

std::size_t rows_of(const ThreadWrite& write) noexcept {
    return std::max<std::size_t>(1, write.journal.size() + write.new_runs.size() +
                                        write.run_updates.size() + write.deleted_runs.size() +
                                        write.tool_calls.size());
}

std::size_t bytes_of(const ThreadWrite& write) noexcept {
    constexpr std::size_t kRowBytes = 96;  // the columns of fixed size
    std::size_t bytes = kRowBytes * (1 + rows_of(write));
    if (write.metadata) {
        bytes += write.metadata->size();
    }
    if (write.interrupts) {
        bytes += write.interrupts->size();
    }
    if (write.prune) {
        bytes += write.prune->snapshot.size();
    }
    for (const auto& row : write.journal) {
        bytes += row.head.size() + row.data.size();
    }
    for (const auto& run : write.new_runs) {
        bytes += run.metadata.size() + run.kwargs.size() + run.error.size();
    }
    for (const auto& update : write.run_updates) {
        bytes += update.error.size();
    }
    for (const auto& call : write.tool_calls) {
        bytes += call.answer.size();
    }
    return bytes;
}

}  // namespace heddle::storage
