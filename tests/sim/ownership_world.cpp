#include "tests/sim/ownership_world.hpp"

#include <algorithm>
#include <array>

namespace heddle::sim {
namespace {

using storage::ClaimOutcome;

// A heartbeat is then as old as it can be in four ways: new, within its lease, at the very end of
// it, and (after both steps, or the first one twice) past it.
constexpr base::Duration kOverHalf = OwnershipWorld::kLease / 2 + std::chrono::microseconds{1};

template <class Tag>
base::Id<Tag> make_id(std::size_t number) {
    base::Id<Tag> id;
    id.uuid.bytes[14] = static_cast<std::uint8_t>(number >> 8U);
    id.uuid.bytes[15] = static_cast<std::uint8_t>(number);
    return id;
}
base::EngineId id_of(EngineNumber engine) {
    return make_id<base::EngineTag>(engine + 1);
}
base::ThreadId the_thread() {
    return make_id<base::ThreadTag>(1);
}
base::RunId the_run() {
    return make_id<base::RunTag>(1);
}

/// The memory driver answers before the call returns.
template <class T, class Call>
T answer_of(Call call) {
    std::optional<T> answer;
    call([&answer](T value) { answer.emplace(std::move(value)); });
    return *std::move(answer);
}

template <class T>
char digit(T value) {
    return static_cast<char>('0' + static_cast<int>(value));
}

bool is_same(const storage::JournalRow& a, const storage::JournalRow& b) {
    return a.seq == b.seq && a.parent == b.parent && a.checkpoint_id == b.checkpoint_id &&
           a.run_id == b.run_id && a.data == b.data && a.created_at_us == b.created_at_us;
}

}  // namespace

std::string_view to_string(Act act) noexcept {
    constexpr std::array<std::string_view, 22> kNames{"start",
                                                      "register_anew",
                                                      "heartbeat",
                                                      "heartbeat_sent",
                                                      "heartbeat_arrives",
                                                      "claim",
                                                      "step",
                                                      "finish",
                                                      "release",
                                                      "claim_sent",
                                                      "step_sent",
                                                      "finish_sent",
                                                      "release_sent",
                                                      "arrives",
                                                      "disconnect",
                                                      "ghost_arrives",
                                                      "ghost_is_lost",
                                                      "abandon",
                                                      "unregister",
                                                      "crash",
                                                      "over_half_a_lease_passes",
                                                      "a_lease_passes"};
    return kNames.at(static_cast<std::size_t>(act));
}

OwnershipWorld::OwnershipWorld(const Bounds& bounds) : bounds_{bounds} {
    limits_.lease = kLease;
    reader_ = storage::make_memory_store(database_, limits_, metrics_);
}

void OwnershipWorld::expect(bool holds, std::string_view claim) {
    if (!holds && failure_.empty()) {
        failure_ = claim;
    }
}

OwnershipWorld::Request::Kind OwnershipWorld::kind_of(Act act, Act first) {
    return static_cast<Request::Kind>(static_cast<int>(act) - static_cast<int>(first));
}

Act OwnershipWorld::act_of(Request::Kind kind, Act first) {
    return static_cast<Act>(static_cast<int>(first) + static_cast<int>(kind));
}

// ---- what can happen

int OwnershipWorld::alive() const {
    return static_cast<int>(std::count_if(processes_.begin(), processes_.end(),
                                          [](const auto& process) { return process.is_alive; }));
}

int OwnershipWorld::in_flight() const {
    std::size_t total = 0;
    for (const auto& process : processes_) {
        total += process.line.size() + process.ghosts.size() + (process.heartbeat ? 1U : 0U);
    }
    return static_cast<int>(total);
}

std::vector<Action> OwnershipWorld::actions() const {
    std::vector<Action> actions{{Act::over_half_a_lease_passes}, {Act::a_lease_passes}};
    if (alive() < bounds_.processes) {
        actions.push_back({Act::start});
    }
    const bool may_send = in_flight() < bounds_.in_flight;
    for (std::size_t i = 0; i < processes_.size(); ++i) {
        add_actions(actions, static_cast<std::uint8_t>(i), may_send);
    }
    return actions;
}

void OwnershipWorld::add_actions(std::vector<Action>& actions,
                                 std::uint8_t number,
                                 bool may_send) const {
    const auto& process = processes_[number];
    const auto add = [&](Act act, bool is_possible) {
        if (is_possible) {
            actions.push_back({act, number});
        }
    };
    add(Act::heartbeat_arrives, process.heartbeat.has_value());
    add(Act::ghost_arrives, !process.ghosts.empty());
    add(Act::ghost_is_lost, !process.ghosts.empty());
    if (!process.is_alive) {
        return;
    }
    add(Act::register_anew, true);
    add(Act::heartbeat, true);
    add(Act::unregister, true);
    add(Act::crash, true);
    add(Act::arrives, !process.line.empty());
    add(Act::disconnect, !process.line.empty());
    add(Act::abandon, process.session.has_value());
    add(Act::heartbeat_sent, may_send && !process.heartbeat);
    for (const auto kind : sendable(process)) {
        add(act_of(kind, Act::claim), process.line.empty());
        add(act_of(kind, Act::claim_sent), may_send);
    }
}

std::vector<OwnershipWorld::Request::Kind> OwnershipWorld::sendable(const Process& process) const {
    using Kind = Request::Kind;
    const auto& session = process.session;
    if (!session) {
        const auto is_claim = [](const Request& each) { return each.kind == Kind::claim; };
        const bool waits = std::any_of(process.line.begin(), process.line.end(), is_claim);
        return waits ? std::vector<Kind>{} : std::vector{Kind::claim};
    }
    // One write at a time: if it is lost, none may follow that counts on it.
    if (!process.line.empty() && bounds_.fault != Fault::writes_overlap) {
        return {};
    }
    std::vector kinds{Kind::release};
    const auto rows = session->head + 1;
    const bool may_run = !session->run || !storage::is_final(*session->run);
    if (may_run && rows + 1 < bounds_.rows) {
        kinds.push_back(Kind::step);
    }
    if (may_run && session->run && rows < bounds_.rows) {
        kinds.push_back(Kind::finish);
    }
    return kinds;
}

// ---- what happens

void OwnershipWorld::apply(Action action) {
    if (action.act == Act::start) {
        processes_.emplace_back().engine = register_engine();
        return;
    }
    if (action.act == Act::over_half_a_lease_passes || action.act == Act::a_lease_passes) {
        spec_.advance(action.act == Act::a_lease_passes ? kLease : kOverHalf);
        return;
    }
    auto& process = processes_[action.process];
    switch (action.act) {
        case Act::register_anew:
            process.engine = register_engine();
            break;
        case Act::heartbeat:
            beat(process.engine);
            break;
        case Act::heartbeat_sent:
            process.heartbeat = process.engine;
            break;
        case Act::heartbeat_arrives:
            beat(*std::exchange(process.heartbeat, std::nullopt));
            break;
        case Act::claim:
        case Act::step:
        case Act::finish:
        case Act::release:
            send(process, kind_of(action.act, Act::claim));
            deliver(process);
            break;
        case Act::claim_sent:
        case Act::step_sent:
        case Act::finish_sent:
        case Act::release_sent:
            send(process, kind_of(action.act, Act::claim_sent));
            break;
        case Act::arrives:
            deliver(process);
            break;
        case Act::ghost_arrives:
            deliver_ghost(process);
            break;
        case Act::ghost_is_lost:
            process.ghosts.pop_front();
            break;
        case Act::abandon:
            process.session.reset();
            break;
        case Act::unregister:
            stores_[process.engine]->unregister_engine(
                [this](const base::Status& status) { expect(status.has_value(), "unregistered"); });
            spec_.remove_engine(process.engine);
            process.is_alive = false;
            end(process);
            break;
        case Act::crash:
            process.is_alive = false;
            end(process);
            break;
        case Act::disconnect:
            end(process);
            break;
        case Act::start:
        case Act::over_half_a_lease_passes:
        case Act::a_lease_passes:
            break;  // done above
    }
}

/// The end of a connection: what was sent on it may arrive, and nobody is told.
void OwnershipWorld::end(Process& process) {
    process.ghosts.insert(process.ghosts.end(), process.line.begin(), process.line.end());
    process.line.clear();
    process.session.reset();
}

EngineNumber OwnershipWorld::register_engine() {
    const auto engine = spec_.add_engine();
    stores_.push_back(storage::make_memory_store(database_, limits_, metrics_));
    storage::EngineRow row;
    row.id = id_of(engine);
    row.endpoint = "engine-" + std::to_string(engine);
    stores_.back()->register_engine(
        row, [this](const base::Status& status) { expect(status.has_value(), "registered"); });
    return engine;
}

void OwnershipWorld::beat(EngineNumber engine) {
    auto& store = *stores_[engine];
    const auto skew_us = std::chrono::duration_cast<std::chrono::microseconds>(bounds_.skew);
    if (bounds_.fault == Fault::local_clocks_count) {
        clock_.ahead_us = engine % 2 == 0 ? skew_us.count() : -skew_us.count();
    }
    auto status =
        answer_of<base::Status>([&store](auto done) { store.heartbeat(false, std::move(done)); });
    clock_.ahead_us = 0;
    const auto expected = spec_.beat(engine);
    if (bounds_.fault == Fault::late_heartbeats_count && expected == OwnershipSpec::Beat::expired) {
        storage::EngineRow row;
        row.id = id_of(engine);
        status = answer_of<base::Status>(
            [&store, &row](auto done) { store.register_engine(row, std::move(done)); });
    }
    switch (expected) {
        case OwnershipSpec::Beat::renewed:
            expect(status.has_value(), "a heartbeat within the lease renews it");
            break;
        case OwnershipSpec::Beat::expired:
            expect(!status && status.error().code == base::ErrorCode::stale_epoch,
                   "a heartbeat after the lease is refused");
            break;
        case OwnershipSpec::Beat::unknown:
            expect(!status && status.error().code == base::ErrorCode::not_found,
                   "a heartbeat of an engine without a row is refused");
            break;
    }
}

void OwnershipWorld::send(Process& process, Request::Kind kind) {
    Request request;
    request.kind = kind;
    request.engine = process.engine;
    if (kind == Request::Kind::claim) {
        process.line.push_back(std::move(request));
        return;
    }
    auto& session = *process.session;
    auto& write = request.write;
    write.key = session.key;
    write.thread_id = the_thread();
    write.epoch = session.epoch;
    if (kind == Request::Kind::release) {
        write.release = true;
        process.line.push_back(std::move(request));
        return;
    }
    const auto skew_us = std::chrono::duration_cast<std::chrono::microseconds>(bounds_.skew);
    const auto local_us = spec_.now_us() + (process.engine % 2 == 0 ? 1 : -1) * skew_us.count();
    auto& row = write.journal.emplace_back();
    row.seq = session.head + 1;
    row.parent = session.head;
    row.checkpoint_id = make_id<base::CheckpointTag>(static_cast<std::size_t>(++rows_made_));
    row.run_id = the_run();
    row.data = "row " + std::to_string(rows_made_);
    row.created_at_us = local_us;
    const auto status =
        kind == Request::Kind::finish ? storage::RunStatus::success : storage::RunStatus::running;
    if (!session.run) {
        auto& run = write.new_runs.emplace_back();
        run.id = the_run();
        run.status = status;
        run.error = row.data;
        run.created_at_us = local_us;
    } else {
        write.run_updates.push_back({the_run(), status, 1, row.data});
    }
    session.head = row.seq;
    session.run = status;
    process.line.push_back(std::move(request));
}

void OwnershipWorld::deliver(Process& process) {
    const auto request = std::move(process.line.front());
    process.line.pop_front();
    if (request.kind == Request::Kind::claim) {
        process.session = carry_out_claim(request.engine);
        return;
    }
    const bool is_written = carry_out_write(request.engine, request.write);
    const bool is_of_session = process.session && process.session->epoch == request.write.epoch;
    if (is_of_session && (!is_written || request.write.release)) {
        process.session.reset();
    }
}

void OwnershipWorld::deliver_ghost(Process& process) {
    const auto request = std::move(process.ghosts.front());
    process.ghosts.pop_front();
    if (request.kind == Request::Kind::claim) {
        (void)carry_out_claim(request.engine);
    } else {
        (void)carry_out_write(request.engine, request.write);
    }
}

std::optional<OwnershipWorld::Session> OwnershipWorld::carry_out_claim(EngineNumber engine) {
    const auto owner = spec_.owner();
    const auto epoch_before = spec_.epoch();
    const bool is_of_another = owner && *owner != engine;
    if (bounds_.fault == Fault::the_live_are_robbed && is_of_another) {
        stores_[*owner]->unregister_engine([](const base::Status&) {});
    }
    storage::ThreadClaim claim;
    claim.thread_id = the_thread();
    claim.create_if_missing = true;
    auto answer = answer_of<base::Result<ClaimOutcome>>(
        [&](auto done) { stores_[engine]->claim(claim, std::move(done)); });
    if (!answer) {
        expect(false, "a claim is answered");
        return std::nullopt;
    }
    if (bounds_.fault == Fault::the_dead_are_spared && is_of_another) {
        answer->kind = ClaimOutcome::Kind::owned_elsewhere;
    }
    const auto& outcome = *answer;
    if (spec_.claim(engine) == OwnershipSpec::Claim::owned_elsewhere) {
        expect(outcome.kind == ClaimOutcome::Kind::owned_elsewhere, "a live owner is not robbed");
        expect(outcome.owner == id_of(*owner), "a refused claim names the owner");
        return std::nullopt;
    }
    expect(outcome.kind != ClaimOutcome::Kind::owned_elsewhere,
           "a thread of nobody alive may be claimed at once");
    expect((outcome.kind == ClaimOutcome::Kind::created) == (epoch_before == 0),
           "a thread is created once");
    expect(outcome.epoch > epoch_before, "a claim raises the epoch");
    const auto& run = spec_.run();
    const bool is_open = run && !storage::is_final(run->status);
    expect(outcome.unfinished_runs.size() == (is_open ? 1U : 0U),
           "a claim brings the run that has not ended");
    Session session;
    session.key = outcome.thread.key;
    session.epoch = outcome.epoch;
    session.head = outcome.thread.head;
    if (run) {
        session.run = run->status;
    }
    return session;
}

base::Status OwnershipWorld::write_with_fault(EngineNumber engine, storage::ThreadWrite write) {
    if (bounds_.fault == Fault::writes_vanish && spec_.may_write(engine, write)) {
        return base::ok();
    }
    if (bounds_.fault == Fault::stale_epochs_pass && spec_.owner() == engine) {
        write.epoch = spec_.epoch();
    }
    if (bounds_.fault == Fault::strangers_pass && spec_.owner()) {
        engine = *spec_.owner();
    }
    return answer_of<base::Status>(
        [&](auto done) { stores_[engine]->write(std::move(write), std::move(done)); });
}

bool OwnershipWorld::carry_out_write(EngineNumber engine, const storage::ThreadWrite& write) {
    const auto status = write_with_fault(engine, write);
    if (status) {
        const auto wrong = spec_.accept(engine, write);
        expect(wrong.empty(), wrong);
        return true;
    }
    expect(!spec_.may_write(engine, write), "the owner's write with its epoch is accepted");
    expect(status.error().code == base::ErrorCode::stale_epoch, "a refused write is a stale one");
    return false;
}

// ---- what must hold

void OwnershipWorld::check() {
    check_engines();
    check_sessions();
    check_thread();
}

void OwnershipWorld::check_engines() {
    std::vector<base::EngineId> expected;
    for (EngineNumber engine = 0; engine < spec_.engines(); ++engine) {
        if (spec_.is_alive(engine)) {
            expected.push_back(id_of(engine));
        }
    }
    const auto listed = answer_of<base::Result<std::vector<storage::EngineRow>>>(
        [&](auto done) { reader_->list_engines(std::move(done)); });
    std::vector<base::EngineId> seen;
    for (const auto& row : *listed) {
        seen.push_back(row.id);
    }
    expect(seen == expected, "the engines alive are those heard of within a lease");

    const auto orphans = answer_of<base::Result<std::vector<base::ThreadId>>>(
        [&](auto done) { reader_->find_orphans(1, std::move(done)); });
    expect(orphans->size() == (spec_.is_orphan() ? 1U : 0U),
           "an orphan is a thread with a run that has not ended and no owner alive");
}

void OwnershipWorld::check_sessions() {
    const auto is_current = [this](const Process& process) {
        return process.session && process.session->epoch == spec_.epoch() && spec_.owner();
    };
    const auto holders = std::count_if(processes_.begin(), processes_.end(), is_current);
    expect(holders <= 1, "at most one session has the current epoch");
}

void OwnershipWorld::check_thread() {
    const auto thread = answer_of<base::Result<storage::ThreadRow>>(
        [&](auto done) { reader_->load_thread(the_thread(), std::move(done)); });
    expect(thread.has_value() == spec_.is_created(), "a thread that was claimed is there");
    if (!thread) {
        return;
    }
    const auto& accepted = spec_.journal();
    const auto rows = answer_of<base::Result<std::vector<storage::JournalRow>>>(
        [&](auto done) { reader_->load_chain(the_thread(), storage::kNoSeq, std::move(done)); });
    expect(thread->head + 1 == static_cast<storage::Seq>(accepted.size()),
           "the head is the row accepted last");
    expect(rows && rows->size() == accepted.size() &&
               std::equal(rows->begin(), rows->end(), accepted.begin(), is_same),
           "the journal is what was accepted, unchanged and in order");
    const auto listed = answer_of<base::Result<std::vector<storage::JournalRow>>>([&](auto done) {
        reader_->list_journal(the_thread(), storage::kNoSeq, 1000, std::move(done));
    });
    expect(listed && listed->size() == accepted.size(), "the journal has no further rows");

    const auto run = answer_of<base::Result<storage::RunRow>>(
        [&](auto done) { reader_->load_run(the_thread(), the_run(), std::move(done)); });
    const auto& expected = spec_.run();
    expect(run.has_value() == expected.has_value(), "a run is there once it was accepted");
    expect(!run || !expected || (run->status == expected->status && run->error == expected->error),
           "the run is as it was written last");
}

// ---- the name of a state

std::string OwnershipWorld::key() const {
    std::vector<std::string> parts;
    bool has_owner = false;
    for (const auto& process : processes_) {
        if (process.is_alive || process.heartbeat || !process.ghosts.empty()) {
            parts.push_back(key_of(process, has_owner));
        }
    }
    std::sort(parts.begin(), parts.end());
    std::string key{spec_.is_created() ? 't' : '-', digit(spec_.journal().size()),
                    spec_.run() ? digit(spec_.run()->status) : '-'};
    if (spec_.owner() && !has_owner) {
        key += {'O', digit(spec_.age_of(*spec_.owner()))};
    }
    for (const auto& part : parts) {
        key += ' ' + part;
    }
    return key;
}

std::string OwnershipWorld::key_of(const Process& process, bool& has_owner) const {
    std::vector<EngineNumber> engines{process.engine};  // the process's ids, by first mention
    const auto name_of = [&engines](EngineNumber engine) {
        const auto at = std::find(engines.begin(), engines.end(), engine);
        const auto name = at - engines.begin();
        if (at == engines.end()) {
            engines.push_back(engine);
        }
        return digit(name);
    };
    // Of what is of an older epoch no more is told: whatever it says, it must be refused.
    const auto is_current = [this](storage::Epoch epoch) { return epoch == spec_.epoch(); };
    std::string key;
    key += process.is_alive ? 'a' : 'd';
    if (process.session) {
        const auto& session = *process.session;
        key += 's';
        if (is_current(session.epoch)) {
            key += {digit(session.head + 1), session.run ? digit(*session.run) : '-'};
        }
    }
    if (process.heartbeat) {
        key += {'h', name_of(*process.heartbeat)};
    }
    for (const auto* queue : {&process.line, &process.ghosts}) {
        key += '|';
        for (const auto& each : *queue) {
            key += {digit(each.kind), name_of(each.engine)};
            if (each.kind != Request::Kind::claim && is_current(each.write.epoch)) {
                key += {'c', digit(each.write.journal.empty() ? 0 : each.write.journal[0].seq)};
            }
        }
    }
    for (const auto engine : engines) {
        const bool is_owner = spec_.owner() == engine;
        has_owner = has_owner || is_owner;
        key += {is_owner ? 'O' : 'e', digit(spec_.age_of(engine))};
    }
    return key;
}

}  // namespace heddle::sim
