// From a request to a RunHandle: ids, submission, finding runs that exist already.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/api/api.hpp"
#include "engine/api/run_body.hpp"
#include "engine/base/sha1.hpp"
#include "engine/observe/log.hpp"
#include "engine/scheduler/run_kwargs.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::RunId;
using base::ThreadId;

// Space of the version 5 ids below: any fixed value serves, it only must never change.
constexpr std::string_view kDerivedSpace = "6f1d5f8e-1c5b-4b0e-9d43-8a0c6f6d2b11";

base::Uuid derived_id(std::string_view name) {
    return base::make_uuid_v5(*base::Uuid::parse(kDerivedSpace), name);
}

// Empty: there is none.
base::Result<std::string> read_key(const Request& request) {
    constexpr std::size_t kBytesMax = 255;
    const std::string* found = nullptr;
    for (const auto& [name, value] : request.headers) {
        if (name != "idempotency-key") {
            continue;
        }
        const bool is_printable =
            std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c < 0x7f; });
        if (found != nullptr || value.empty() || value.size() > kBytesMax || !is_printable) {
            return Error{
                ErrorCode::invalid_argument,
                "Idempotency-Key must be one header of 1 to 255 printable ASCII characters",
                "Idempotency-Key"};
        }
        found = &value;
    }
    return found == nullptr ? std::string{} : *found;
}

std::string hash_of(std::string_view body) {
    constexpr std::string_view kHexDigits = "0123456789abcdef";
    const auto digest = base::sha1(body);
    std::string hex(2 * digest.size(), '0');
    for (std::size_t at = 0; at < digest.size(); ++at) {
        hex[2 * at] = kHexDigits[digest[at] >> 4U];
        hex[2 * at + 1] = kHexDigits[digest[at] & 0x0FU];
    }
    return hex;
}

}  // namespace

base::Result<ThreadId> Api::thread_of_run(const Request& request, bool stateless) const {
    if (!stateless) {
        return parse_id<ThreadId>(request.params[0], "thread_id");
    }
    // Not the edge's key: that may name a thread that exists, and this one is deleted with its run.
    // Derived from the run id, a repeat of the request finds the same thread and run again.
    const auto run = RunId::parse(request.run_id);
    return ThreadId{run ? derived_id("thread of run " + run->to_string()) : base::make_uuid_v7()};
}

base::Task<base::Result<RunBody>> Api::read_run(Call& call) {
    const auto& request = call.request;
    const bool stateless = request.params.empty();
    const auto hinted = RunId::parse(request.run_id);
    auto body = read_run_body(request.body, stateless,
                              hinted ? *hinted : RunId{base::make_uuid_v7()}, scheduler_.catalog());
    if (!body) {
        co_return std::move(body).error();
    }
    const auto here = *ThreadId::parse(stateless ? request.thread_id : request.params[0]);
    body->run.thread_id = here;
    auto scope = stateless ? std::string{"runs"} : "thread " + here.to_string();
    auto claimed = co_await claim_key(call, std::move(scope), body->run);
    if (!claimed) {
        co_return std::move(claimed).error();
    }
    const auto thread = body->run.thread_id;
    if (&scheduler_.pool().of(thread) != &scheduler_.pool().of(here)) {
        body->elsewhere = thread;
        co_return body;
    }
    co_return body;
}

base::Task<base::Status> Api::claim_key(Call& call, std::string scope, scheduler::RunRequest& run) {
    auto& request = call.request;
    const auto key = read_key(request);
    if (!key) {
        co_return key.error();
    }
    if (key->empty()) {
        co_return base::ok();
    }
    run.keyed = true;
    // Also if the key is new: another request with it may be faster from here on.
    run.maybe_repeated = true;
    if (request.key_claimed) {
        run.may_begin = request.key_is_new;
        co_return base::ok();
    }
    storage::KeyClaim claim;
    const auto digest = base::sha1(scope + '\n' + *key);
    claim.key.assign(digest.begin(), digest.end());
    claim.thread = run.thread_id;
    const auto hinted = RunId::parse(request.run_id);
    claim.run = hinted ? *hinted : RunId{base::make_uuid_v7()};
    claim.kept = scheduler_.limits().key_kept;
    const auto holder = co_await base::from_callback<base::Result<storage::KeyHolder>>(
        [&](auto done) { store().claim_key(std::move(claim), std::move(done)); });
    if (!holder) {
        co_return holder.error();
    }
    run.thread_id = holder->thread;
    request.thread_id = holder->thread.to_string();
    request.run_id = holder->run.to_string();
    request.key_claimed = true;
    request.key_is_new = holder->is_new;
    run.may_begin = holder->is_new;
    co_return base::ok();
}

base::Task<base::Result<scheduler::RunHandle>> Api::start_run(Call& call,
                                                              scheduler::RunRequest run) {
    const auto& request = call.request;
    const auto& metrics = scheduler_.metrics();
    if (request.hop == 0 &&
        metrics.runs_running.load() + metrics.runs_waiting.load() >= options_.runs_max) {
        co_return Error{ErrorCode::overloaded, "the engine runs as many as it may"};
    }
    const auto hinted = RunId::parse(request.run_id);
    if (hinted && *hinted != run.run_id) {  // an Idempotency-Key names it
        run.run_id = *hinted;
        run.prepared_input = nullptr;
    } else if (run.run_id.uuid.is_nil()) {
        run.run_id = RunId{base::make_uuid_v7()};
    }
    run.maybe_repeated = run.maybe_repeated || request.hop > 0 || request.late;
    if (request.accepted) {
        // It was stored once: what is gone since then is not to be made again.
        run.create_thread = false;
        run.must_exist = true;
    }
    run.request_hash = hash_of(request.body);
    run.kwargs = scheduler::encode_kwargs(run);

    const bool is_temporary = run.temporary_thread;
    auto& shard = scheduler_.of(run.thread_id);
    auto handle = co_await shard.submit(std::move(run), request.hop > 0);
    if (!handle) {
        auto error = std::move(handle).error();
        if (request.accepted && is_temporary && error.code == ErrorCode::not_found) {
            co_return Error{ErrorCode::conflict,
                            "the run has ended, and its temporary thread was deleted with its "
                            "result; runs on a thread of their own can be read back",
                            "thread_id"};
        }
        co_return error;
    }
    auto stored = co_await wait_stored(call, **handle);
    if (!stored) {
        co_return std::move(stored).error();
    }
    co_return handle;
}

base::Task<base::Status> Api::wait_stored(Call& call, scheduler::Run& run) {
    auto stored = co_await run.wait_accepted(wait_until(call.request, options_.store_wait_max));
    if (!stored) {
        auto error = std::move(stored).error();
        // Stored or not, a repeat elsewhere finds it by its id.
        if (error.code == ErrorCode::in_doubt) {
            error.code = ErrorCode::unavailable;
        }
        co_return error;
    }
    if (run.is_finished() && !run.failure()) {
        co_return base::ok();
    }
    call.sink.accepted(run.epoch());
    call.accepted = true;
    if (run.failure()) {
        // Stored, and lost since: it is to be looked for elsewhere, and not to be made anew there.
        co_return *run.failure();
    }
    co_return base::ok();
}

base::Task<base::Result<Api::Attached>> Api::attach(Call& call, ThreadId thread, RunId run) {
    auto& shard = scheduler_.of(thread);
    Attached attached;
    attached.run = shard.find_run(thread, run);
    if (attached.run != nullptr) {
        auto stored = co_await wait_stored(call, *attached.run);
        if (!stored) {
            co_return std::move(stored).error();
        }
        co_return attached;
    }
    auto row = co_await base::from_callback<base::Result<storage::RunRow>>(
        [&](auto done) { store().load_run(thread, run, std::move(done)); });
    if (!row) {
        if (row.error().code != ErrorCode::not_found) {
            co_return std::move(row).error();
        }
        co_return Error{ErrorCode::not_found, "Run not found", "run_id"};
    }
    if (storage::is_final(row->status)) {
        attached.row = std::move(*row);
        co_return attached;
    }
    // It is executing somewhere, or its engine died: submitting the stored request again joins it,
    // takes it over, or names the engine that has it.
    auto again = scheduler::decode_run(*row, scheduler_.catalog());
    if (!again) {
        co_return std::move(again).error();
    }
    auto handle = co_await shard.submit(std::move(*again), call.request.hop > 0);
    if (!handle) {
        co_return std::move(handle).error();
    }
    attached.run = std::move(*handle);
    auto stored = co_await wait_stored(call, *attached.run);
    if (!stored) {
        co_return std::move(stored).error();
    }
    co_return attached;
}

base::Task<> Api::cancel_quietly(ThreadId thread, RunId run) {
    const auto status = co_await scheduler_.of(thread).cancel_run(thread, run, false);
    if (!status) {
        observe::log(observe::LogLevel::info, "api", "run {} not cancelled: {}", run.to_string(),
                     status.error().message);
    }
}

base::CancelSource::Registration Api::cancel_when_gone(Call& call,
                                                       const scheduler::RunHandle& run) {
    const auto thread = run->row().thread_id;
    const auto id = run->row().id;
    auto& gone = call.sink.gone();
    return gone.on_cancel([this, &gone, thread, id] {
        if (gone.reason().code == ErrorCode::cancelled) {
            scheduler_.pool().of(thread).spawn(cancel_quietly(thread, id));
        }
    });
}

}  // namespace heddle::api
