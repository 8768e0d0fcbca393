#pragma once

#include "ngx_module/answer.hpp"
#include "ngx_module/call.hpp"
#include "shared/wire/messages.hpp"

/// Where a response LEAVES: from an engine's frames to nginx's filters, under credit. Each of these
/// may end the request; then the call is gone on return. In an nginx event, whoever calls them runs
/// ngx_http_run_posted_requests() after.
namespace heddle::ngx {

void respond_head(Call& call, wire::Head&& head);
void respond_data(Call& call, wire::Data&& data);
void respond_end(Call& call, const wire::End& end);
void respond_timeout(Call& call);

/// Ends the request, whatever is left of it. Where the call is with an engine, release() before.
void finish(Call& call, ngx_int_t rc);
/// The client has left. Whether the call stays nevertheless, until the engine that takes its run
/// over can be told: a run that was accepted and that no engine has at the moment. It has the
/// deadlines that it had, read_timeout for each engine and for the wait for one; nginx holds the
/// request meanwhile as it does for one whose file is being read. Only from a request's cleanup.
[[nodiscard]] bool keep_for_cancel(Call& call) noexcept;

/// Ends the call with an error: respond_error() before its head, break_response() after.
void fail(Call& call, const ErrorAnswer& answer);
/// The same, because no engine takes it: 503 with Retry-After.
void fail_without_engine(Call& call);
/// Ends the call with an answer of the module's own, before its head.
void respond_error(Call& call, const ErrorAnswer& answer);
/// Ends the call after its head, so that the client can tell: an `error` event, or a connection
/// that ends before its time. @param code, message  plain ASCII
void break_response(Call& call, std::string_view code, std::string_view message);

/// Ends an event stream because this worker leaves, if it is between two events and its client has
/// them. The connection is cut, which is what makes the SDKs come back with their last event id.
/// @param at_once  whatever its client has read of it; the rest is lost to this connection
void leave_stream(Call& call, bool at_once);

/// Lets the engine send as many bytes more as have left for the client. Small grants are saved up.
void grant_credit(Call& call);

/// nginx's write event: the client has room again.
void on_writable(ngx_http_request_t* r) noexcept;

}  // namespace heddle::ngx
