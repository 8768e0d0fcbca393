#pragma once

#include "ngx_module/call.hpp"
#include "shared/wire/messages.hpp"

/// Where a request ENTERS: from nginx's content phase to the frames of one engine.
namespace heddle::ngx {

/// The content handler of a location with heddle_pass.
ngx_int_t handle_request(ngx_http_request_t* r) noexcept;

/// The frame for the call as it stands (id, hop), with the first part of the body; sets the call's
/// body cursor behind that part. false: a spooled body could not be read back.
[[nodiscard]] bool make_request(Call& call, wire::Request& request);

/// Sends what is left of the body as far as the queue towards the engine takes it, and goes on by
/// itself later. May end the request.
void pump_body(Call& call);

}  // namespace heddle::ngx
