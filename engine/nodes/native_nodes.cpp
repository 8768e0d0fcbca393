#include "engine/nodes/native_nodes.hpp"

#include <utility>

#include <fmt/format.h>

#include "engine/nodes/chat_state.hpp"

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;

constexpr std::int64_t kAppendBytesMax = 1'000'000;

class EchoNode final : public graph::Node {
public:
    Task<Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const auto* message = find_last_message(context.state(), "human");
        if (message == nullptr) {
            co_return Error{ErrorCode::graph_error, "there is no human message to echo"};
        }
        Json answer{{"type", "ai"}, {"content", message->json()["content"]}};
        co_return write_message(std::move(answer));
    }
    [[nodiscard]] bool is_local() const noexcept override { return true; }
};

class AppendNode final : public graph::Node {
public:
    explicit AppendNode(std::size_t bytes) : content_(bytes, 'x') {}

    Task<Result<graph::NodeOutput>> run(graph::NodeContext&) const override {
        Json answer{{"type", "ai"}, {"content", content_}};
        co_return write_message(std::move(answer));
    }
    [[nodiscard]] bool is_local() const noexcept override { return true; }

private:
    std::string content_;
};

using Made = Result<std::shared_ptr<const graph::Node>>;

Error unknown_key(const std::string& key) {
    return Error{ErrorCode::invalid_argument, fmt::format("unknown key \"{}\"", key), key};
}

Made make_echo(const Json& settings) {
    if (!settings.empty()) {
        return unknown_key(settings.begin().key());
    }
    return std::shared_ptr<const graph::Node>{std::make_shared<EchoNode>()};
}

Made make_append(const Json& settings) {
    std::int64_t bytes = 200;
    for (const auto& [key, value] : settings.items()) {
        if (key != "bytes") {
            return unknown_key(key);
        }
        if (!value.is_number_integer() || value.get<std::int64_t>() < 0 ||
            value.get<std::int64_t>() > kAppendBytesMax) {
            return Error{ErrorCode::invalid_argument,
                         fmt::format("expected an integer from 0 to {}", kAppendBytesMax), key};
        }
        bytes = value.get<std::int64_t>();
    }
    return std::shared_ptr<const graph::Node>{
        std::make_shared<AppendNode>(static_cast<std::size_t>(bytes))};
}

}  // namespace

const std::map<std::string, NativeFactory, std::less<>>& native_nodes() {
    static const std::map<std::string, NativeFactory, std::less<>> kNodes{{"append", make_append},
                                                                          {"echo", make_echo}};
    return kNodes;
}

}  // namespace heddle::nodes
