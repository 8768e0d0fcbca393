#include "engine/tools/mcp/server.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <tuple>

#include <fmt/format.h>

#include "engine/base/machine.hpp"
#include "engine/observe/log.hpp"
#include "engine/tools/mcp/protocol.hpp"
#include "engine/tools/schema.hpp"

namespace heddle::tools::mcp {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using base::Status;
using base::Task;
using observe::LogLevel;

constexpr std::size_t kWaitingMax = 4096;
constexpr auto kListAgeMax = std::chrono::minutes{5};
constexpr auto kListAnewMax = std::chrono::seconds{5};  // there is a list to go on with

base::Instant now() {
    return base::system_clock().now();
}

Error in_front(const std::string& name, Error error) {
    return {error.code, fmt::format("{}: {}", name, error.message), std::move(error.field)};
}

class McpTool final : public Tool {
public:
    McpTool(McpServer& server, ToolSpec spec) : server_{server}, spec_{std::move(spec)} {}

    [[nodiscard]] const ToolSpec& spec() const noexcept override { return spec_; }
    Task<Result<ToolAnswer>> call(ToolCall call, base::CancelSource& cancel) override {
        if (auto checked = validate_args(spec_.parameters, call.args, Unlisted::allowed);
            !checked) {
            co_return std::move(checked).error();
        }
        co_return co_await server_.call(spec_, std::move(call), cancel);
    }

private:
    McpServer& server_;  // NOLINT: the source outlives its tools
    const ToolSpec spec_;
};

Result<ToolAnswer> to_answer(const std::string& tool, Answer answer) {
    if (auto* refusal = std::get_if<Refusal>(&answer.value)) {
        if (refusal->is_final()) {
            return ToolAnswer{std::move(refusal->message), true};
        }
        return Error{ErrorCode::tool_error, fmt::format("{} failed: {}", tool, refusal->message)};
    }
    auto read = read_call_result(std::get<base::Json>(answer.value));
    return read ? std::move(read) : Result<ToolAnswer>{in_front(tool, std::move(read).error())};
}

}  // namespace

/// Gives the turn back, however the coroutine ends that has it.
struct McpServer::TurnEnder {
    McpServer& server;  // NOLINT: on a frame of one of its members
    ListingPtr made{};
    std::optional<Error> failure{};
    ~TurnEnder() { server.end_turn(std::move(made), failure); }
};

/// Gives a place in the queue up, also when the coroutine is destroyed while it waits.
struct McpServer::Leaver {
    McpServer& server;        // NOLINT: on a frame of one of its members
    const WaiterPtr& waiter;  // NOLINT: as above
    ~Leaver() { server.leave(waiter); }
};

McpServer::McpServer(net::HttpClient& http, observe::Metrics& metrics, McpSettings settings)
    : settings_{std::move(settings)}, client_{http, settings_}, metrics_{metrics} {}

Task<Result<std::shared_ptr<const ToolSet>>> McpServer::load(base::Instant deadline,
                                                             base::CancelSource& cancel) {
    const auto listing = co_await current(deadline, cancel);
    if (listing) {
        co_return (*listing)->tools;
    }
    if (cancel.is_cancelled()) {
        co_return cancel.reason();
    }
    co_return in_front("MCP server " + settings_.host, listing.error());
}

Task<Result<ToolAnswer>> McpServer::call(const ToolSpec& spec,
                                         ToolCall call,
                                         base::CancelSource& cancel) {
    const auto deadline = std::min(call.deadline, now() + settings_.source.timeout);
    const auto params = call_params(spec.name, std::move(call.args),
                                    spec.recorded ? call.idempotency_key : std::string{});
    const Bounds bounds{deadline, settings_.source.answer_bytes_max, spec.is_called_once()};
    metrics_.tool_calls_total.fetch_add(1, std::memory_order_relaxed);
    for (bool renewed = false;; renewed = true) {
        const auto listing = co_await current(deadline, cancel);
        if (cancel.is_cancelled()) {
            co_return cancel.reason();
        }
        if (!listing) {
            co_return in_front(spec.name, listing.error());
        }
        auto answer =
            co_await client_.request((*listing)->link, "tools/call", params, bounds, cancel);
        if (answer) {
            if (answer->list_changed) {
                note_change();
            }
            co_return to_answer(spec.name, *std::move(answer));
        }
        if (cancel.is_cancelled()) {
            co_return cancel.reason();
        }
        auto error = std::move(answer).error();
        // Only a session that is not known is sure not to have seen the call.
        if (error.code != ErrorCode::not_found || renewed) {
            const bool lost = error.code == ErrorCode::not_found;
            error.code = lost ? ErrorCode::tool_error : error.code;
            co_return in_front(spec.name, std::move(error));
        }
        forget((*listing)->number);
    }
}

// ---- one session for all

Task<Result<McpServer::ListingPtr>> McpServer::current(base::Instant deadline,
                                                       base::CancelSource& cancel) {
    auto [turn, kept] = take_turn(nullptr);
    if (turn == Turn::kept) {
        co_return kept;
    }
    WaiterPtr waiter;
    while (turn == Turn::wait) {
        if (waiter == nullptr) {
            waiter = std::make_shared<Waiter>(co_await asio::this_coro::executor);
        } else if (auto waited = co_await wait_for_turn(waiter, deadline, cancel); !waited) {
            co_return std::move(waited).error();
        }
        std::tie(turn, kept) = take_turn(waiter);
    }
    if (turn == Turn::mine) {
        co_return co_await use_turn(std::move(kept), deadline, cancel);
    }
    if (turn == Turn::refused) {
        co_return Error{ErrorCode::overloaded, "too many wait for a session"};
    }
    co_return kept;
}

// Without a waiter nobody is queued: whoever is told to wait asks again with one.
std::pair<McpServer::Turn, McpServer::ListingPtr> McpServer::take_turn(const WaiterPtr& waiter) {
    const std::lock_guard lock{mutex_};
    if (!turn_taken_) {
        if (current_ != nullptr && !changed_ && now() - current_->listed_at < kListAgeMax) {
            return {Turn::kept, current_};
        }
        turn_taken_ = true;
        changed_ = false;
        return {Turn::mine, current_};
    }
    if (current_ != nullptr) {
        return {Turn::kept, current_};
    }
    if (waiting_.size() >= kWaitingMax) {
        return {Turn::refused, nullptr};
    }
    if (waiter != nullptr) {
        waiter->done = false;
        waiting_.push_back(waiter);
    }
    return {Turn::wait, nullptr};
}

void McpServer::end_turn(ListingPtr made, const std::optional<Error>& failure) {
    std::deque<WaiterPtr> woken;
    {
        const std::lock_guard lock{mutex_};
        turn_taken_ = false;
        if (made != nullptr && made->number > forgotten_) {
            current_ = std::move(made);
        } else if (current_ != nullptr) {
            changed_ = true;  // the next one asks anew
        }
        woken.swap(waiting_);
        for (const auto& waiter : woken) {
            waiter->done = true;
            waiter->failure = failure;
        }
    }
    for (const auto& waiter : woken) {
        base::machine::post(waiter->executor.context(), [waiter] { waiter->changed.notify_all(); });
    }
}

void McpServer::leave(const WaiterPtr& waiter) {
    const std::lock_guard lock{mutex_};
    std::erase(waiting_, waiter);
}

std::pair<bool, std::optional<Error>> McpServer::look(const WaiterPtr& waiter) {
    const std::lock_guard lock{mutex_};
    return {waiter->done, waiter->failure};
}

void McpServer::forget(std::uint64_t number) {
    const std::lock_guard lock{mutex_};
    forgotten_ = std::max(forgotten_, number);
    if (current_ != nullptr && current_->number <= forgotten_) {
        current_ = nullptr;
    }
}

void McpServer::note_change() {
    const std::lock_guard lock{mutex_};
    changed_ = true;
}

Task<Status> McpServer::wait_for_turn(const WaiterPtr& waiter,
                                      base::Instant deadline,
                                      base::CancelSource& cancel) {
    const Leaver leaver{*this, waiter};
    const auto registration = cancel.on_cancel([&waiter] { waiter->changed.notify_all(); });
    for (;;) {
        if (cancel.is_cancelled()) {
            co_return cancel.reason();
        }
        auto [done, failure] = look(waiter);
        if (done) {
            co_return failure ? Status{*std::move(failure)} : base::ok();
        }
        if (now() >= deadline) {
            co_return Error{ErrorCode::timeout, "no session was open before the deadline"};
        }
        co_await waiter->changed.wait(deadline);
    }
}

Task<Result<McpServer::ListingPtr>> McpServer::use_turn(ListingPtr kept,
                                                        base::Instant deadline,
                                                        base::CancelSource& cancel) {
    TurnEnder ender{*this};
    const auto patience = now() + settings_.source.timeout;
    auto made = co_await make_listing(std::move(kept), std::min(deadline, patience), cancel);
    if (made) {
        ender.made = *made;
        co_return made;
    }
    // What is this run's own says nothing of the server: the next in the queue tries.
    const bool own =
        cancel.is_cancelled() || (made.error().code == ErrorCode::timeout && deadline < patience);
    if (!own) {
        ender.failure = made.error();
        log_failure("no session", made.error());
    }
    co_return made;
}

Task<Result<McpServer::ListingPtr>> McpServer::make_listing(ListingPtr kept,
                                                            base::Instant deadline,
                                                            base::CancelSource& cancel) {
    if (kept != nullptr) {
        const auto patience = std::min(deadline, now() + kListAnewMax);
        auto listed = co_await list(kept->link, kept->number, patience, cancel);
        if (listed || cancel.is_cancelled()) {
            co_return listed;
        }
        if (listed.error().code != ErrorCode::not_found) {
            // What was offered before can still be tried, and says itself what is wrong.
            log_failure("the list of tools stays as it was", listed.error());
            auto same = *kept;
            same.listed_at = now();
            co_return std::make_shared<const Listing>(std::move(same));
        }
        forget(kept->number);
    }
    auto link = co_await client_.open(deadline, cancel);
    if (!link) {
        co_return std::move(link).error();
    }
    auto made = co_await list(*std::move(link), ++last_session_, deadline, cancel);
    if (made) {
        observe::log(LogLevel::info, "mcp", "{}: a session with {} tools is open", settings_.host,
                     (*made)->tools->size());
    }
    co_return made;
}

Task<Result<McpServer::ListingPtr>> McpServer::list(Link link,
                                                    std::uint64_t number,
                                                    base::Instant deadline,
                                                    base::CancelSource& cancel) {
    const auto asked_at = now();
    auto offer = co_await client_.list_tools(link, deadline, cancel);
    if (!offer) {
        co_return std::move(offer).error();
    }
    auto tools = choose(*std::move(offer));
    if (!tools) {
        co_return std::move(tools).error();
    }
    co_return std::make_shared<const Listing>(Listing{
        std::move(link), number, asked_at, std::make_shared<const ToolSet>(*std::move(tools))});
}

// A server's words may be anybody's: they are logged for debugging only, and its tools' names
// never.
void McpServer::log_failure(const char* what, const Error& error) const {
    observe::log(LogLevel::warn, "mcp", "{}: {}: {}", settings_.host, what,
                 base::error_traits(error.code).wire_name);
    observe::log(LogLevel::debug, "mcp", "{}: {}", settings_.host, error.message);
}

Result<ToolSet> McpServer::choose(Offer offer) {
    const auto& source = settings_.source;
    ToolSet tools;
    std::set<std::string> names;
    for (auto& spec : offer.tools) {
        const bool wanted = source.only.empty() || std::find(source.only.begin(), source.only.end(),
                                                             spec.name) != source.only.end();
        if (!wanted) {
            continue;
        }
        if (!names.insert(spec.name).second) {
            ++offer.left_out;
            continue;
        }
        if (names.size() > kToolsMax) {
            return Error{ErrorCode::tool_error,
                         fmt::format("the server offers more than {} tools; choose some with "
                                     "\"only\"",
                                     kToolsMax)};
        }
        apply_on_unknown(source, spec);
        tools.push_back(std::make_shared<McpTool>(*this, std::move(spec)));
    }
    if (offer.left_out > 0) {
        observe::log(LogLevel::warn, "mcp",
                     "{}: {} tools are left out, their names or schemas cannot be used",
                     settings_.host, offer.left_out);
    }
    const auto missing = [&](const std::string& name, const char* setting) {
        return Error{
            ErrorCode::tool_error,
            fmt::format("the server offers no tool \"{}\", which \"{}\" names", name, setting)};
    };
    for (const auto& name : source.only) {
        if (!names.contains(name)) {
            return missing(name, "only");
        }
    }
    for (const auto& [name, policy] : source.on_unknown_of) {
        if (!names.contains(name)) {
            return missing(name, "on_unknown");
        }
    }
    return tools;
}

}  // namespace heddle::tools::mcp
