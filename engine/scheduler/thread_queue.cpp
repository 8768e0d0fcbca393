#include "engine/scheduler/thread_queue.hpp"

#include <algorithm>

#include "engine/base/assert.hpp"

namespace heddle::scheduler {

Actions ThreadQueue::submit(base::RunId run, MultitaskStrategy strategy) {
    if (!executing_) {
        executing_ = run;
        return {StartRun{run}};
    }
    switch (strategy) {
        case MultitaskStrategy::reject:
            return {RefuseRun{run, base::ErrorCode::thread_busy}};
        case MultitaskStrategy::interrupt:
        case MultitaskStrategy::rollback: {
            const bool roll_back = strategy == MultitaskStrategy::rollback;
            Actions actions;
            while (!waiting_.empty()) {
                const auto more = cancel(waiting_.front(), roll_back);
                actions.insert(actions.end(), more.begin(), more.end());
            }
            const auto last = cancel(*executing_, roll_back);
            actions.insert(actions.end(), last.begin(), last.end());
            waiting_.push_back(run);
            return actions;
        }
        case MultitaskStrategy::enqueue:
            break;
    }
    if (waiting_.size() >= waiting_max_) {
        return {RefuseRun{run, base::ErrorCode::overloaded}};
    }
    waiting_.push_back(run);
    return {};
}

Actions ThreadQueue::finished(base::RunId run) {
    HEDDLE_ASSERT(executing_ == run);
    executing_.reset();
    if (waiting_.empty()) {
        return {};
    }
    executing_ = waiting_.front();
    waiting_.pop_front();
    return {StartRun{*executing_}};
}

Actions ThreadQueue::cancel(base::RunId run, bool roll_back) {
    if (executing_ == run) {
        return {roll_back ? Action{RollBackRun{run}} : Action{CancelRun{run}}};
    }
    const auto at = std::find(waiting_.begin(), waiting_.end(), run);
    if (at == waiting_.end()) {
        return {};
    }
    waiting_.erase(at);
    return {roll_back ? Action{RemoveRun{run}} : Action{DropRun{run}}};
}

}  // namespace heddle::scheduler
