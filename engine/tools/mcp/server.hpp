#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/result.hpp"
#include "engine/base/signal.hpp"
#include "engine/base/task.hpp"
#include "engine/net/http_client.hpp"
#include "engine/observe/metrics.hpp"
#include "engine/tools/mcp/client.hpp"
#include "engine/tools/mcp/settings.hpp"
#include "engine/tools/tool.hpp"

namespace heddle::tools::mcp {

/// One session with an MCP server, and what it offers; see mcp_tools.hpp. Any shard: what changes
/// is under a mutex, held for a few instructions. One coroutine at a time has the turn to open a
/// session or to ask for the list anew. While it opens, others wait with their own deadlines; while
/// it asks anew, they use what is there.
class McpServer final : public ToolSource {
public:
    /// `http` and `metrics` outlive this.
    McpServer(net::HttpClient& http, observe::Metrics& metrics, McpSettings settings);

    [[nodiscard]] const ToolSet* known() const noexcept override { return nullptr; }
    base::Task<base::Result<std::shared_ptr<const ToolSet>>> load(
        base::Instant deadline, base::CancelSource& cancel) override;

    /// As Tool::call() of the tool with that spec; the args have been checked.
    base::Task<base::Result<ToolAnswer>> call(const ToolSpec& spec,
                                              ToolCall call,
                                              base::CancelSource& cancel);

private:
    /// A session and what was offered in it. Constant.
    struct Listing {
        Link link;
        std::uint64_t number = 0;  ///< of the session, from 1
        base::Instant listed_at{};
        std::shared_ptr<const ToolSet> tools;
    };
    using ListingPtr = std::shared_ptr<const Listing>;

    /// Somebody who waits until a session is open.
    struct Waiter {
        explicit Waiter(base::Executor shard) : executor{std::move(shard)} {}
        const base::Executor executor;
        base::Signal changed;                ///< the waiter's shard only
        bool done = false;                   ///< under the mutex
        std::optional<base::Error> failure;  ///< under the mutex: why there is no session
    };
    using WaiterPtr = std::shared_ptr<Waiter>;  // NOLINT: held by the queue and a posted wake-up

    enum class Turn : std::uint8_t { kept, mine, wait, refused };
    struct TurnEnder;
    struct Leaver;

    base::Task<base::Result<ListingPtr>> current(base::Instant deadline,
                                                 base::CancelSource& cancel);
    base::Task<base::Status> wait_for_turn(const WaiterPtr& waiter,
                                           base::Instant deadline,
                                           base::CancelSource& cancel);
    base::Task<base::Result<ListingPtr>> use_turn(ListingPtr kept,
                                                  base::Instant deadline,
                                                  base::CancelSource& cancel);
    base::Task<base::Result<ListingPtr>> make_listing(ListingPtr kept,
                                                      base::Instant deadline,
                                                      base::CancelSource& cancel);
    base::Task<base::Result<ListingPtr>> list(Link link,
                                              std::uint64_t number,
                                              base::Instant deadline,
                                              base::CancelSource& cancel);

    /// @return whose turn it is, and what is kept, if anything
    [[nodiscard]] std::pair<Turn, ListingPtr> take_turn(const WaiterPtr& waiter);
    void end_turn(ListingPtr made, const std::optional<base::Error>& failure);
    void leave(const WaiterPtr& waiter);
    [[nodiscard]] std::pair<bool, std::optional<base::Error>> look(const WaiterPtr& waiter);
    /// The server does not know that session any more.
    void forget(std::uint64_t number);
    void note_change();
    [[nodiscard]] base::Result<ToolSet> choose(Offer offer);
    void log_failure(const char* what, const base::Error& error) const;

    const McpSettings settings_;
    McpClient client_;
    observe::Metrics& metrics_;  // NOLINT: outlives this

    std::mutex mutex_;
    ListingPtr current_;
    std::deque<WaiterPtr> waiting_;
    std::uint64_t last_session_ = 0;  ///< only who has the turn
    std::uint64_t forgotten_ = 0;     ///< sessions up to this one are gone
    bool turn_taken_ = false;
    bool changed_ = false;  ///< the server said that its list is another
};

}  // namespace heddle::tools::mcp
