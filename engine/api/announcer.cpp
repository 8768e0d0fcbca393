#include "engine/api/announcer.hpp"

#include <algorithm>

#include "engine/api/sse.hpp"
#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using graph::StreamMode;
using scheduler::EventId;

std::string_view event_name(const scheduler::LoggedEvent& event) noexcept {
    if (!event.mode) {
        return "metadata";
    }
    if (event.lost) {
        return "lost";
    }
    return event.mode == StreamMode::messages_tuple ? "messages"
                                                    : scheduler::to_string(*event.mode);
}

}  // namespace

void append_logged(std::string& out, const scheduler::LoggedEvent& event) {
    append_event(out, event_name(event), event.data, event.id.to_string());
}

Announcer::Announcer(const base::RunId& run, const std::optional<EventId>& after)
    : run_{run}, known_{after && !after->is_of_end() ? std::max(1U, after->attempt) : 1U} {}

void Announcer::append(std::string& out, const scheduler::LoggedEvent& event) {
    if (!event.id.is_of_end() && event.id.attempt > known_) {
        known_ = event.id.attempt;
        if (event.mode) {
            append_event(out, "metadata",
                         scheduler::run_metadata(run_, static_cast<std::int32_t>(known_)),
                         EventId{event.id.rows, known_, 0}.to_string());
        }
    }
    append_logged(out, event);
}

}  // namespace heddle::api
