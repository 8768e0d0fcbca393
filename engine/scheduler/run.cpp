#include "engine/scheduler/run.hpp"

#include <algorithm>
#include <utility>

#include "engine/base/json.hpp"
#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::scheduler {

bool has_failed(const RunOutcome& outcome) noexcept {
    return outcome.status != storage::RunStatus::success &&
           (outcome.status != storage::RunStatus::interrupted || !outcome.error.message.empty());
}

Run::Run(RunRequest request, std::int64_t now_us, std::size_t log_bytes_max, LogBudget* logs)
    : request_{std::move(request)}, log_{log_bytes_max, logs} {
    row_.id = request_.run_id;
    row_.thread_id = request_.thread_id;
    row_.assistant_id = request_.assistant.id;
    row_.metadata = base::dump_json(request_.metadata);
    row_.kwargs = std::move(request_.kwargs);
    row_.multitask_strategy = to_string(request_.strategy);
    row_.request_hash = request_.request_hash;
    row_.created_at_us = now_us;
    row_.updated_at_us = now_us;
}

std::uint32_t event_attempt_of(const storage::RunRow& row) noexcept {
    // The highest stands for the event of the run's end.
    constexpr std::int32_t kMost = EventId::kAttemptMax - 1;
    return static_cast<std::uint32_t>(std::clamp(row.attempt, 1, kMost));
}

std::size_t Run::cost() const noexcept {
    const auto values = outcome_ ? outcome_->values.capacity() : 0;
    return sizeof(Run) + log_.bytes() + values + row_bytes();
}

base::Task<base::Status> Run::wait_accepted(base::Instant deadline) {
    while (!accepted_ && !failure_) {
        if (base::system_clock().now() >= deadline) {
            co_return base::Error{base::ErrorCode::timeout, "the run was not stored in time"};
        }
        co_await changed_.wait(deadline);
    }
    if (failure_ && !accepted_) {
        co_return *failure_;
    }
    co_return base::ok();
}

base::Task<base::Result<RunOutcome>> Run::wait_finished(base::Instant deadline) {
    while (!is_finished()) {
        if (base::system_clock().now() >= deadline) {
            co_return base::Error{base::ErrorCode::timeout, "the run has not ended in time"};
        }
        co_await changed_.wait(deadline);
    }
    if (outcome_) {
        co_return *outcome_;
    }
    co_return *failure_;
}

// NOLINTNEXTLINE: see RunHandle
std::shared_ptr<Run> Run::make_ended(RunRequest request, storage::RunRow row, RunOutcome outcome) {
    auto run = std::make_shared<Run>(std::move(request), row.created_at_us, 0);
    run->row_ = std::move(row);
    run->read_back_ = true;
    run->finish(std::move(outcome));
    return run;
}

void Run::set_aside() {
    let_go_of_json();
    is_set_aside_ = true;
}

base::Status Run::take_up() {
    return std::exchange(is_set_aside_, false) ? read_json(row_, request_) : base::ok();
}

base::Result<RunRequest> Run::request_again() const {
    auto again = request_;
    again.kwargs = row_.kwargs;
    auto status = read_json(row_, again);
    if (!status) {
        return std::move(status).error();
    }
    return again;
}

void Run::let_go_of_json() {
    request_.input.reset();
    request_.prepared_input = nullptr;
    request_.resume.reset();
    request_.configurable = base::Json::object();
    request_.metadata = base::Json::object();
}

void Run::accept() {
    accepted_ = true;
    changed_.notify_all();
}

void Run::finish(RunOutcome outcome) {
    if (is_finished()) {
        return;
    }
    accepted_ = true;
    row_.status = outcome.status;
    row_.updated_at_us = base::unix_microseconds();
    outcome_ = std::move(outcome);
    let_go_of_json();
    log_.close();
    changed_.notify_all();
}

void Run::fail(const base::Error& error) {
    if (is_finished()) {
        return;
    }
    failure_ = error;
    let_go_of_json();  // whoever tries again reads the row
    log_.close();
    changed_.notify_all();
}

}  // namespace heddle::scheduler
