#pragma once

#include <string>
#include <vector>

#include "engine/base/cancel.hpp"
#include "engine/base/clock.hpp"
#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/task.hpp"
#include "engine/base/uuid.hpp"
#include "engine/graph/state.hpp"

namespace heddle::graph {

/// What a node sees of the run it works for. Lives on the run's shard as long as the call.
class NodeContext {
public:
    virtual ~NodeContext() = default;
    /// The state before this superstep: parallel nodes do not see each other's writes.
    [[nodiscard]] virtual const State& state() const noexcept = 0;
    [[nodiscard]] virtual const base::ThreadId& thread_id() const noexcept = 0;
    [[nodiscard]] virtual const base::RunId& run_id() const noexcept = 0;
    /// config.configurable of the run merged over the assistant's (JSON object).
    [[nodiscard]] virtual const base::Json& configurable() const noexcept = 0;
    /// Stable for this task across repetitions after a crash: base of idempotency keys.
    [[nodiscard]] virtual std::string task_id() const = 0;
    [[nodiscard]] virtual base::Instant deadline() const noexcept = 0;
    [[nodiscard]] virtual base::CancelSource& cancel() noexcept = 0;
    /// Whether somebody streams tokens: a model node asks for streaming only then.
    [[nodiscard]] virtual bool wants_messages() const noexcept = 0;
    /// Emits one message chunk (stream_mode messages-tuple); the runner adds the metadata.
    virtual void emit_message(base::Json chunk) = 0;
    /// Emits one custom payload (stream_mode custom).
    virtual void emit_custom(base::Json payload) = 0;
    /// Adds to the run's token account.
    virtual void count_tokens(std::int64_t input_tokens, std::int64_t output_tokens) = 0;
};

struct NodeOutput {
    std::vector<ChannelWrite> writes;
};

/// One node of a graph; stateless, shared by all runs of all shards.
class Node {
public:
    virtual ~Node() = default;
    /// Runs once. Errors end the run (after the node's retry policy) unless the runner retries:
    /// graph_error, model_error, tool_error, timeout, cancelled, unavailable.
    virtual base::Task<base::Result<NodeOutput>> run(NodeContext& context) const = 0;
};

/// A conditional edge's expression: which targets follow. Synchronous, bounded (Lua instruction
/// limit), stateless.
class Condition {
public:
    virtual ~Condition() = default;
    [[nodiscard]] virtual base::Result<bool> holds(const State& state) const = 0;
};

}  // namespace heddle::graph
