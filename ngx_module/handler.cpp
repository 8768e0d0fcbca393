#include "ngx_module/handler.hpp"

#include <algorithm>

#include "ngx_module/answer.hpp"
#include "ngx_module/barrier.hpp"
#include "ngx_module/pool_peers.hpp"
#include "ngx_module/request_headers.hpp"
#include "ngx_module/response.hpp"
#include "ngx_module/route_key.hpp"
#include "ngx_module/uuid.hpp"
#include "ngx_module/worker.hpp"

namespace heddle::ngx {

namespace {

constexpr ngx_msec_t kPumpEvery = 5;
constexpr std::uint64_t kFirstCredit = 256U << 10U;

/// The path without the location's prefix; empty if the prefix ends inside a segment.
std::string_view strip_prefix(ngx_http_request_t* r) {
    const auto* core = static_cast<const ngx_http_core_loc_conf_t*>(
        ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    const auto uri = view(r->uri);
    auto prefix = view(core->name);
    // A regular expression or @name is no prefix. An `if` block bears the name of its location.
    if (core->regex != nullptr || prefix.empty() || prefix.front() != '/' ||
        uri.substr(0, prefix.size()) != prefix) {
        return uri;
    }
    if (prefix.back() == '/') {
        prefix.remove_suffix(1);
    }
    const auto path = uri.substr(prefix.size());
    if (path.empty()) {
        return "/";
    }
    return path.front() == '/' ? path : std::string_view{};
}

off_t size_of_body(const ngx_http_request_t* r) {
    off_t total = 0;
    if (r->request_body != nullptr) {
        for (const ngx_chain_t* at = r->request_body->bufs; at != nullptr; at = at->next) {
            total += ngx_buf_size(at->buf);
        }
    }
    return total;
}

void rewind_body(Call& call) {
    const ngx_http_request_t* r = call.request;
    call.body_at = r->request_body == nullptr ? nullptr : r->request_body->bufs;
    call.body_offset = 0;
    call.body_left = size_of_body(r);
}

/// Appends up to `most` bytes from the cursor to `out`, which stays where it is.
bool read_body(const Call& call, std::size_t most, std::string& out) {
    const ngx_chain_t* at = call.body_at;
    off_t offset = call.body_offset;
    out.reserve(std::min(most, static_cast<std::size_t>(call.body_left)));
    for (; at != nullptr && out.size() < most; at = at->next, offset = 0) {
        ngx_buf_t* buffer = at->buf;
        const auto length =
            std::min(static_cast<std::size_t>(ngx_buf_size(buffer) - offset), most - out.size());
        if (ngx_buf_in_memory(buffer)) {
            out.append(reinterpret_cast<const char*>(buffer->pos) + offset, length);
            continue;
        }
        const std::size_t start = out.size();
        out.resize(start + length);
        const ssize_t got =
            ngx_read_file(buffer->file, reinterpret_cast<u_char*>(out.data()) + start, length,
                          buffer->file_pos + offset);
        if (got != static_cast<ssize_t>(length)) {
            return false;
        }
    }
    return true;
}

void advance_body(Call& call, std::size_t bytes) {
    call.body_left -= static_cast<off_t>(bytes);
    auto left = static_cast<off_t>(bytes);
    while (call.body_at != nullptr && left > 0) {
        const off_t step = std::min(ngx_buf_size(call.body_at->buf) - call.body_offset, left);
        left -= step;
        call.body_offset += step;
        if (call.body_offset == ngx_buf_size(call.body_at->buf)) {
            call.body_at = call.body_at->next;
            call.body_offset = 0;
        }
    }
}

/// Copies a routing key into the request's pool. What is no name still routes, but is not sent.
bool set_key(Call& call, std::string_view key) {
    call.thread_id = copy_to(call.request->pool, key);
    call.key_hash = hash_of(key);
    return call.thread_id.data != nullptr;
}

/// Finds or mints the thread's id and the run's.
bool find_keys(Call& call) {
    ngx_http_request_t* r = call.request;
    const PathKey path = read_path(view(call.path));
    const bool is_post = r->method == NGX_HTTP_POST;
    if (is_post && path.starts == Starts::run) {
        call.run_id = copy_to(r->pool, make_uuid_v7().view());
        if (call.run_id.data == nullptr) {
            return false;
        }
    }
    // A repeat of these leaves what the first left; so does a run with its id.
    call.retry_safe = path.repeats_safely || call.run_id.len > 0 ||
                      (r->method & (NGX_HTTP_POST | NGX_HTTP_PATCH)) == 0;

    if (!path.thread_id.empty()) {
        return set_key(call, path.thread_id);
    }
    if (call.conf->thread_id != nullptr) {
        ngx_str_t value{};
        if (ngx_http_complex_value(r, call.conf->thread_id, &value) != NGX_OK) {
            return false;
        }
        if (value.len > 0) {
            return set_key(call, view(value));
        }
    }
    if (call.body_left > 0 && is_post) {
        std::string start;
        if (!read_body(call, wire::kChunkBytesMax, start)) {
            return false;
        }
        const auto named = find_thread_id(start);
        if (!named.empty()) {
            return set_key(call, named);
        }
    }
    if (!is_post || path.starts == Starts::nothing) {
        return true;
    }
    call.retry_safe = true;  // the engine knows a repeat by the minted id and the hop
    return set_key(call, make_uuid_v7().view());
}

void on_timeout(ngx_event_t* event) noexcept {
    Call& call = *reinterpret_cast<CallTimer*>(event)->call;
    ngx_connection_t* c = call.request->connection;
    ngx_http_set_log_request(c->log, call.request);
    guarded(c->log, "timeout", [&] { respond_timeout(call); });
    ngx_http_run_posted_requests(c);
}

void on_pump(ngx_event_t* event) noexcept {
    Call& call = *reinterpret_cast<CallTimer*>(event)->call;
    ngx_connection_t* c = call.request->connection;
    ngx_http_set_log_request(c->log, call.request);
    guarded(c->log, "sending a body", [&] {
        grant_credit(call);
        pump_body(call);
    });
    ngx_http_run_posted_requests(c);
}

void init_timer(Call& call, CallTimer& timer, ngx_event_handler_pt handler) {
    timer.call = &call;
    timer.event.handler = handler;
    timer.event.data = call.request->connection;
    timer.event.log = call.request->connection->log;
}

void on_body(ngx_http_request_t* r) noexcept {
    Call* call = call_of(r);
    const bool ok = guarded(r->connection->log, "reading a request", [&] {
        rewind_body(*call);
        if (!find_keys(*call)) {
            respond_error(*call, {NGX_HTTP_INTERNAL_SERVER_ERROR, "internal",
                                  "the request could not be read"});
            return;
        }
        r->read_event_handler = ngx_http_test_reading;
        r->write_event_handler = on_writable;
        call->peers->submit(*call);
    });
    if (!ok) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}

void on_request_gone(void* data) noexcept {
    Call& call = *static_cast<Call*>(data);
    // Set by nginx where a worker's time to leave is over: then nobody has left but the worker.
    const bool client_left = call.request->connection->close == 0;
    if (client_left && keep_for_cancel(call)) {
        return;
    }
    if (call.peers != nullptr) {
        call.peers->release(call, true, client_left);
    }
    call.done = true;
}

ngx_int_t start_call(ngx_http_request_t* r) {
    Worker* worker = main_conf(r)->worker;
    const LocConf* conf = loc_conf(r);
    if (worker == nullptr) {
        return answer_error(r, {NGX_HTTP_SERVICE_UNAVAILABLE, kUnavailable,
                                "this nginx process has no connection to the engines", 1});
    }
    const auto path = strip_prefix(r);
    if (path.empty()) {
        return answer_error(r, {NGX_HTTP_NOT_FOUND, "not_found", "no such route"});
    }
    if (path.size() + r->args.len > wire::kTargetBytesMax) {
        return answer_error(r, {NGX_HTTP_REQUEST_URI_TOO_LARGE, "payload_too_large",
                                "path and query have more than 16384 bytes"});
    }
    if (!are_headers_within_bounds(r)) {
        return answer_error(r, {kStatusHeadersTooLarge, "payload_too_large",
                                "more than 64 headers or 65536 bytes of headers"});
    }
    auto* call = make_in_pool<Call>(r->pool, r);
    ngx_http_cleanup_t* cleanup = ngx_http_cleanup_add(r, 0);
    if (call == nullptr || cleanup == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    cleanup->handler = on_request_gone;
    cleanup->data = call;
    ngx_http_set_ctx(r, call, ngx_http_heddle_module);
    call->path = as_ngx(path);  // lives in r->uri or is a constant
    call->peers = &worker->peers(*conf->pool);
    init_timer(*call, call->timeout, on_timeout);
    init_timer(*call, call->pump, on_pump);

    const ngx_int_t rc = ngx_http_read_client_request_body(r, on_body);
    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}

}  // namespace

ngx_int_t handle_request(ngx_http_request_t* r) noexcept {
    return guarded(r->connection->log, "request", ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR},
                   [r] { return start_call(r); });
}

namespace {

/// An engine that takes over gives what comes after the client's newest event.
void go_on_after(wire::Headers& headers, const std::string& event_id) {
    constexpr std::string_view kName = "last-event-id";
    headers.erase(std::remove_if(headers.begin(), headers.end(),
                                 [=](const auto& header) { return header.first == kName; }),
                  headers.end());
    headers.emplace_back(kName, event_id);
}

}  // namespace

bool make_request(Call& call, wire::Request& request) {
    ngx_http_request_t* r = call.request;
    request.id = call.id;
    request.method = view(r->method_name);
    request.path = view(call.path);
    request.query = view(r->args);
    copy_headers(r, request.headers);
    if (!call.last_event_id.empty()) {
        go_on_after(request.headers, call.last_event_id);
    }
    if (is_name(view(call.thread_id))) {
        request.thread_id = view(call.thread_id);
    }
    request.run_id = view(call.run_id);
    request.credit = kFirstCredit;
    request.hop = call.hop;
    request.accepted = call.accepted;
    rewind_body(call);
    call.part_ends = {};
    if (call.body_left > 0) {
        if (!read_body(call, wire::kChunkBytesMax, request.body)) {
            return false;
        }
        advance_body(call, request.body.size());
    }
    request.body_complete = call.body_left == 0;
    call.credit_left = kFirstCredit;
    call.consumed = 0;
    return true;
}

void pump_body(Call& call) {
    while (call.body_left > 0 && call.id != 0 && !call.waiting) {
        std::uint64_t& oldest_end = call.part_ends.at(call.part_turn % kBodyPartsQueuedMax);
        if (oldest_end > call.channel->written_total()) {
            ngx_add_timer(&call.pump.event, kPumpEvery);
            return;
        }
        wire::Body body;
        body.id = call.id;
        if (!read_body(call, wire::kChunkBytesMax, body.bytes)) {
            fail(call, {NGX_HTTP_INTERNAL_SERVER_ERROR, "internal",
                        "the request body could not be read back"});
            return;
        }
        const std::size_t bytes = body.bytes.size();
        body.last = static_cast<off_t>(bytes) == call.body_left;
        if (!call.channel->try_send(wire::encode(wire::EdgeMessage{std::move(body)}))) {
            ngx_add_timer(&call.pump.event, kPumpEvery);
            return;
        }
        oldest_end = call.channel->queued_total();
        call.part_turn++;
        advance_body(call, bytes);
    }
}

}  // namespace heddle::ngx
