#pragma once

#include "engine/graph/row_events.hpp"
#include "engine/scheduler/thread_session.hpp"

namespace heddle::scheduler {

/// What one execution sees of its session: the runner's RunHost. Lives as long as the execution, on
/// the session's shard.
class SessionHost final : public graph::RunHost {
public:
    SessionHost(ThreadSession& session, RunHandle run) : session_{session}, run_{std::move(run)} {}

    [[nodiscard]] bool wants(graph::StreamMode mode) const noexcept override;
    void emit(graph::StreamEvent event) override;
    base::Task<base::Status> checkpoint(storage::JournalRow row,
                                        std::vector<graph::StreamEvent> events) override;
    void count_tokens(std::int64_t input_tokens, std::int64_t output_tokens) override;
    base::Task<base::Result<std::vector<storage::ToolCallRow>>> load_tool_calls(
        storage::Seq seq) override;
    base::Task<base::Status> record_tool_calls(std::vector<storage::ToolCallRow> calls) override;
    void record_answer(storage::ToolCallRow call) override;
    [[nodiscard]] base::CancelSource& cancel() noexcept override;

    /// The run was stopped between two supersteps, because its thread is handed over.
    [[nodiscard]] bool has_stopped() const noexcept { return stopped_; }
    /// durability exit: gives the rows kept back to the pipeline, in order.
    void hand_over_held_rows();
    [[nodiscard]] std::int64_t input_tokens() const noexcept { return input_tokens_; }
    [[nodiscard]] std::int64_t output_tokens() const noexcept { return output_tokens_; }

private:
    /// Logs a step's events, to be read once its row is on disk.
    void publish(storage::Seq seq, std::vector<graph::StreamEvent> events);
    /// What happened while the superstep ran, as its row is to have it.
    std::vector<graph::RowEvent> take_live();
    void omit(graph::RowEvent event);
    /// Writes what is pending, and again until the answer is younger than a lease: whoever was
    /// stopped meanwhile may have been robbed since, and others may have acted on its record.
    base::Task<base::Status> prove_ownership();

    ThreadSession& session_;
    RunHandle run_;
    std::vector<graph::RowEvent> live_;  ///< of this superstep, for stream_resumable
    std::size_t live_bytes_ = 0;
    std::vector<graph::RowEvent> omitted_;  ///< of this superstep: the last of each mode
    bool stopped_ = false;
    std::uint32_t number_ = 0;  ///< of the latest event that is no step's
    std::vector<storage::JournalRow> held_;
    std::int64_t input_tokens_ = 0;
    std::int64_t output_tokens_ = 0;
};

}  // namespace heddle::scheduler
