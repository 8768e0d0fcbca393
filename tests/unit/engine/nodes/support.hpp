#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/models/model.hpp"
#include "engine/nodes/agent_loader.hpp"
#include "engine/tools/tool.hpp"

/// A model and a tool that do what a test says, behind the ports' own interfaces.
namespace heddle::nodes::test {

using base::Json;

class FakeModel final : public models::ChatModel {
public:
    base::Task<base::Result<models::ChatReply>> call(models::ChatRequest request,
                                                     models::OnChunk on_chunk,
                                                     base::CancelSource&) override {
        requests.push_back(std::move(request));
        if (on_chunk) {
            for (const auto& chunk : chunks) {
                on_chunk(chunk);
            }
        }
        if (replies.empty()) {
            co_return base::Error{base::ErrorCode::model_error, "no reply"};
        }
        auto reply = std::move(replies.front());
        replies.erase(replies.begin());
        co_return reply;
    }

    std::vector<models::ChatRequest> requests;
    std::vector<Json> chunks;
    std::vector<models::ChatReply> replies;
};

class FakeTool final : public tools::Tool {
public:
    FakeTool(std::string name, base::Result<tools::ToolAnswer> answer)
        : spec_{std::move(name), "does " + spec_.name, Json{{"type", "object"}}},
          answer_{std::move(answer)} {}
    [[nodiscard]] const tools::ToolSpec& spec() const noexcept override { return spec_; }
    base::Task<base::Result<tools::ToolAnswer>> call(tools::ToolCall call,
                                                     base::CancelSource&) override {
        calls.push_back(std::move(call));
        if (on_call) {
            on_call();
        }
        co_return answer_;
    }
    [[nodiscard]] tools::ToolSpec& own_spec() noexcept { return spec_; }
    void answer_with(base::Result<tools::ToolAnswer> answer) { answer_ = std::move(answer); }

    std::vector<tools::ToolCall> calls;
    std::function<void()> on_call;

private:
    tools::ToolSpec spec_;
    base::Result<tools::ToolAnswer> answer_;
};

/// A server whose tools are known only when it is asked.
class FakeSource final : public tools::ToolSource {
public:
    [[nodiscard]] const tools::ToolSet* known() const noexcept override { return nullptr; }
    base::Task<base::Result<std::shared_ptr<const tools::ToolSet>>> load(
        base::Instant, base::CancelSource&) override {
        ++loads;
        if (failure) {
            co_return *failure;
        }
        co_return std::make_shared<const tools::ToolSet>(offered);
    }

    tools::ToolSet offered;
    std::optional<base::Error> failure;
    int loads = 0;
};

/// Provider "fake" and tools of kind "http", which every name in `names` becomes one of.
inline Factories fake_factories(std::shared_ptr<FakeModel> model, tools::ToolSet tools) {
    Factories factories;
    factories.auto_provider = "fake";
    factories.models["fake"] =
        [model](const Json& settings,
                const std::filesystem::path&) -> base::Result<std::shared_ptr<models::ChatModel>> {
        for (const auto& [key, value] : settings.items()) {
            if (key != "model" && key != "temperature") {
                return base::Error{base::ErrorCode::invalid_argument, "unknown setting", key};
            }
        }
        return std::shared_ptr<models::ChatModel>{model};
    };
    factories.models["other"] =
        [](const Json&,
           const std::filesystem::path&) -> base::Result<std::shared_ptr<models::ChatModel>> {
        return base::Error{base::ErrorCode::internal, "not this one"};
    };
    factories.tools["http"] =
        [tools](const Json& settings,
                const std::filesystem::path&) -> base::Result<std::shared_ptr<tools::ToolSource>> {
        if (settings["http"] != "tools.yaml") {
            return base::Error{base::ErrorCode::not_found, "no such file", "http"};
        }
        return tools::make_static_source(tools);
    };
    return factories;
}

}  // namespace heddle::nodes::test
