#include "tests/unit/engine/api/test_api.hpp"

#include <algorithm>
#include <sstream>
#include <thread>

namespace heddle::api::test {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;

constexpr std::chrono::seconds kPatience{30};

class EchoNode : public graph::Node {
public:
    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        const auto* messages = context.state().find_list("messages");
        const auto text = messages->back().json().value("content", std::string{});
        if (context.wants_messages()) {
            Json chunk{{"type", "AIMessageChunk"}, {"content", "echo "}, {"id", "m"}};
            context.emit_message(std::move(chunk));
        }
        context.count_tokens(3, 2);
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

// Forty custom events before the gate, five behind it.
class TalkNode final : public EchoNode {
public:
    TalkNode(Gate& gate, bool fails) : gate_{gate}, fails_{fails} {}
    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext& context) const override {
        for (int i = 1; i <= 45; ++i) {
            context.emit_custom({{"said", i}});
            if (i == 40) {
                co_await gate_.pass();
            }
        }
        if (fails_) {
            co_return Error{ErrorCode::model_error, "the model said no"};
        }
        auto output = co_await EchoNode::run(context);
        co_return output;
    }

private:
    Gate& gate_;
    bool fails_;
};

class BrokenNode final : public graph::Node {
public:
    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext&) const override {
        co_return Error{ErrorCode::model_error, "the model said no"};
    }
};

class CountNode final : public graph::Node {
public:
    base::Task<base::Result<graph::NodeOutput>> run(graph::NodeContext&) const override {
        graph::NodeOutput output;
        output.writes.push_back({"count", 1});
        co_return output;
    }
};

using NodePtr = std::shared_ptr<const graph::Node>;

std::shared_ptr<const graph::Graph> make_graph(const std::string& name,
                                               const std::vector<NodePtr>& bodies,
                                               graph::Channels channels) {
    auto graph = std::make_shared<graph::Graph>();
    graph->name = name;
    graph->channels = std::make_shared<const graph::Channels>(std::move(channels));
    std::string from{graph::kStart};
    for (std::size_t i = 0; i < bodies.size(); ++i) {
        graph::NodeSpec node;
        node.name = i == 0 ? "answer" : "again";
        node.kind = "native";
        node.body = bodies[i];
        graph->edges.push_back({from, node.name, nullptr});
        from = node.name;
        graph->nodes.push_back(std::move(node));
    }
    graph->edges.push_back({from, std::string{graph::kEnd}, nullptr});
    return graph;
}

graph::Channels messages() {
    return {{"messages", graph::Reducer::add_messages, nullptr, {}}};
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

std::size_t Gate::arrived() const {
    const std::lock_guard lock{mutex_};
    return arrived_;
}

void Gate::wait_arrived(std::size_t count) const {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (arrived() < count && std::chrono::steady_clock::now() < until) {
        std::this_thread::yield();
    }
    EXPECT_GE(arrived(), count) << "waited in vain";
}

Json Reply::json() const {
    auto parsed = Json::parse(body, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << body;
    return parsed;
}

std::string Reply::header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
        if (key == name) {
            return value;
        }
    }
    return {};
}

Exchange::Exchange(Request wanted, base::Shard& home) : request{std::move(wanted)}, shard{&home} {}

template <class Condition>
void Exchange::wait(Condition condition, const std::string& what) {
    std::unique_lock lock{mutex_};
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, condition))
        << "waited in vain: " << what << "; got: " << reply_.body;
}

Reply Exchange::finish() {
    wait([this] { return done_; }, "the handler returns");
    return so_far();
}
void Exchange::wait_for(const std::string& text) {
    wait([&] { return reply_.body.find(text) != std::string::npos; }, text);
}
void Exchange::wait_accepted() {
    wait([this] { return reply_.accepted; }, "accepted");
}
Reply Exchange::so_far() const {
    const std::lock_guard lock{mutex_};
    return reply_;
}
void Exchange::leave() {
    shard->post([this] { gone_.cancel(Error{ErrorCode::cancelled, "gone"}); });
}
void Exchange::mark_done() {
    change([this](Reply&) { done_ = true; });
}

void Exchange::accepted(std::int64_t) {
    change([](Reply& reply) { reply.accepted = true; });
}
void Exchange::moved(std::string, std::string endpoint) {
    change([&](Reply& reply) {
        EXPECT_FALSE(reply.accepted) << "the wire forbids it";
        reply.moved = endpoint;
    });
}
void Exchange::refused(ErrorCode code) {
    change([&](Reply& reply) {
        EXPECT_EQ(reply.status, 0) << "the wire forbids it";
        reply.refused = base::error_traits(code).wire_name;
    });
}
base::Task<base::Status> Exchange::respond(Response response) {
    take_head(std::move(response));
    change([](Reply& reply) { reply.one_frame = reply.ended = true; });
    co_return base::ok();
}
void Exchange::start(Response head) {
    EXPECT_LE(head.body.size(), kHeadBodyBytesMax);
    take_head(std::move(head));
}
void Exchange::take_head(Response head) {
    change([&](Reply& reply) {
        EXPECT_EQ(reply.status, 0) << "a second head";
        reply.status = head.status;
        reply.headers = std::move(head.headers);
        reply.body = std::move(head.body);
    });
}
base::Task<base::Status> Exchange::write(std::string bytes) {
    if (gone_.is_cancelled()) {
        co_return gone_.reason();
    }
    change([&](Reply& reply) { reply.body += bytes; });
    co_return base::ok();
}
void Exchange::end() {
    change([](Reply& reply) { reply.ended = true; });
}
void Exchange::fail(ErrorCode code) {
    change([&](Reply& reply) { reply.failed = base::error_traits(code).wire_name; });
}

namespace {

// No machine is so slow that it passes.
storage::StoreLimits long_lease() {
    storage::StoreLimits limits;
    limits.lease = std::chrono::hours{1};
    return limits;
}

base::Task<> serve(Api& api, base::ShardPool& shards, ExchangePtr on) {
    const auto elsewhere = co_await api.handle(on->request, *on);
    if (!elsewhere) {
        on->mark_done();
        co_return;
    }
    on->request.thread_id = elsewhere->to_string();
    on->shard = &shards.of(*elsewhere);
    on->shard->spawn(serve(api, shards, on));
}

}  // namespace

TestApi::TestApi(ApiOptions options, scheduler::SchedulerLimits limits) {
    const auto echo = std::make_shared<const EchoNode>();
    graph::Channels counts{{"count", graph::Reducer::last_value, nullptr, {}}};
    std::vector<std::shared_ptr<const graph::Graph>> graphs{
        make_graph("echo", {echo}, messages()),
        make_graph("gated", {std::make_shared<const GatedNode>(gate)}, messages()),
        make_graph("pair", {echo, echo}, messages()),
        make_graph("talk", {std::make_shared<const TalkNode>(gate, false), echo}, messages()),
        make_graph("talk_broken", {echo, std::make_shared<const TalkNode>(gate, true)}, messages()),
        make_graph("broken", {std::make_shared<const BrokenNode>()}, messages()),
        make_graph("counter", {std::make_shared<const CountNode>()}, std::move(counts))};
    catalog_ = std::make_unique<scheduler::Catalog>(std::move(graphs));
    store_ = storage::make_memory_store(database_, long_lease(), metrics);
    shards_ = std::make_unique<base::ShardPool>(2, 1024);
    limits.owner_wait_max = std::chrono::milliseconds{50};
    scheduler_ =
        std::make_unique<scheduler::Scheduler>(*shards_, *store_, *catalog_, metrics, limits);
    scheduler::OwnershipLimits ownership;
    ownership.lease = long_lease().lease;
    ownership_ = std::make_unique<scheduler::Ownership>(*scheduler_, "ipc:///here", ownership);
    EXPECT_TRUE(ownership_->start().has_value());
    api_ = std::make_unique<Api>(*scheduler_, std::move(options));
}

TestApi::~TestApi() {
    gate.open();
    ownership_->leave();
    ownership_->stop();
    scheduler_->stop();
    store_.reset();
    shards_.reset();
}

ExchangePtr TestApi::begin(const std::string& method,
                           const std::string& target,
                           const std::string& body,
                           Headers headers) {
    Request request;
    request.method = method;
    request.path = target.substr(0, target.find('?'));
    if (target.size() > request.path.size()) {
        request.query = target.substr(request.path.size() + 1);
    }
    request.body = body;
    request.headers = std::move(headers);
    return begin(std::move(request));
}

ExchangePtr TestApi::begin(Request request) {
    const auto plan = api_->plan(request);
    auto exchange = std::make_shared<Exchange>(std::move(request), shards_->of(plan.shard_key));
    if (plan.answer) {
        exchange->take_head(*plan.answer);
        exchange->end();
        exchange->mark_done();
        return exchange;
    }
    exchange->shard->spawn(serve(*api_, *shards_, exchange));
    return exchange;
}

Reply TestApi::call(const std::string& method,
                    const std::string& target,
                    const std::string& body,
                    Headers headers) {
    return begin(method, target, body, std::move(headers))->finish();
}

void TestApi::abandon_all() {
    for (std::size_t i = 0; i < shards_->size(); ++i) {
        shards_->at(i).post([this, i] { scheduler_->at(i).abandon_all(); });
    }
}

void TestApi::rob(const std::string& thread) {
    ownership_->leave();
    thief_ = storage::make_memory_store(database_, long_lease(), metrics);
    storage::EngineRow row;
    row.id = base::EngineId{base::make_uuid_v7()};
    row.endpoint = "ipc:///elsewhere";
    thief_->register_engine(row, [](const base::Status& done) { EXPECT_TRUE(done.has_value()); });
    storage::ThreadClaim claim;
    claim.thread_id = *base::ThreadId::parse(thread);
    thief_->claim(claim, [](const base::Result<storage::ClaimOutcome>& outcome) {
        ASSERT_TRUE(outcome.has_value());
        EXPECT_EQ(outcome->kind, storage::ClaimOutcome::Kind::claimed);
    });
}

std::string TestApi::make_thread() {
    return call("POST", "/threads", "{}").json().at("thread_id").get<std::string>();
}

std::string run_body(const std::string& agent, const std::string& text, const Json& extra) {
    Json message{{"type", "human"}, {"content", text}};
    Json body{{"assistant_id", agent}, {"input", {{"messages", Json::array({message})}}}};
    body.update(extra);
    return body.dump();
}

std::vector<SseEvent> parse_sse(const std::string& text) {
    std::vector<SseEvent> events;
    std::istringstream lines{text};
    std::string line;
    const auto field = [&](const std::string& name) {
        EXPECT_TRUE(line.starts_with(name + ": ")) << line;
        auto value = line.size() > name.size() + 2 ? line.substr(name.size() + 2) : "";
        std::getline(lines, line);
        return value;
    };
    while (std::getline(lines, line)) {
        while (line.starts_with(':')) {
            if (!std::getline(lines, line)) {
                return events;
            }
        }
        SseEvent event;
        event.event = field("event");
        event.data = field("data");
        event.id = field("id");
        EXPECT_EQ(line, "") << "a blank line ends an event";
        events.push_back(std::move(event));
    }
    return events;
}

}  // namespace heddle::api::test
