#include <algorithm>
#include <utility>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/api/fields.hpp"
#include "engine/api/shapes.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::ThreadId;

constexpr std::size_t kReadersMax = 8;  // states of one search read at a time
constexpr base::Duration kWakeEvery = std::chrono::seconds{10};
// A search says how many there are up to here, and past it that there are more; /count counts all.
constexpr std::int64_t kTotalMax = 10'000;
constexpr std::size_t kSearchBytesMax = 64U << 20U;  // of values in one search answer

const std::vector<std::string_view> kMembers{"thread_id", "created_at", "updated_at", "metadata",
                                             "config",    "status",     "values",     "interrupts"};

// The values of many threads, read by a few tasks of one shard. Lives in the frame that waits.
struct ValuesReader {
    scheduler::ShardScheduler& shard;
    const std::vector<storage::ThreadRow>& rows;
    std::vector<std::optional<std::string>> values;
    std::size_t next = 0;
    std::size_t bytes = 0;
    std::size_t running = 0;
    std::optional<Error> error;
    base::Signal ended;

    base::Task<> read_some() {
        while (next < rows.size() && !error) {
            const auto at = next++;
            if (rows[at].head == storage::kNoSeq) {
                continue;
            }
            auto state = co_await shard.load_state(rows[at].id, std::nullopt);
            if (!state) {
                // Deleted since the search, or of an agent that is no longer served: shown without.
                const auto code = state.error().code;
                if (code != ErrorCode::not_found && code != ErrorCode::conflict) {
                    error = state.error();
                }
                continue;
            }
            if (!*state) {
                continue;
            }
            bytes += (*state)->values.size();
            if (bytes > kSearchBytesMax) {
                error = Error{ErrorCode::invalid_argument,
                              "limit: the threads' values are too long for one answer; take a "
                              "smaller limit, or leave values out with select",
                              "limit"};
            }
            values[at] = std::move((*state)->values);
        }
        --running;
        ended.notify_all();
    }
};

base::Task<base::Result<std::vector<std::optional<std::string>>>> load_values(
    scheduler::ShardScheduler& shard, const std::vector<storage::ThreadRow>& rows) {
    ValuesReader reader{shard, rows, {}, 0, 0, 0, std::nullopt, {}};
    reader.values.resize(rows.size());
    reader.running = std::min(kReadersMax, rows.size());
    const auto executor = co_await asio::this_coro::executor;
    const auto readers = reader.running;
    for (std::size_t i = 0; i < readers; ++i) {
        asio::co_spawn(executor, reader.read_some(), asio::detached);
    }
    // No deadline of its own: the tasks borrow this frame, and each read ends by the store's.
    while (reader.running > 0) {
        co_await reader.ended.wait(base::system_clock().now() + kWakeEvery);
    }
    if (reader.error) {
        co_return *reader.error;
    }
    co_return std::move(reader.values);
}

storage::ThreadFilter read_filter(Fields& body) {
    storage::ThreadFilter filter;
    if (const auto status = body.choice("status", {"idle", "busy", "interrupted", "error"})) {
        filter.status = static_cast<storage::ThreadStatus>(*status);
    }
    if (const auto* metadata = body.object("metadata"); metadata != nullptr && !metadata->empty()) {
        filter.metadata_contains = base::dump_json(*metadata);
    }
    if (const auto* values = body.object("values"); values != nullptr && !values->empty()) {
        body.refuse_unsupported("values");
    }
    if (const auto ids = body.texts("ids")) {
        for (std::size_t i = 0; i < ids->size(); ++i) {
            const auto id = ThreadId::parse((*ids)[i]);
            if (!id) {
                body.refuse(fmt::format("ids[{}]", i), "must be a UUID");
            }
            if (id) {
                filter.ids.push_back(*id);
            }
        }
    }
    return filter;
}

Select read_select(Fields& body) {
    auto select = body.texts("select", kMembers.size() * 2).value_or(Select{});
    for (const auto& name : select) {
        if (std::find(kMembers.begin(), kMembers.end(), name) == kMembers.end()) {
            body.refuse("select", fmt::format("must be some of {}", fmt::join(kMembers, ", ")));
        }
    }
    return select;
}

void read_order(Fields& body, storage::ThreadFilter& filter) {
    if (const auto key =
            body.choice("sort_by", {"thread_id", "status", "created_at", "updated_at"})) {
        filter.sort_by = static_cast<storage::ThreadFilter::SortBy>(*key);
    }
    filter.ascending = body.choice("sort_order", {"asc", "desc"}) == 0U;
    filter.limit = static_cast<std::int32_t>(body.integer("limit", 1, 1000).value_or(10));
    filter.offset = static_cast<std::int32_t>(body.integer("offset", 0, INT32_MAX).value_or(0));
    if (const auto* extract = body.object("extract"); extract != nullptr && !extract->empty()) {
        body.refuse_unsupported("extract");
    }
}

// As LangGraph's: {"strategy": "delete" | "keep_latest", "ttl": minutes}.
std::optional<storage::ThreadTtl> read_ttl(Fields& body) {
    const auto* object = body.object("ttl");
    if (object == nullptr) {
        return std::nullopt;
    }
    using Minutes = std::chrono::duration<double, std::ratio<60>>;
    constexpr double kMost = std::chrono::duration_cast<Minutes>(storage::kTtlMax).count();
    constexpr double kLeast = 0.001;
    storage::ThreadTtl ttl;
    Fields fields{*object, "ttl"};
    if (fields.choice("strategy", {"delete", "keep_latest"}) == 1U) {
        ttl.strategy = storage::TtlStrategy::keep_latest;
    }
    const auto minutes = fields.number("ttl");
    if (!minutes) {
        fields.refuse("ttl", "is required");
    } else if (!(*minutes >= kLeast && *minutes <= kMost)) {
        fields.refuse("ttl", fmt::format("must be from {} to {} minutes", kLeast, kMost));
    } else {
        ttl.after = std::chrono::duration_cast<std::chrono::microseconds>(Minutes{*minutes});
    }
    body.keep(fields.finish());
    return ttl;
}

// The thread of a run that had none and has ended is kept for those who ask for the run again.
bool is_over(const storage::ThreadRow& row) {
    return row.ttl && row.ttl->strategy == storage::TtlStrategy::temporary &&
           row.status != storage::ThreadStatus::busy;
}

void refuse_if_set(Fields& body, std::string_view name) {
    const auto* value = body.find(name);
    if (value != nullptr && !(value->is_structured() && value->empty())) {
        body.refuse_unsupported(name);
    }
}

// Whether the thread is as an attempt of this request at another engine has left it, or at this one
// before it lost its lease.
bool is_of_earlier_attempt(const storage::ThreadRow& row, const Json* metadata) {
    constexpr std::int64_t kAttemptsUs = 120'000'000;  // an edge gives up sooner
    return row.head == storage::kNoSeq &&
           base::unix_microseconds() - row.created_at_us < kAttemptsUs &&
           Json::parse(row.metadata, nullptr, false) ==
               (metadata == nullptr ? Json::object() : *metadata);
}

}  // namespace

base::Task<Api::Outcome> Api::create_thread(Call& call) {
    const auto json = parse_body(call.request.body);
    if (!json) {
        co_return json.error();
    }
    Fields body{*json};
    const auto named = body.id<ThreadId>("thread_id");
    const auto* metadata = body.object("metadata");
    const auto if_exists = body.choice("if_exists", {"raise", "do_nothing"});
    const auto ttl = read_ttl(body);
    refuse_if_set(body, "supersteps");
    if (auto status = body.finish(); !status) {
        co_return std::move(status).error();
    }

    const auto hinted = *ThreadId::parse(call.request.thread_id);
    auto thread = named.value_or(hinted);
    auto& pool = scheduler_.pool();
    if (&pool.of(thread) != &pool.of(hinted)) {
        co_return Answer{Elsewhere{thread}};
    }
    auto& shard = scheduler_.of(thread);
    const auto text = metadata == nullptr ? std::string{"{}"} : base::dump_json(*metadata);
    const auto policy =
        if_exists == 1U ? scheduler::IfExists::do_nothing : scheduler::IfExists::raise;
    auto row = co_await shard.create_thread(thread, text, policy, ttl);
    const bool exists = !row && row.error().code == ErrorCode::conflict;
    if (exists && call.request.hop > 0) {
        auto found = co_await base::from_callback<base::Result<storage::ThreadRow>>(
            [&](auto done) { store().load_thread(thread, std::move(done)); });
        if (found && is_of_earlier_attempt(*found, metadata)) {
            co_return Answer{json_response(200, thread_json(*found, std::nullopt))};
        }
    }
    if (exists && !named) {
        // The edge's key (a cookie, say) is that of an older thread.
        do {
            thread = ThreadId{base::make_uuid_v7()};
        } while (&pool.of(thread) != &pool.of(hinted));
        row = co_await shard.create_thread(thread, text, scheduler::IfExists::raise, ttl);
    }
    if (!row) {
        co_return std::move(row).error();
    }
    co_return Answer{json_response(200, thread_json(*row, std::nullopt))};
}

base::Task<Api::Outcome> Api::get_thread(Call& call) {
    const auto include = call.query.list("include");
    for (const auto& part : include) {
        if (part != "ttl") {
            co_return Error{ErrorCode::invalid_argument, "include must be ttl", "include"};
        }
    }
    const auto thread = *ThreadId::parse(call.request.params[0]);
    const auto row = co_await base::from_callback<base::Result<storage::ThreadRow>>(
        [&](auto done) { store().load_thread(thread, std::move(done)); });
    if (!row) {
        co_return row.error();
    }
    if (is_over(*row)) {
        co_return Error{ErrorCode::not_found, "Thread not found", "thread_id"};
    }
    std::optional<std::string> values;
    if (row->head != storage::kNoSeq) {
        auto state = co_await scheduler_.of(thread).load_state(thread, std::nullopt);
        if (!state) {
            co_return std::move(state).error();
        }
        if (*state) {
            values = std::move((*state)->values);
        }
    }
    co_return Answer{json_response(200, thread_json(*row, values, {}, !include.empty()))};
}

base::Task<Api::Outcome> Api::patch_thread(Call& call) {
    const auto thread = *ThreadId::parse(call.request.params[0]);
    const auto json = parse_body(call.request.body);
    if (!json) {
        co_return json.error();
    }
    Fields body{*json};
    const auto* metadata = body.object("metadata");
    const auto ttl = read_ttl(body);
    if (auto status = body.finish(); !status) {
        co_return std::move(status).error();
    }

    const auto changes = metadata == nullptr ? base::Json::object() : *metadata;
    using Row = base::Result<storage::ThreadRow>;
    std::function<base::Task<Row>()> operation = [&] {
        return scheduler_.of(thread).patch_thread(thread, changes, ttl);
    };
    auto row = co_await with_owner<Row>(call, std::move(operation));
    if (!row) {
        co_return std::move(row).error();
    }
    const auto* prefer = call.request.find_header("prefer");
    if (prefer != nullptr && prefer->find("return=minimal") != std::string::npos) {
        co_return Answer{Response{204, {}, {}}};
    }
    std::optional<std::string> values;
    if (row->head != storage::kNoSeq) {
        auto state = co_await scheduler_.of(thread).load_state(thread, std::nullopt);
        if (!state) {
            co_return std::move(state).error();
        }
        if (*state) {
            values = std::move((*state)->values);
        }
    }
    co_return Answer{json_response(200, thread_json(*row, values))};
}

base::Task<Api::Outcome> Api::delete_thread(Call& call) {
    const auto thread = *ThreadId::parse(call.request.params[0]);
    std::function<base::Task<base::Status>()> operation = [&] {
        return scheduler_.of(thread).delete_thread(thread);
    };
    auto status = co_await with_owner<base::Status>(call, std::move(operation));
    if (!status) {
        co_return std::move(status).error();
    }
    co_return Answer{Response{204, {}, {}}};
}

base::Task<Api::Outcome> Api::search_threads(Call& call) {
    const auto json = parse_body(call.request.body);
    if (!json) {
        co_return json.error();
    }
    Fields body{*json};
    auto filter = read_filter(body);
    read_order(body, filter);
    const auto select = read_select(body);
    if (auto status = body.finish(); !status) {
        co_return std::move(status).error();
    }

    const auto rows = co_await base::from_callback<base::Result<std::vector<storage::ThreadRow>>>(
        [&](auto done) { store().search_threads(filter, std::move(done)); });
    if (!rows) {
        co_return rows.error();
    }
    const bool wants_values =
        select.empty() || std::find(select.begin(), select.end(), "values") != select.end();
    std::vector<std::optional<std::string>> values(rows->size());
    if (wants_values) {
        auto& shard = scheduler_.of(*ThreadId::parse(call.request.thread_id));
        auto loaded = co_await load_values(shard, *rows);
        if (!loaded) {
            co_return std::move(loaded).error();
        }
        values = std::move(*loaded);
    }
    std::string text = "[";
    for (std::size_t i = 0; i < rows->size(); ++i) {
        if (i > 0) {
            text += ',';
        }
        text += thread_json((*rows)[i], values[i], select);
    }
    text += ']';
    auto response = json_response(200, std::move(text));

    const auto seen =
        static_cast<std::int64_t>(filter.offset) + static_cast<std::int64_t>(rows->size());
    const bool is_last = rows->size() < static_cast<std::size_t>(filter.limit);
    auto total = seen;
    if (!is_last || rows->empty()) {
        filter.count_max = std::max(kTotalMax, seen + 1);
        const auto count = co_await base::from_callback<base::Result<std::int64_t>>(
            [&](auto done) { store().count_threads(filter, std::move(done)); });
        if (!count) {
            co_return count.error();
        }
        total = *count;
    }
    response.headers.emplace_back("x-pagination-total", std::to_string(total));
    if (seen < total && !rows->empty()) {
        response.headers.emplace_back("x-pagination-next", std::to_string(seen));
    }
    co_return Answer{std::move(response)};
}

base::Task<Api::Outcome> Api::count_threads(Call& call) {
    const auto json = parse_body(call.request.body);
    if (!json) {
        co_return json.error();
    }
    Fields body{*json};
    const auto filter = read_filter(body);
    if (auto status = body.finish(); !status) {
        co_return std::move(status).error();
    }
    const auto count = co_await base::from_callback<base::Result<std::int64_t>>(
        [&](auto done) { store().count_threads(filter, std::move(done)); });
    if (!count) {
        co_return count.error();
    }
    co_return Answer{json_response(200, std::to_string(*count))};
}

}  // namespace heddle::api
