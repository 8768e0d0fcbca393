#include "ngx_module/response.hpp"

#include <algorithm>
#include <string>

#include "ngx_module/barrier.hpp"
#include "ngx_module/pool_peers.hpp"
#include "ngx_module/request_headers.hpp"

namespace heddle::ngx {

namespace {

constexpr std::int64_t kGrantLeast = 128 << 10;  // half of the first credit
constexpr ngx_msec_t kGrantRetry = 20;
constexpr std::string_view kRetrySoon = "retry: 100\n";
constexpr std::string_view kIdLine = "\nid: ";
constexpr std::size_t kTailBytes = 64;

ngx_buf_tag_t tag() {
    return static_cast<ngx_buf_tag_t>(&ngx_http_heddle_module);
}

/// An engine that does not keep to the protocol: the request is over, the engine is told.
void fail_protocol(Call& call, const char* what) {
    ngx_log_error(NGX_LOG_ERR, call.request->connection->log, 0,
                  "heddle: engine \"%V\" broke the protocol: %s", &call.channel->endpoint_text(),
                  what);
    fail(call, {NGX_HTTP_BAD_GATEWAY, kUnavailable, "the engine's answer was not understood"});
}

bool is_event_stream(std::string_view content_type) {
    constexpr std::string_view kType = "text/event-stream";
    return content_type.substr(0, kType.size()) == kType;
}

bool set_content_type(ngx_http_request_t* r, std::string_view value, Call& call) {
    const ngx_str_t copy = copy_to(r->pool, value);
    if (copy.data == nullptr) {
        return false;
    }
    r->headers_out.content_type = copy;
    r->headers_out.content_type_len = std::min(value.find(';'), value.size());
    r->headers_out.content_type_lowcase = nullptr;
    call.is_event_stream = is_event_stream(value);
    return true;
}

bool set_header(ngx_http_request_t* r, std::string_view name, std::string_view value, Call& call) {
    if (name == "content-type") {
        return set_content_type(r, value, call);
    }
    // nginx writes these itself.
    if (is_hop_by_hop(name) || name == "date" || name == "server") {
        return true;
    }
    const ngx_str_t copy = copy_to(r->pool, value);
    if (copy.data == nullptr) {
        return false;
    }
    if (name == "content-length") {
        // Only an answer without a body may say how long that would be.
        if (r->method == NGX_HTTP_HEAD) {
            r->headers_out.content_length_n = ngx_atoof(copy.data, copy.len);
        }
        return true;
    }
    const ngx_str_t key = copy_to(r->pool, name);
    if (key.data == nullptr || !add_header(r, view(key), view(copy))) {
        return false;
    }
    if (name == "content-encoding") {
        // So that gzip leaves alone what is packed already.
        const ngx_list_part_t* last = r->headers_out.headers.last;
        r->headers_out.content_encoding =
            static_cast<ngx_table_elt_t*>(last->elts) + (last->nelts - 1);
    }
    return true;
}

bool set_headers(Call& call, const wire::Head& head) {
    ngx_http_request_t* r = call.request;
    set_status(r, head.status);
    r->headers_out.content_length_n = -1;
    r->headers_out.content_type.len = 0;
    r->headers_out.content_type_len = 0;
    for (const auto& [name, value] : head.headers) {
        if (!set_header(r, name, value, call)) {
            return false;
        }
    }
    if (head.last && (!head.body.empty() || r->method != NGX_HTTP_HEAD)) {
        r->headers_out.content_length_n = static_cast<off_t>(head.body.size());
    }
    return true;
}

/// Where the stream stands for an engine that may have to go on with it.
void note_progress(Call& call, std::string_view bytes) {
    call.waiting_since = 0;  // only what reaches the client counts: engines may refuse in a circle
    if (!call.is_event_stream) {
        call.body_begun = call.body_begun || bytes.find_first_not_of(" \n") != bytes.npos;
        return;
    }
    // An event may be cut anywhere, so its end is looked for across frames. `id` is its last line.
    call.tail.append(bytes.substr(bytes.size() - std::min(bytes.size(), kTailBytes)));
    if (call.tail.size() > kTailBytes) {
        call.tail.erase(0, call.tail.size() - kTailBytes);
    }
    const std::string_view tail = call.tail;
    const bool whole = tail.size() >= 2 && tail.substr(tail.size() - 2) == "\n\n";
    const bool comment = call.between_events && bytes.front() == ':' && bytes.back() == '\n';
    call.between_events = whole || comment;
    const auto id = tail.rfind(kIdLine);
    if (whole && id != tail.npos) {
        const auto from = id + kIdLine.size();
        const auto value = tail.substr(from, tail.size() - 2 - from);
        // It goes back as a header.
        if (std::all_of(value.begin(), value.end(), [](char c) { return c > ' ' && c < 0x7f; })) {
            call.last_event_id = value;
        }
    }
}

/// Frees the memory of buffers that have left and counts them as consumed.
void settle(Call& call, ngx_chain_t* out) {
    ngx_chain_update_chains(call.request->pool, &call.free, &call.busy, &out, tag());
    // update_chains puts fresh ones in front; behind them are those freed before.
    for (ngx_chain_t* at = call.free; at != nullptr && at->buf->start != nullptr; at = at->next) {
        call.consumed += at->buf->end - at->buf->start;
        ngx_free(at->buf->start);
        at->buf->start = nullptr;
        at->buf->pos = nullptr;
        at->buf->last = nullptr;
        at->buf->end = nullptr;
    }
}

/// Keeps nginx's write timer as its own non-buffered proxying does.
ngx_int_t watch_client(ngx_http_request_t* r) {
    ngx_connection_t* c = r->connection;
    const auto* core = static_cast<const ngx_http_core_loc_conf_t*>(
        ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (c->data == r && ngx_handle_write_event(c->write, core->send_lowat) != NGX_OK) {
        return NGX_ERROR;
    }
    if (c->write->active && !c->write->ready) {
        ngx_add_timer(c->write, core->send_timeout);
    } else if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }
    return NGX_OK;
}

/// Gives bytes to nginx's filters and flushes. The filters may keep the buffer; its memory is ours
/// and is freed when it has left, so that a long stream needs no more memory than its credit.
ngx_int_t push(Call& call, std::string_view bytes) {
    ngx_http_request_t* r = call.request;
    ngx_chain_t* link = ngx_chain_get_free_buf(r->pool, &call.free);
    auto* memory = static_cast<u_char*>(ngx_alloc(bytes.size(), r->connection->log));
    if (link == nullptr || memory == nullptr) {
        ngx_free(memory);
        return NGX_ERROR;
    }
    std::memcpy(memory, bytes.data(), bytes.size());
    ngx_buf_t* buffer = link->buf;
    std::memset(buffer, 0, sizeof(*buffer));
    buffer->start = memory;
    buffer->pos = memory;
    buffer->last = memory + bytes.size();
    buffer->end = buffer->last;
    buffer->temporary = 1;
    buffer->flush = 1;
    buffer->tag = tag();
    const ngx_int_t rc = ngx_http_output_filter(r, link);
    settle(call, link);
    return rc == NGX_ERROR ? NGX_ERROR : watch_client(r);
}

/// A response that is complete with its head: one buffer in the pool, one write.
ngx_int_t send_whole(ngx_http_request_t* r, std::string_view body) {
    if (body.empty()) {
        return ngx_http_send_special(r, NGX_HTTP_LAST);
    }
    ngx_buf_t* buffer = ngx_create_temp_buf(r->pool, body.size());
    if (buffer == nullptr) {
        return NGX_ERROR;
    }
    buffer->last = ngx_cpymem(buffer->last, body.data(), body.size());
    buffer->last_buf = r == r->main ? 1 : 0;
    buffer->last_in_chain = 1;
    ngx_chain_t out{buffer, nullptr};
    return ngx_http_output_filter(r, &out);
}

void rearm(Call& call) {
    ngx_add_timer(&call.timeout.event, call.conf->read_timeout);
}

void use_no_delay(ngx_connection_t* c, ngx_http_request_t* r) {
    const auto* core = static_cast<const ngx_http_core_loc_conf_t*>(
        ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (core->tcp_nodelay) {
        ngx_tcp_nodelay(c);
    }
}

}  // namespace

void finish(Call& call, ngx_int_t rc) {
    ngx_http_request_t* r = call.request;
    call.done = true;
    if (std::exchange(call.kept, false)) {
        r->main->blocked--;
    }
    ngx_http_finalize_request(r, rc);
}

bool keep_for_cancel(Call& call) noexcept {
    ngx_http_request_t* r = call.request;
    // Its pool is destroyed already if nobody counts on the request any more.
    if (call.done || call.id == 0 || !call.accepted || call.taken || r->main->count == 0) {
        return false;
    }
    call.kept = true;
    r->main->blocked++;
    return true;
}

void fail(Call& call, const ErrorAnswer& answer) {
    if (call.head_sent) {
        break_response(call, answer.code, answer.detail);
    } else {
        respond_error(call, answer);
    }
}

void fail_without_engine(Call& call) {
    if (!call.was_refused) {
        fail(call, {NGX_HTTP_SERVICE_UNAVAILABLE, kUnavailable, "no engine is connected", 1});
        return;
    }
    fail(call, {NGX_HTTP_SERVICE_UNAVAILABLE, call.was_overload ? kOverloaded : kUnavailable,
                "no engine takes this request at the moment", 1});
}

void respond_error(Call& call, const ErrorAnswer& answer) {
    call.peers->release(call, true);
    call.error = answer.code;
    finish(call, call.kept ? NGX_ERROR : answer_error(call.request, answer));
}

void break_response(Call& call, std::string_view code, std::string_view message) {
    ngx_http_request_t* r = call.request;
    call.peers->release(call, true);
    call.error = code;
    if (!call.is_event_stream || call.kept || r->connection->error) {
        finish(call, NGX_ERROR);
        return;
    }
    std::string event = call.between_events ? "" : "\n\n";
    event.append("event: error\ndata: {\"error\":\"").append(code);
    event.append("\",\"message\":\"").append(message).append("\"}\n\n");
    const ngx_int_t rc = push(call, event);
    finish(call, rc == NGX_ERROR ? rc : ngx_http_send_special(r, NGX_HTTP_LAST));
}

namespace {

/// What came with a head goes out as data that needs no credit, so none is given back for it.
void respond_first_data(Call& call, wire::Head&& head) {
    const auto uncounted = static_cast<std::uint64_t>(head.body.size());
    call.credit_left += uncounted;
    call.consumed -= static_cast<std::int64_t>(uncounted);
    wire::Data first;
    first.bytes = std::move(head.body);
    first.last = head.last;
    respond_data(call, std::move(first));
}

/// The head of an engine that goes on with a response that another one has begun.
void go_on(Call& call, wire::Head&& head) {
    const bool is_stream =
        std::any_of(head.headers.begin(), head.headers.end(), [](const auto& header) {
            return header.first == "content-type" && is_event_stream(header.second);
        });
    if (head.status != call.request->headers_out.status || is_stream != call.is_event_stream) {
        call.peers->release(call, !head.last);
        break_response(call, kUnavailable, "the run could not be joined again");
        return;
    }
    respond_first_data(call, std::move(head));
}

}  // namespace

void respond_head(Call& call, wire::Head&& head) {
    ngx_http_request_t* r = call.request;
    if (call.answering) {
        fail_protocol(call, "a second head");
        return;
    }
    call.answering = true;
    if (call.head_sent) {
        go_on(call, std::move(head));
        return;
    }
    if (!set_headers(call, head)) {
        call.peers->release(call, !head.last);
        finish(call, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }
    call.head_sent = true;
    if (call.is_event_stream) {
        call.peers->add_stream(call);
    }
    if (head.last) {
        call.peers->release(call, false);
    } else {
        use_no_delay(r->connection, r);
        rearm(call);
    }
    const ngx_int_t sent = ngx_http_send_header(r);
    if (sent == NGX_ERROR || sent > NGX_OK || r->header_only) {
        call.peers->release(call, true);
        finish(call, sent);
        return;
    }
    if (head.last) {
        finish(call, send_whole(r, head.body));
        return;
    }
    if (head.body.empty()) {
        // The client learns at once that there is a response, long before its first event.
        if (ngx_http_send_special(r, NGX_HTTP_FLUSH) == NGX_ERROR || watch_client(r) != NGX_OK) {
            call.peers->release(call, true);
            finish(call, NGX_ERROR);
        }
        return;
    }
    respond_first_data(call, std::move(head));
}

void respond_data(Call& call, wire::Data&& data) {
    if (!call.answering) {
        fail_protocol(call, "data before the head");
        return;
    }
    if (data.bytes.size() > call.credit_left) {
        fail_protocol(call, "more data than it had credit for");
        return;
    }
    rearm(call);
    if (!data.bytes.empty()) {
        call.credit_left -= data.bytes.size();
        note_progress(call, data.bytes);
        if (push(call, data.bytes) != NGX_OK) {
            call.peers->release(call, true);
            finish(call, NGX_ERROR);
            return;
        }
    }
    if (data.last) {
        respond_end(call, wire::End{});
        return;
    }
    grant_credit(call);
}

void respond_end(Call& call, const wire::End& end) {
    if (!call.answering) {
        fail_protocol(call, "an end before the head");
        return;
    }
    if (end.error == kUnavailable && call.peers->try_go_on(call)) {
        return;
    }
    call.peers->release(call, false);
    if (!end.error.empty()) {
        // Visible ASCII by the protocol; these two are all that JSON minds.
        const bool plain = end.error.find_first_of("\"\\") == std::string::npos;
        break_response(call, plain ? std::string_view{end.error} : kUnavailable,
                       "the engine could not finish the response");
        return;
    }
    finish(call, ngx_http_send_special(call.request, NGX_HTTP_LAST));
}

void respond_timeout(Call& call) {
    if (call.waiting || call.kept) {
        fail_without_engine(call);
        return;
    }
    if (!call.head_sent) {
        respond_error(call,
                      {NGX_HTTP_GATEWAY_TIME_OUT, "timeout", "the engine did not answer in time"});
        return;
    }
    if (call.busy != nullptr || call.credit_left == 0) {
        rearm(call);  // it is the client who is slow; send_timeout watches that
        return;
    }
    break_response(call, "timeout", "the engine was silent for too long");
}

void leave_stream(Call& call, bool at_once) {
    const ngx_http_request_t* r = call.request;
    if (call.done) {
        // All of it has come from the engine; nginx waits for the client to take it.
        if (at_once && (call.busy != nullptr || r->buffered || r->connection->buffered)) {
            finish(call, NGX_ERROR);
        }
        return;
    }
    const bool at_rest = call.between_events && call.busy == nullptr;
    if (call.kept || (!at_rest && !at_once)) {
        return;
    }
    call.peers->release(call, true, false);
    if (at_rest) {
        // Without an empty line behind it, which some SDKs would take for an event.
        (void)push(call, kRetrySoon);
    }
    finish(call, NGX_ERROR);
}

void grant_credit(Call& call) {
    if (call.id == 0 || call.consumed < kGrantLeast || !call.answering) {
        return;
    }
    const wire::Credit credit{call.id, static_cast<std::uint64_t>(call.consumed)};
    if (!call.channel->try_send(wire::encode(wire::EdgeMessage{credit}))) {
        ngx_add_timer(&call.pump.event, kGrantRetry);
        return;
    }
    call.credit_left += credit.bytes;
    call.consumed = 0;
}

void on_writable(ngx_http_request_t* r) noexcept {
    Call* call = call_of(r);
    ngx_connection_t* c = r->connection;
    if (call == nullptr || call->done) {
        return;
    }
    if (c->write->timedout) {
        c->timedout = 1;
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");
        ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }
    if (!call->head_sent || (call->busy == nullptr && !r->buffered && !c->buffered)) {
        return;
    }
    const ngx_int_t rc = ngx_http_output_filter(r, nullptr);
    settle(*call, nullptr);
    if (rc == NGX_ERROR || watch_client(r) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
    }
    guarded(c->log, "granting credit", [&] { grant_credit(*call); });
}

}  // namespace heddle::ngx
