// State and history: read from disk, so any engine answers for any thread.
#include <utility>

#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/api/fields.hpp"
#include "engine/api/shapes.hpp"

namespace heddle::api {
namespace {

using base::CheckpointId;
using base::Error;
using base::ErrorCode;
using base::ThreadId;

constexpr int kFilterPagesMax = 20;
constexpr std::int32_t kFilterPage = 200;

struct HistoryQuery {
    ThreadId thread;
    std::int32_t limit = 10;
    std::optional<CheckpointId> before;
    base::Json metadata = base::Json::object();  ///< the checkpoint's must contain it
};

// "before" is an id, a checkpoint {checkpoint_id} or a config {configurable: {checkpoint_id}}.
void read_before(Fields& body, HistoryQuery& query) {
    const auto* before = body.find("before");
    if (before == nullptr) {
        return;
    }
    const base::Json* id = before;
    if (before->is_object()) {
        const auto configurable = before->find("configurable");
        const auto& holder =
            configurable != before->end() && configurable->is_object() ? *configurable : *before;
        const auto at = holder.find("checkpoint_id");
        id = at == holder.end() ? nullptr : &*at;
    }
    if (id == nullptr || !id->is_string()) {
        body.refuse("before", "must be a checkpoint id or an object with checkpoint_id");
        return;
    }
    query.before = CheckpointId::parse(id->get_ref<const std::string&>());
    if (!query.before) {
        body.refuse("before", "must be the UUID of a checkpoint");
    }
}

base::Task<base::Result<std::vector<scheduler::StateAt>>> load_filtered(
    scheduler::ShardScheduler& shard, HistoryQuery query) {
    if (query.metadata.empty()) {
        co_return co_await shard.load_history(query.thread, query.before, query.limit);
    }
    std::vector<scheduler::StateAt> found;
    auto before = query.before;
    for (int page = 0; page < kFilterPagesMax; ++page) {
        auto states = co_await shard.load_history(query.thread, before, kFilterPage);
        if (!states) {
            co_return std::move(states).error();
        }
        const bool is_last = states->size() < static_cast<std::size_t>(kFilterPage);
        if (!states->empty()) {
            before = states->back().row.checkpoint_id;
        }
        for (auto& state : *states) {
            if (!base::json_contains(state.head.metadata, query.metadata)) {
                continue;
            }
            found.push_back(std::move(state));
            if (found.size() == static_cast<std::size_t>(query.limit)) {
                co_return found;
            }
        }
        if (is_last) {
            co_return found;
        }
    }
    co_return Error{ErrorCode::invalid_argument,
                    fmt::format("metadata: not enough matches among the newest {} checkpoints; "
                                "narrow the search with before",
                                kFilterPagesMax * kFilterPage),
                    "metadata"};
}

base::Task<base::Result<Answer>> answer_history(scheduler::ShardScheduler& shard,
                                                HistoryQuery query) {
    const auto thread = query.thread;
    const auto states = co_await load_filtered(shard, std::move(query));
    if (!states) {
        co_return states.error();
    }
    std::string text = "[";
    for (const auto& state : *states) {
        if (text.size() > 1) {
            text += ',';
        }
        text += state_json(thread, state);
    }
    text += ']';
    co_return Answer{json_response(200, std::move(text))};
}

base::Task<base::Result<Answer>> answer_state(scheduler::ShardScheduler& shard,
                                              ThreadId thread,
                                              std::optional<CheckpointId> checkpoint) {
    const auto state = co_await shard.load_state(thread, checkpoint);
    if (!state) {
        co_return state.error();
    }
    co_return Answer{json_response(200, state_json(thread, *state))};
}

// No graph has subgraphs, so both values of `subgraphs` give the same; `select` we do not obey.
base::Status check_query(const Query& query) {
    if (const auto flag = query.flag("subgraphs", false); !flag) {
        return flag.error();
    }
    if (!query.list("select").empty()) {
        return Error{ErrorCode::unsupported, "select is not supported", "select"};
    }
    return base::ok();
}

}  // namespace

base::Task<Api::Outcome> Api::get_state(Call& call) {
    if (auto status = check_query(call.query); !status) {
        co_return std::move(status).error();
    }
    const auto thread = *ThreadId::parse(call.request.params[0]);
    co_return co_await answer_state(scheduler_.of(thread), thread, std::nullopt);
}

base::Task<Api::Outcome> Api::get_state_at(Call& call) {
    if (auto status = check_query(call.query); !status) {
        co_return std::move(status).error();
    }
    const auto thread = *ThreadId::parse(call.request.params[0]);
    const auto checkpoint = parse_id<CheckpointId>(call.request.params[1], "checkpoint_id");
    if (!checkpoint) {
        co_return checkpoint.error();
    }
    co_return co_await answer_state(scheduler_.of(thread), thread, *checkpoint);
}

base::Task<Api::Outcome> Api::post_state_checkpoint(Call& call) {
    const auto thread = *ThreadId::parse(call.request.params[0]);
    const auto json = parse_body(call.request.body);
    if (!json) {
        co_return json.error();
    }
    Fields body{*json};
    (void)body.flag("subgraphs");
    const auto* object = body.object("checkpoint");
    if (object == nullptr) {
        body.refuse("checkpoint", "is required");
    }
    std::optional<CheckpointId> id;
    if (object != nullptr) {
        Fields checkpoint{*object, "checkpoint"};
        id = checkpoint.id<CheckpointId>("checkpoint_id");
        (void)checkpoint.text("thread_id");
        if (!checkpoint.text("checkpoint_ns").value_or("").empty()) {
            checkpoint.refuse_unsupported("checkpoint_ns",
                                          "is not supported: no graph has subgraphs");
        }
        (void)checkpoint.object("checkpoint_map");
        body.keep(checkpoint.finish());
    }
    if (auto status = body.finish(); !status) {
        co_return std::move(status).error();
    }
    co_return co_await answer_state(scheduler_.of(thread), thread, id);
}

base::Task<Api::Outcome> Api::get_history(Call& call) {
    HistoryQuery query;
    query.thread = *ThreadId::parse(call.request.params[0]);
    const auto limit = call.query.integer("limit", 10, 1, 1000);
    if (!limit) {
        co_return limit.error();
    }
    query.limit = static_cast<std::int32_t>(*limit);
    if (const auto* before = call.query.find("before"); before != nullptr && !before->empty()) {
        const auto id = parse_id<CheckpointId>(*before, "before");
        if (!id) {
            co_return id.error();
        }
        query.before = *id;
    }
    co_return co_await answer_history(scheduler_.of(query.thread), std::move(query));
}

base::Task<Api::Outcome> Api::post_history(Call& call) {
    HistoryQuery query;
    query.thread = *ThreadId::parse(call.request.params[0]);
    const auto json = parse_body(call.request.body);
    if (!json) {
        co_return json.error();
    }
    Fields body{*json};
    query.limit = static_cast<std::int32_t>(body.integer("limit", 1, 1000).value_or(10));
    read_before(body, query);
    if (const auto* metadata = body.object("metadata")) {
        query.metadata = *metadata;
    }
    if (const auto* object = body.object("checkpoint")) {
        Fields checkpoint{*object, "checkpoint"};
        (void)checkpoint.text("thread_id");
        for (const auto* name : {"checkpoint_id", "checkpoint_ns"}) {
            if (!checkpoint.text(name).value_or("").empty()) {
                checkpoint.refuse_unsupported(name);
            }
        }
        (void)checkpoint.object("checkpoint_map");
        body.keep(checkpoint.finish());
    }
    if (auto status = body.finish(); !status) {
        co_return std::move(status).error();
    }
    co_return co_await answer_history(scheduler_.of(query.thread), std::move(query));
}

}  // namespace heddle::api
