#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "engine/base/clock.hpp"
#include "engine/base/task.hpp"
#include "engine/graph/graph.hpp"
#include "engine/graph/row_events.hpp"
#include "engine/graph/runner.hpp"

/// A graph written in C++, and a host that remembers what the runner told it.
namespace heddle::graph::test {

using base::Json;

/// Runs a task to its end on a loop of its own.
template <class T>
T run_to_end(base::Task<T> task) {
    asio::io_context loop{1};
    std::optional<T> result;
    asio::co_spawn(loop, std::move(task), [&](const std::exception_ptr& failure, T value) {
        if (failure != nullptr) {
            std::rethrow_exception(failure);
        }
        result = std::move(value);
    });
    loop.run();
    return std::move(*result);
}

class ManualClock final : public base::Clock {
public:
    [[nodiscard]] base::Instant now() const noexcept override { return now_; }
    [[nodiscard]] std::int64_t unix_us() const noexcept override { return 0; }
    void advance(base::Duration by) {
        now_ += std::chrono::duration_cast<base::Instant::duration>(by);
    }

private:
    base::Instant now_ = base::Instant{} + std::chrono::hours{1};
};

class RecordingHost final : public RunHost {
public:
    [[nodiscard]] bool wants(StreamMode mode) const noexcept override {
        return modes.contains(mode);
    }
    void emit(StreamEvent event) override { events.push_back(std::move(event)); }
    base::Task<base::Status> checkpoint(storage::JournalRow row,
                                        std::vector<StreamEvent> step_events) override {
        append_row_events(row.data, {}, step_events);
        for (const auto& event : step_events) {
            step_event_data.push_back(event.data);
        }
        rows.push_back(std::move(row));
        std::move(step_events.begin(), step_events.end(), std::back_inserter(events));
        if (on_checkpoint) {
            on_checkpoint();
        }
        co_return checkpoint_answer;
    }
    void count_tokens(std::int64_t input, std::int64_t output) override {
        input_tokens += input;
        output_tokens += output;
    }
    base::Task<base::Result<std::vector<storage::ToolCallRow>>> load_tool_calls(
        storage::Seq seq) override {
        std::vector<storage::ToolCallRow> found;
        for (const auto& call : tool_calls) {
            if (call.seq == seq) {
                found.push_back(call);
            }
        }
        co_return found;
    }
    base::Task<base::Status> record_tool_calls(std::vector<storage::ToolCallRow> calls) override {
        if (tool_calls_answer) {
            ++tool_call_writes;
            for (auto& call : calls) {
                put(std::move(call));
            }
        }
        co_return tool_calls_answer;
    }
    void record_answer(storage::ToolCallRow call) override { put(std::move(call)); }
    [[nodiscard]] base::CancelSource& cancel() noexcept override { return cancel_source; }
    [[nodiscard]] const base::Clock& clock() const noexcept override {
        return manual_clock != nullptr ? *manual_clock : base::system_clock();
    }

    [[nodiscard]] std::vector<Json> events_of(StreamMode mode) const {
        std::vector<Json> found;
        for (const auto& event : events) {
            if (event.mode == mode) {
                found.push_back(Json::parse(event.data));
            }
        }
        return found;
    }
    [[nodiscard]] std::vector<CheckpointHead> heads() const {
        std::vector<CheckpointHead> found;
        for (const auto& row : rows) {
            found.push_back(parse_head(row).value());
        }
        return found;
    }

    std::set<StreamMode> modes;
    std::vector<StreamEvent> events;
    std::vector<std::string> step_event_data;
    std::vector<storage::JournalRow> rows;
    std::function<void()> on_checkpoint;
    base::Status checkpoint_answer;
    std::vector<storage::ToolCallRow> tool_calls;  ///< the ledger
    int tool_call_writes = 0;                      ///< that were waited for
    base::Status tool_calls_answer;                ///< what recording calls answers
    base::CancelSource cancel_source;
    ManualClock* manual_clock = nullptr;
    std::int64_t input_tokens = 0;
    std::int64_t output_tokens = 0;

private:
    void put(storage::ToolCallRow call) {
        for (auto& each : tool_calls) {
            if (each.seq == call.seq && each.task_id == call.task_id &&
                each.number == call.number) {
                each = std::move(call);
                return;
            }
        }
        tool_calls.push_back(std::move(call));
    }
};

using Body = std::function<base::Task<base::Result<NodeOutput>>(NodeContext&)>;

class FunctionNode final : public Node {
public:
    explicit FunctionNode(Body body) : body_{std::move(body)} {}
    base::Task<base::Result<NodeOutput>> run(NodeContext& context) const override {
        return body_(context);
    }

private:
    Body body_;
};

class FunctionCondition final : public Condition {
public:
    explicit FunctionCondition(std::function<base::Result<bool>(const State&)> body)
        : body_{std::move(body)} {}
    [[nodiscard]] base::Result<bool> holds(const State& state) const override {
        return body_(state);
    }

private:
    std::function<base::Result<bool>(const State&)> body_;
};

inline NodeOutput writes(std::vector<ChannelWrite> list) {
    return NodeOutput{std::move(list)};
}

/// A node that writes the same every time.
inline std::shared_ptr<const Node> writing(std::string channel, Json value) {
    return std::make_shared<FunctionNode>(
        [channel = std::move(channel),
         value = std::move(value)](NodeContext&) -> base::Task<base::Result<NodeOutput>> {
            co_return writes({{channel, value}});
        });
}

inline std::shared_ptr<const Node> calling(Body body) {
    return std::make_shared<FunctionNode>(std::move(body));
}

inline std::shared_ptr<const Condition> when(std::function<base::Result<bool>(const State&)> body) {
    return std::make_shared<FunctionCondition>(std::move(body));
}

inline NodeSpec node(std::string name, std::shared_ptr<const Node> body) {
    NodeSpec spec;
    spec.name = std::move(name);
    spec.kind = "native";
    spec.body = std::move(body);
    return spec;
}

inline EdgeSpec edge(std::string_view from,
                     std::string_view to,
                     std::shared_ptr<const Condition> condition = nullptr) {
    return EdgeSpec{std::string{from}, std::string{to}, std::move(condition)};
}

/// Channels: messages (add_messages), log (append), topic (a string).
inline std::shared_ptr<const Channels> usual_channels() {
    return std::make_shared<const Channels>(
        Channels{{"messages", Reducer::add_messages, nullptr, ""},
                 {"log", Reducer::append, nullptr, ""},
                 {"topic", Reducer::last_value, nullptr, "string"}});
}

inline Graph make_graph(std::vector<NodeSpec> nodes, std::vector<EdgeSpec> edges) {
    Graph graph;
    graph.name = "test";
    graph.channels = usual_channels();
    graph.nodes = std::move(nodes);
    graph.edges = std::move(edges);
    return graph;
}

inline RunSpec make_spec(std::optional<Json> input) {
    RunSpec spec;
    spec.thread_id = base::ThreadId{base::make_uuid_v7()};
    spec.run_id = base::RunId{base::make_uuid_v7()};
    spec.assistant_id = base::AssistantId{base::make_uuid_v7()};
    spec.input = std::move(input);
    return spec;
}

}  // namespace heddle::graph::test
