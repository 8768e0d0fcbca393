#include "tests/conformance/fixture.hpp"

namespace heddle::conformance {

using base::Result;
using base::Status;

Engine::Engine(std::unique_ptr<storage::Store> opened, const std::string& endpoint)
    : store_{std::move(opened)}, id_{base::make_uuid_v7()} {
    const auto register_once = [&] {
        return call<Status>([&](auto done) {
            store_->register_engine(storage::EngineRow{id_, endpoint, false}, std::move(done));
        });
    };
    auto registered = register_once();
    for (int i = 0; i < 10 && !registered && registered.error().code == ErrorCode::timeout; ++i) {
        registered = register_once();  // it has no longer than a lease, which may be short
    }
    EXPECT_TRUE(registered) << registered.error().message;
}

template <class T, class Start>
T Engine::call_in_loop(Start start) {
    if (loop_ == nullptr) {
        return call<T>(std::move(start));
    }
    return call<T>([&](base::Completion<T> done) {
        loop_->post([&start, done = std::move(done)]() mutable { start(std::move(done)); });
    });
}

Status Engine::heartbeat(bool draining) {
    return call<Status>([&](auto done) { store_->heartbeat(draining, std::move(done)); });
}
Status Engine::unregister() {
    return call<Status>([&](auto done) { store_->unregister_engine(std::move(done)); });
}
std::vector<storage::EngineRow> Engine::engines() {
    auto rows = call<Result<std::vector<storage::EngineRow>>>(
        [&](auto done) { store_->list_engines(std::move(done)); });
    EXPECT_TRUE(rows);
    return rows ? std::move(rows).value() : std::vector<storage::EngineRow>{};
}
Result<ClaimOutcome> Engine::try_claim(const base::ThreadId& thread,
                                       bool create,
                                       std::string metadata) {
    return call<Result<ClaimOutcome>>([&](auto done) {
        storage::ThreadClaim claim;
        claim.thread_id = thread;
        claim.create_if_missing = create;
        claim.metadata = std::move(metadata);
        store_->claim(std::move(claim), std::move(done));
    });
}
ClaimOutcome Engine::claim(const base::ThreadId& thread, std::string metadata) {
    auto outcome = try_claim(thread, true, std::move(metadata));
    if (!outcome) {
        ADD_FAILURE() << "claim: " << outcome.error().message;
        return {};
    }
    EXPECT_TRUE(outcome->kind == ClaimOutcome::Kind::claimed ||
                outcome->kind == ClaimOutcome::Kind::created);
    return std::move(outcome).value();
}
Result<storage::ThreadKey> Engine::create(storage::ThreadClaim claim, ThreadWrite first) {
    return call_in_loop<Result<storage::ThreadKey>>(
        [&](auto done) { store_->create(std::move(claim), std::move(first), std::move(done)); });
}
Status Engine::write(ThreadWrite write) {
    return call_in_loop<Status>(
        [&](auto done) { store_->write(std::move(write), std::move(done)); });
}
std::vector<base::ThreadId> Engine::orphans() {
    auto found = call<Result<std::vector<base::ThreadId>>>(
        [&](auto done) { store_->find_orphans(1000, std::move(done)); });
    EXPECT_TRUE(found);
    return found ? std::move(found).value() : std::vector<base::ThreadId>{};
}

Result<storage::ThreadRow> Engine::thread(const base::ThreadId& thread) {
    return call<Result<storage::ThreadRow>>(
        [&](auto done) { store_->load_thread(thread, std::move(done)); });
}
Result<std::vector<JournalRow>> Engine::chain(const base::ThreadId& thread, storage::Seq at) {
    return call<Result<std::vector<JournalRow>>>(
        [&](auto done) { store_->load_chain(thread, at, std::move(done)); });
}
Result<std::optional<storage::StateRows>> Engine::newest(const base::ThreadId& thread) {
    return call<Result<std::optional<storage::StateRows>>>(
        [&](auto done) { store_->load_newest(thread, std::move(done)); });
}
Result<std::vector<JournalRow>> Engine::chain_of(const base::ThreadId& thread,
                                                 const base::CheckpointId& checkpoint) {
    return call<Result<std::vector<JournalRow>>>(
        [&](auto done) { store_->load_chain_of(thread, checkpoint, std::move(done)); });
}
Result<std::vector<JournalRow>> Engine::journal(const base::ThreadId& thread,
                                                storage::Seq before,
                                                std::int32_t limit) {
    return call<Result<std::vector<JournalRow>>>(
        [&](auto done) { store_->list_journal(thread, before, limit, std::move(done)); });
}
std::vector<storage::ToolCallRow> Engine::tool_calls(const base::ThreadId& thread,
                                                     storage::Seq seq) {
    auto rows = call<Result<std::vector<storage::ToolCallRow>>>(
        [&](auto done) { store_->load_tool_calls(thread, seq, std::move(done)); });
    EXPECT_TRUE(rows);
    return rows ? std::move(rows).value() : std::vector<storage::ToolCallRow>{};
}
Result<RunRow> Engine::run(const base::ThreadId& thread, const base::RunId& run) {
    return call<Result<RunRow>>([&](auto done) { store_->load_run(thread, run, std::move(done)); });
}
Result<RunRow> Engine::find_run(const base::RunId& run) {
    return call<Result<RunRow>>([&](auto done) { store_->find_run(run, std::move(done)); });
}
Result<std::vector<RunRow>> Engine::runs(const base::ThreadId& thread, storage::RunFilter filter) {
    return call<Result<std::vector<RunRow>>>(
        [&](auto done) { store_->list_runs(thread, filter, std::move(done)); });
}
Result<std::vector<storage::ThreadRow>> Engine::search(storage::ThreadFilter filter) {
    return call<Result<std::vector<storage::ThreadRow>>>(
        [&](auto done) { store_->search_threads(std::move(filter), std::move(done)); });
}
Result<std::int64_t> Engine::count(storage::ThreadFilter filter) {
    return call<Result<std::int64_t>>(
        [&](auto done) { store_->count_threads(std::move(filter), std::move(done)); });
}

base::ThreadId new_thread_id() {
    return base::ThreadId{base::make_uuid_v7()};
}
base::RunId new_run_id() {
    return base::RunId{base::make_uuid_v7()};
}

JournalRow make_row(storage::Seq seq, storage::Seq base) {
    JournalRow row;
    row.seq = seq;
    row.parent = seq - 1;
    row.base = base;
    row.checkpoint_id = base::CheckpointId{base::make_uuid_v6()};
    row.run_id = new_run_id();
    row.step = static_cast<std::int32_t>(seq) - 1;
    row.head = R"({"source":"loop","step":)" + std::to_string(seq) + "}";
    row.data = std::string{"\0\x01\xff'\\ delta ", 11} + std::to_string(seq);
    row.created_at_us = 1'700'000'000'000'000 + seq;
    return row;
}

RunRow make_run(const base::ThreadId& thread, std::int64_t created_at_us) {
    RunRow run;
    run.id = new_run_id();
    run.thread_id = thread;
    run.assistant_id = base::AssistantId{base::make_uuid_v7()};
    run.metadata = R"({"who":"Zoë \u0000"})";
    run.kwargs = R"({"input":{"messages":["¿Qué?"]}})";
    run.request_hash = std::string{"\0\xfe hash", 7};
    run.created_at_us = created_at_us;
    run.updated_at_us = created_at_us;
    return run;
}

ThreadWrite make_write(const ClaimOutcome& outcome) {
    ThreadWrite write;
    write.key = outcome.thread.key;
    write.thread_id = outcome.thread.id;
    write.epoch = outcome.epoch;
    return write;
}

ErrorCode code_of(const Status& status) {
    EXPECT_FALSE(status.has_value()) << "an error was expected";
    return status ? ErrorCode::internal : status.error().code;
}

base::Json parsed(const std::string& text) {
    auto json = base::parse_stored_json(text);
    EXPECT_TRUE(json) << text;
    return json ? std::move(json).value() : base::Json{};
}

std::vector<storage::Seq> seqs(const std::vector<JournalRow>& rows) {
    std::vector<storage::Seq> found;
    found.reserve(rows.size());
    for (const auto& row : rows) {
        found.push_back(row.seq);
    }
    return found;
}

void StoreTest::SetUp() {
    backend_ = make_backend(GetParam());
}

std::unique_ptr<Engine> StoreTest::open_engine(base::Duration lease) {
    auto limits = limits_;
    limits.lease = lease;
    auto store = backend_->open(limits);
    if (store == nullptr) {
        std::abort();
    }
    const std::string endpoint = "ipc:///engine-" + base::make_uuid_v7().to_string();
    return std::make_unique<Engine>(std::move(store), endpoint);
}

}  // namespace heddle::conformance
