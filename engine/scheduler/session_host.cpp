#include "engine/scheduler/session_host.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/graph/row_events.hpp"

namespace heddle::scheduler {
namespace {

// Rows that may wait for a slow store before the run itself has to wait.
constexpr std::size_t kPendingRowsMax = 64;

base::Error is_handed_over() {
    return {base::ErrorCode::unavailable, "the thread is handed over"};
}

}  // namespace

bool SessionHost::wants(graph::StreamMode mode) const noexcept {
    const auto& modes = run_->request().stream_modes;
    return std::find(modes.begin(), modes.end(), mode) != modes.end();
}

void SessionHost::emit(graph::StreamEvent event) {
    // A session that was lost emits nothing: another engine speaks for the run now.
    if (session_.lost_ || run_->log().is_closed() || number_ == EventId::kNumberMax) {
        return;
    }
    const auto attempt = run_->event_attempt();
    const auto next_seq = session_.position_->seq + 1;
    ++number_;
    const auto live_bytes_max = session_.context_.limits.live_bytes_max;
    if (run_->request().stream_resumable && live_bytes_ < live_bytes_max) {
        live_bytes_ += sizeof(graph::RowEvent) + event.data.size();
        live_.push_back({next_seq, attempt, number_, event});
    } else {
        omit({next_seq, attempt, number_, {event.mode, {}}, true});
    }
    const EventId id{static_cast<std::uint64_t>(next_seq), attempt, number_};
    run_->log().append({id, event.mode, std::move(event.data)});
}

void SessionHost::omit(graph::RowEvent event) {
    const auto same = [&](const auto& each) { return each.event.mode == event.event.mode; };
    std::erase_if(omitted_, same);
    omitted_.push_back(std::move(event));
}

std::vector<graph::RowEvent> SessionHost::take_live() {
    auto live = std::exchange(live_, {});
    std::move(omitted_.begin(), omitted_.end(), std::back_inserter(live));
    omitted_.clear();
    live_bytes_ = 0;
    return live;
}

void SessionHost::publish(storage::Seq seq, std::vector<graph::StreamEvent> events) {
    auto& log = run_->log();
    if (run_->request().stream_modes.empty() || log.is_closed()) {
        return;
    }
    // A row without an event has a gate, too: the tokens after it must not be seen before it is on
    // disk, or those of another attempt come with ids that their reader has passed.
    // What is written only at the end cannot be waited for by who wants to see it happen.
    const bool gated = run_->request().durability != Durability::exit;
    if (gated) {
        log.add_gate(static_cast<std::uint64_t>(seq + 1));
    }
    EventId id{static_cast<std::uint64_t>(seq + 1), 0, 0};
    for (auto& event : events) {
        ++id.number;
        log.append({id, event.mode, std::move(event.data)});
    }
    if (gated) {
        session_.write_soon([run = run_](const base::Status& written) {
            if (written) {
                run->log().open_gate();
            }
        });
    }
}

base::Task<base::Status> SessionHost::checkpoint(storage::JournalRow row,
                                                 std::vector<graph::StreamEvent> events) {
    if (session_.lost_) {
        co_return *session_.lost_;
    }
    if (session_.releasing_) {  // too late: that it is begun again elsewhere is on its way to disk
        co_return is_handed_over();
    }
    session_.context_.metrics.supersteps_total.fetch_add(1, std::memory_order_relaxed);
    const auto seq = row.seq;
    graph::append_row_events(row.data, take_live(), events);
    const bool hands_over = session_.handing_over_ && !session_.position_->next.empty();
    const bool is_held = run_->request().durability == Durability::exit;
    if (is_held) {
        held_.push_back(std::move(row));
    } else {
        session_.append_row(std::move(row));
    }
    publish(seq, std::move(events));
    if (is_held && !hands_over) {
        co_return base::ok();
    }
    if (hands_over) {
        hand_over_held_rows();
        stopped_ = true;
        co_return is_handed_over();
    }
    const bool must_wait = run_->request().durability == Durability::sync ||
                           session_.pending_.journal.size() >= kPendingRowsMax;
    if (must_wait) {
        session_.between_supersteps_ = true;
        auto written = co_await session_.write_now();
        session_.between_supersteps_ = false;
        if (!written || !session_.handing_over_ || session_.position_->next.empty()) {
            co_return written;
        }
        stopped_ = true;
        co_return is_handed_over();
    }
    session_.write_soon({});
    co_return base::ok();
}

void SessionHost::count_tokens(std::int64_t input_tokens, std::int64_t output_tokens) {
    input_tokens_ += input_tokens;
    output_tokens_ += output_tokens;
    session_.context_.metrics.tokens_in_total.fetch_add(input_tokens, std::memory_order_relaxed);
    session_.context_.metrics.tokens_out_total.fetch_add(output_tokens, std::memory_order_relaxed);
}

base::Task<base::Result<std::vector<storage::ToolCallRow>>> SessionHost::load_tool_calls(
    storage::Seq seq) {
    using Rows = std::vector<storage::ToolCallRow>;
    if (session_.tool_calls_seq_ != seq) {
        co_return Rows{};
    }
    // Answers may still be on their way.
    const auto written = co_await session_.write_now();
    if (!written) {
        co_return written.error();
    }
    auto rows = co_await base::from_callback<base::Result<Rows>>([this, seq](auto done) {
        session_.context_.store.load_tool_calls(session_.thread_.id, seq, std::move(done));
    });
    if (rows) {
        auto& metrics = session_.context_.metrics;
        for (const auto& row : *rows) {
            auto& total = row.answer.empty() ? metrics.tool_calls_unknown_total
                                             : metrics.tool_calls_reused_total;
            total.fetch_add(1, std::memory_order_relaxed);
        }
    }
    co_return rows;
}

base::Task<base::Status> SessionHost::record_tool_calls(std::vector<storage::ToolCallRow> calls) {
    if (session_.lost_) {
        co_return *session_.lost_;
    }
    if (session_.releasing_) {
        co_return is_handed_over();
    }
    // A call that is on record without its checkpoint would be found by nobody.
    hand_over_held_rows();
    for (auto& call : calls) {
        session_.tool_calls_seq_ = call.seq;
        session_.pending_.tool_calls.push_back(std::move(call));
    }
    co_return co_await prove_ownership();
}

base::Task<base::Status> SessionHost::prove_ownership() {
    constexpr int kTriesMax = 4;
    for (int i = 0; i < kTriesMax; ++i) {
        const auto asked_at = base::system_clock().now();
        auto written = co_await session_.write_now();
        if (session_.lost_) {  // perhaps handed over with this very write
            co_return *session_.lost_;
        }
        if (!written || base::system_clock().now() - asked_at < session_.context_.limits.lease) {
            co_return written;
        }
    }
    const base::Error slow{base::ErrorCode::unavailable, "the store is slower than the lease"};
    session_.lose(slow, true);
    co_return slow;
}

void SessionHost::record_answer(storage::ToolCallRow call) {
    if (session_.lost_ || session_.tool_calls_seq_ != call.seq) {
        return;
    }
    session_.pending_.tool_calls.push_back(std::move(call));
    session_.write_soon({});
}

base::CancelSource& SessionHost::cancel() noexcept {
    return run_->cancel();
}

void SessionHost::hand_over_held_rows() {
    for (auto& row : held_) {
        session_.append_row(std::move(row));
    }
    held_.clear();
}

}  // namespace heddle::scheduler
