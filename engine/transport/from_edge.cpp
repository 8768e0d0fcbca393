#include "engine/transport/from_edge.hpp"

#include <algorithm>
#include <utility>

namespace heddle::transport {
namespace {

constexpr std::uint64_t kDeadlineMsMax = 24ULL * 3600 * 1000;
// An edge gives an engine up after 2.5 s, of which a ping that was heard and not answered took one.
constexpr base::Duration kSilenceUsual = std::chrono::milliseconds{1400};
// What had piled up is here in less.
constexpr base::Duration kLateFor = std::chrono::seconds{3};

}  // namespace

api::Request to_api(wire::Request from, base::Instant now, bool late) {
    api::Request request;
    request.method = std::move(from.method);
    request.path = std::move(from.path);
    request.query = std::move(from.query);
    request.headers = std::move(from.headers);
    request.thread_id = std::move(from.thread_id);
    request.run_id = std::move(from.run_id);
    request.hop = from.hop;
    request.late = late;
    request.accepted = from.accepted;
    if (from.deadline_ms > 0) {
        request.deadline =
            now + std::chrono::milliseconds{std::min(from.deadline_ms, kDeadlineMsMax)};
    }
    request.body = std::move(from.body);
    return request;
}

void Hearing::on_frame(base::Instant now) {
    if (silence(now) > kSilenceUsual) {
        late_until_ = now + kLateFor;
    }
    heard_at_ = now;
}

}  // namespace heddle::transport
