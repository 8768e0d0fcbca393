#pragma once

#include <cstdint>
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

/// What is on record of a call to the outside that an attempt of a task made (ADR 0011).
struct RecordedCall {
    std::int32_t number = 0;  ///< of the call within its task, from 0
    base::RunId run_id;       ///< the run that made it, or made it again, last
    std::string answer;       ///< empty: it may have been carried out or not
};

/// A question of a task to a human, as LangGraph's Interrupt. The run ends `interrupted`; a later
/// one brings the answer (`command.resume`).
struct Interrupt {
    std::string id;  ///< 32 hexadecimal digits, the same each time the same question is asked
    base::Json value;
};

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

    /// Calls that this task has made before, in this attempt's place: after a crash, a cancel, an
    /// interrupt or a failed attempt. By number.
    virtual base::Task<base::Result<std::vector<RecordedCall>>> load_calls() = 0;
    /// To be awaited before calls are made that must not be made twice: returns when it is on disk
    /// that this run makes them, or makes them again. On an error they must not be made.
    virtual base::Task<base::Status> record_calls(std::vector<std::int32_t> numbers) = 0;
    /// The answer of a recorded call, not empty: goes to disk soon.
    virtual void record_answer(std::int32_t number, std::string answer) = 0;

    /// What was answered to an interrupt of this task. @return nullptr: nothing yet. Stays valid
    /// for the attempt
    [[nodiscard]] virtual const base::Json* find_resume(const std::string& interrupt) const = 0;
};

struct NodeOutput {
    std::vector<ChannelWrite> writes;
    /// Not empty: the task waits for answers to these. Its writes are dropped, and it is run again.
    std::vector<Interrupt> interrupts{};
};

/// One node of a graph; stateless, shared by all runs of all shards.
class Node {
public:
    virtual ~Node() = default;
    /// Runs once. Errors end the run (after the node's retry policy) unless the runner retries:
    /// graph_error, model_error, tool_error, timeout, cancelled, unavailable.
    virtual base::Task<base::Result<NodeOutput>> run(NodeContext& context) const = 0;
    /// It asks nobody outside this process, so that nothing but time is lost if its run turns out
    /// to be another engine's.
    [[nodiscard]] virtual bool is_local() const noexcept { return false; }
};

/// A conditional edge's expression: which targets follow. Synchronous, bounded (Lua instruction
/// limit), stateless.
class Condition {
public:
    virtual ~Condition() = default;
    [[nodiscard]] virtual base::Result<bool> holds(const State& state) const = 0;
};

}  // namespace heddle::graph
