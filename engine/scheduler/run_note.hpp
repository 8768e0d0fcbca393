#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/base/error.hpp"
#include "engine/base/json.hpp"
#include "engine/base/uuid.hpp"
#include "engine/storage/store.hpp"

namespace heddle::scheduler {

/// What a run has asked that ended so.
struct Asked {
    base::Json interrupts;
    base::CheckpointId checkpoint;  ///< where it stood
};

/// What was asked of a run that has not stopped yet.
enum class CancelAction : std::uint8_t { interrupt, rollback };

/// What is to be known of a run besides its status; the text of RunRow::error, which the store does
/// not look into. Empty where there is nothing to say:
///
///     {"error": "timeout", "message": "..."}                            it failed
///     {"asked": {"TASK_ID": [{"id", "value"}]}, "checkpoint_id": "..."}  it ended by asking
///     {"usage": [INPUT, OUTPUT]}                                        tokens; also beside those
///     {"cancel": "rollback", "spared": 1, "began_us": 1700000000000000}  it has not ended
struct RunNote {
    // ---- of one that has ended
    std::optional<base::Error> error;
    std::optional<Asked> asked;
    std::int64_t input_tokens = 0;
    std::int64_t output_tokens = 0;
    // ---- of one that has not
    /// It is to stop, whoever has it.
    std::optional<CancelAction> cancel;
    /// Starts that count as no attempt: its engine left in the middle of a superstep.
    std::int32_t spared = 0;
    /// Its first start, in microseconds since the Unix epoch: its time goes on from there. 0: none.
    std::int64_t began_us = 0;
};

std::string encode_note(const RunNote& note);
/// What cannot be read is left out.
RunNote read_note(const std::string& text);

/// How a run failed; `internal` if its row does not say.
base::Error parse_stored_error(const std::string& text);
/// @return nothing unless the run ended by asking
std::optional<Asked> find_asked(const storage::RunRow& row);
/// Whether a run that ended so has failed: one that asks something has not, although it ends
/// `interrupted` as one that was cancelled.
bool has_failed(const storage::RunRow& row);

}  // namespace heddle::scheduler
