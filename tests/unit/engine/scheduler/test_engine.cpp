#include "tests/unit/engine/scheduler/test_engine.hpp"

namespace heddle::scheduler::test {
namespace {

class EchoNode : public graph::Node {
public:
    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const auto* messages = context.state().find_list("messages");
        const auto text = messages->back().json().value("content", std::string{});
        graph::NodeOutput output;
        output.writes.push_back({"messages", {{"type", "ai"}, {"content", "echo " + text}}});
        co_return output;
    }
};

class GatedNode final : public EchoNode {
public:
    explicit GatedNode(Gate& gate) : gate_{gate} {}
    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        co_await gate_.pass();
        auto output = co_await EchoNode::run(context);
        co_return output;
    }

private:
    Gate& gate_;
};

std::shared_ptr<graph::Graph> make_graph(const std::string& name,
                                         std::shared_ptr<const graph::Node> body) {
    auto graph = std::make_shared<graph::Graph>();
    graph->name = name;
    graph->channels = std::make_shared<const graph::Channels>(
        graph::Channels{{"messages", graph::Reducer::add_messages, nullptr, {}}});
    graph::NodeSpec node;
    node.name = "answer";
    node.kind = "native";
    node.body = std::move(body);
    graph->nodes.push_back(std::move(node));
    graph->edges.push_back({std::string{graph::kStart}, "answer", nullptr});
    graph->edges.push_back({"answer", std::string{graph::kEnd}, nullptr});
    return graph;
}

}  // namespace

base::Task<> Gate::pass() {
    co_await base::from_callback<bool>([this](base::Completion<bool> go_on) {
        {
            const std::lock_guard lock{mutex_};
            ++arrived_;
            if (!open_) {
                waiting_.push_back(std::move(go_on));
                return;
            }
        }
        go_on(true);
    });
}

void Gate::open() {
    std::vector<base::Completion<bool>> waiting;
    {
        const std::lock_guard lock{mutex_};
        open_ = true;
        waiting.swap(waiting_);
    }
    for (auto& go_on : waiting) {
        go_on(true);
    }
}

void Gate::close() {
    const std::lock_guard lock{mutex_};
    open_ = false;
}

std::size_t Gate::arrived() const {
    const std::lock_guard lock{mutex_};
    return arrived_;
}

base::Instant soon() {
    return base::system_clock().now() + std::chrono::seconds{20};
}

storage::StoreLimits long_lease() {
    storage::StoreLimits limits;
    limits.lease = std::chrono::hours{24 * 365};
    return limits;
}

OwnershipLimits quick_ownership() {
    OwnershipLimits limits;
    limits.lease = long_lease().lease;
    limits.heartbeat_every = std::chrono::milliseconds{50};
    limits.recovery_every = std::chrono::milliseconds{50};
    return limits;
}

std::shared_ptr<const graph::Graph> make_echo_graph() {
    return make_graph("echo", std::make_shared<const EchoNode>());
}

std::shared_ptr<const graph::Graph> make_gated_graph(Gate& gate) {
    return make_graph("gated", std::make_shared<const GatedNode>(gate));
}

std::shared_ptr<const graph::Graph> make_two_step_graph(Gate& gate) {
    auto graph = make_graph("two_steps", std::make_shared<const GatedNode>(gate));
    graph::NodeSpec node;
    node.name = "again";
    node.kind = "native";
    node.body = std::make_shared<const EchoNode>();
    graph->nodes.push_back(std::move(node));
    graph->edges.back().to = "again";
    graph->edges.push_back({"again", std::string{graph::kEnd}, nullptr});
    return graph;
}

TestEngine::TestEngine(std::unique_ptr<storage::Store> store,
                       const Catalog& catalog,
                       OwnershipLimits ownership,
                       const SchedulerLimits& limits)
    : store_{std::move(store)},
      shards_{std::make_unique<base::ShardPool>(2, 4096)},
      scheduler_{std::make_unique<Scheduler>(*shards_, *store_, catalog, metrics_, limits)},
      ownership_{std::make_unique<Ownership>(*scheduler_, "test", ownership)} {
    const auto started = ownership_->start();
    HEDDLE_ASSERT(started);
}

TestEngine::~TestEngine() {
    if (!killed_) {
        ownership_->leave();
    }
    ownership_->stop();
    scheduler_->stop();
    store_.reset();
    shards_.reset();
}

void TestEngine::kill() {
    killed_ = true;
    ownership_->stop();
    scheduler_->stop();
    ownership_->leave();  // all that its row is for is the lease
}

}  // namespace heddle::scheduler::test
