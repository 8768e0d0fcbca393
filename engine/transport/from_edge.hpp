#pragma once

#include "engine/api/http.hpp"
#include "engine/base/clock.hpp"
#include "shared/wire/messages.hpp"

namespace heddle::transport {

/// @param now   what the request's deadline counts from
/// @param late  see Hearing::is_late()
api::Request to_api(wire::Request from, base::Instant now, bool late);

/// When an edge was heard. One that says nothing for a while, though it pings every second, was cut
/// off, or this process stood still; it has then given its requests to other engines, and what it
/// said before still arrives here. Belongs to whoever reads the edge's frames.
class Hearing {
public:
    explicit Hearing(base::Instant now) : heard_at_{now} {}

    /// A frame of the edge is here.
    void on_frame(base::Instant now);
    [[nodiscard]] base::Duration silence(base::Instant now) const { return now - heard_at_; }
    /// @return whether a request that is here now may have gone elsewhere since it was sent
    [[nodiscard]] bool is_late(base::Instant now) const { return now < late_until_; }

private:
    base::Instant heard_at_;
    base::Instant late_until_{};
};

}  // namespace heddle::transport
