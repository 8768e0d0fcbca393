#include "tests/sim/ledger.hpp"

#include <algorithm>

namespace heddle::sim {
namespace {

std::vector<std::string> texts_of(const base::Json& values) {
    std::vector<std::string> texts;
    const auto log = values.find("log");
    if (log != values.end()) {
        for (const auto& each : *log) {
            texts.push_back(each.get<std::string>());
        }
    }
    return texts;
}

std::string tag_of(const std::string& entry) {
    return entry.substr(0, entry.find('/'));
}

}  // namespace

Told& Ledger::add(Told told) {
    const auto tag = told.plan.tag;
    by_thread_[told.thread].push_back(tag);
    told.asked_at = world_.now();
    return told_.emplace(tag, std::move(told)).first->second;
}

void Ledger::accepted(const std::string& tag, bool by_engine) {
    auto& told = told_.at(tag);
    if (!told.accepted_at) {
        told.accepted_at = world_.now();
    }
    if (by_engine && told.run && !watch_.ever(*told.run)) {
        world_.fail("{} was accepted and is not in the store", tag);
    }
}

void Ledger::outcome(Told& told, bool success) {
    const auto& tag = told.plan.tag;
    (success ? told.succeeded : told.failed) = true;
    if (success) {
        succeeded_at_.emplace(tag, world_.now());
    }
    if (!told.run) {
        return;
    }
    const auto* run = watch_.find_run(told.thread, *told.run);
    if (run == nullptr) {
        // One that was taken back before it was stored has not failed anybody either.
        if (success || (watch_.ever(*told.run) && !watch_.was_deleted(*told.run))) {
            world_.fail("{} was told to have ended and is not in the store", tag);
        }
        return;
    }
    const bool is_success = run->status == storage::RunStatus::success;
    if (!storage::is_final(run->status) || is_success != success) {
        // Taken back, and begun again by a repeat of its request: both answers are right.
        if (!watch_.was_ever_deleted(*told.run)) {
            world_.fail("{} was told to have ended with {}, in the store it is {}", tag,
                        success ? "success" : "failure", to_string(run->status));
        }
    }
}

void Ledger::event(Reading& reading, const StreamEvent& event) {
    auto& told = told_.at(reading.tag);
    const auto id = scheduler::EventId::parse(event.id);
    if (!id) {
        world_.fail("{}: event {} has no id: {}", reading.tag, event.name, event.data);
        return;
    }
    if (reading.begun && *id <= reading.last) {
        world_.fail("{}: event {} ({}) came after {}", reading.tag, id->to_string(), event.name,
                    reading.last.to_string());
    }
    reading.begun = true;
    reading.last = *id;
    world_.note("{} reads {}.{}.{} {}", reading.tag, id->rows, id->attempt, id->number, event.name);
    if (event.name == "error") {
        reading.has_error = true;
        return;
    }
    if (event.name == "metadata") {
        reading.attempt =
            id->attempt == 0 ? 1 : base::parse_stored_json(event.data)->value("attempt", 0U);
        return;
    }
    const bool is_step = id->attempt == 0;
    const bool is_end = id->attempt == scheduler::EventId::kAttemptMax;
    if (!is_step && !is_end && id->attempt > reading.attempt) {
        world_.fail("{}: {} of attempt {} was not announced", reading.tag, event.name, id->attempt);
    }
    if (event.name == "lost") {
        lost(reading, told, event);
        return;
    }
    const auto run = told.run ? watch_.find_run(told.thread, *told.run) : nullptr;
    if (told.exits || (told.run && watch_.was_ever_deleted(*told.run))) {
        return;
    }
    const auto [known, is_first] = told.events.emplace(event.id, event.data);
    if (!is_first && known->second != event.data) {
        world_.fail("{}: event {} was {} and is {}", reading.tag, event.id, known->second,
                    event.data);
    }
    if (!is_step || run == nullptr) {
        return;
    }
    const auto seq = static_cast<storage::Seq>(id->rows) - 1;
    const auto& journal = watch_.find_thread(told.thread)->journal;
    const auto row = journal.find(seq);
    if (row == journal.end() || row->second.run != *told.run) {
        world_.fail("{}: event {} was shown and row {} is not on disk", reading.tag, event.id, seq);
    }
    if (event.name == told.mode) {
        ++reading.steps[seq];
    }
}

// Its id is that of the last event that is missing; other readers may have had that one.
void Ledger::lost(const Reading& reading, const Told& told, const StreamEvent& event) {
    ++losses;
    const auto data = base::parse_stored_json(event.data);
    if (!data || data->value("code", std::string{}) != "events_lost") {
        world_.fail("{}: is told of a loss by {}", reading.tag, event.data);
        return;
    }
    for (const auto& mode : data->at("modes")) {
        if (mode == told.mode && !told.exits) {
            world_.fail("{}: events of supersteps are said to be lost: {}", reading.tag,
                        event.data);
        }
    }
}

void Ledger::stream_ended(const Reading& reading) {
    ++streams_read;
    auto& told = told_.at(reading.tag);
    outcome(told, !reading.has_error);
    if (!told.run || told.exits || told.mode.empty() || watch_.was_ever_deleted(*told.run)) {
        return;
    }
    const auto* thread = watch_.find_thread(told.thread);
    if (thread == nullptr) {
        return;
    }
    std::map<storage::Seq, std::size_t> expected;
    std::size_t planned = 0;
    bool after_input = false;
    for (const auto& [seq, row] : thread->journal) {
        if (row.run == *told.run && !row.is_input) {
            const auto events = told.mode == "values" ? 1 : after_input ? 0 : planned;
            if (events > 0 && static_cast<std::uint64_t>(seq) + 1 > reading.from.rows) {
                expected[seq] = events;
            }
        }
        planned = row.next;
        after_input = row.is_input;
    }
    // Where it began within a row's events, that row is not counted.
    auto seen = reading.steps;
    const auto first = static_cast<storage::Seq>(reading.from.rows) - 1;
    seen.erase(first);
    if (seen != expected) {
        std::string text;
        for (const auto& [seq, count] : expected) {
            const auto had = seen.find(seq);
            text +=
                fmt::format(" row {}: {} of {}", seq, had == seen.end() ? 0 : had->second, count);
        }
        world_.fail("{}: a stream has ended without all its {}:{} (rows read {})", reading.tag,
                    told.mode, text, seen.size());
    }
}

void Ledger::waited(const std::string& tag, const std::string& body) {
    ++waits_read;
    auto& told = told_.at(tag);
    const auto values = base::parse_stored_json(body);
    if (!values || !values->is_object()) {
        world_.fail("{}: the answer is {}", tag, body);
        return;
    }
    const bool success = !values->contains("__error__");
    outcome(told, success);
    if (told.run && watch_.was_ever_deleted(*told.run)) {
        return;
    }
    const auto text = body.substr(body.find_first_not_of(" \n"));
    if (told.values.empty()) {
        told.values = text;
    } else if (told.values != text) {
        world_.fail("{}: a repeat was answered with {} instead of {}", tag, text, told.values);
    }
    if (!success) {
        return;
    }
    std::vector<std::string> expected;
    for (const auto& step : entries_of(told.plan)) {
        expected.insert(expected.end(), step.begin(), step.end());
    }
    auto log = texts_of(*values);
    log.erase(log.begin(),
              log.end() - static_cast<std::ptrdiff_t>(std::min(log.size(), expected.size())));
    if (log != expected) {
        world_.fail("{}: succeeded with {}", tag, body);
    }
}

void Ledger::state(const base::ThreadId& thread, const base::Json& values, Duration since) {
    check_log(thread, values, since, false);
    const auto log = texts_of(values);
    for (const auto& tag : by_thread_[thread]) {
        const auto at = succeeded_at_.find(tag);
        if (at == succeeded_at_.end() || at->second >= since) {
            continue;
        }
        const auto last = entries_of(told_.at(tag).plan).back().back();
        if (std::find(log.begin(), log.end(), last) == log.end()) {
            world_.fail("{} succeeded and a later read does not show it", tag);
        }
    }
}

// The log is one run after the other, each whole superstep by whole superstep.
void Ledger::check_log(const base::ThreadId& thread,
                       const base::Json& values,
                       Duration since,
                       bool at_end) {
    const auto log = texts_of(values);
    std::set<std::string> seen;
    std::size_t at = 0;
    while (at < log.size()) {
        const auto tag = tag_of(log[at]);
        if (!seen.insert(tag).second || !told_.contains(tag)) {
            world_.fail("thread {}: run {} is in the history twice", thread.to_string(), tag);
            return;
        }
        const auto& told = told_.at(tag);
        bool is_whole = true;
        for (const auto& step : entries_of(told.plan)) {
            const bool has_step =
                at + step.size() <= log.size() &&
                std::equal(step.begin(), step.end(), log.begin() + static_cast<long>(at));
            is_whole = is_whole && has_step;
            at += is_whole ? step.size() : 0;
        }
        if (at < log.size() && tag_of(log[at]) == tag) {
            world_.fail("thread {}: {} does not follow in {}", thread.to_string(), log[at], tag);
            return;
        }
        // What was read may be of a moment before a run succeeded that has by now.
        const auto succeeded = succeeded_at_.find(tag);
        const bool had_succeeded =
            told.succeeded &&
            (at_end || (succeeded != succeeded_at_.end() && succeeded->second < since));
        if (had_succeeded && !is_whole) {
            world_.fail("{} succeeded and is not whole in its thread", tag);
        }
    }
    if (!at_end) {
        return;
    }
    for (const auto& tag : by_thread_[thread]) {
        const auto& told = told_.at(tag);
        if (told.succeeded && !seen.contains(tag)) {
            world_.fail("{} succeeded and is not in its thread", tag);
        }
        if (told.run && watch_.was_deleted(*told.run) && seen.contains(tag)) {
            world_.fail("{} was taken back and is in its thread", tag);
        }
    }
}

void Ledger::check_end(const base::ThreadId& thread, const base::Json& values) {
    check_log(thread, values, {}, true);
    const auto* held = watch_.find_thread(thread);
    for (const auto& tag : by_thread_[thread]) {
        const auto& told = told_.at(tag);
        if (!told.accepted_at || !told.run || watch_.was_deleted(*told.run)) {
            continue;
        }
        const auto* run = watch_.find_run(thread, *told.run);
        if (run == nullptr || !storage::is_final(run->status)) {
            world_.fail("{} was accepted and has not ended", tag);
        }
    }
    if (held != nullptr) {
        check_order(*held);
    }
}

// Who asked after another had been accepted is not served before it.
void Ledger::check_order(const StoreWatch::Thread& thread) {
    for (std::size_t i = 0; i < thread.begun.size(); ++i) {
        for (std::size_t j = i + 1; j < thread.begun.size(); ++j) {
            const auto first = told_.find(thread.begun[i]);
            const auto second = told_.find(thread.begun[j]);
            if (first == told_.end() || second == told_.end()) {
                continue;
            }
            const auto& accepted_at = second->second.accepted_at;
            if (accepted_at && *accepted_at < *first->second.asked_at &&
                !watch_.was_taken_back(second->first)) {
                world_.fail("{} was accepted before {} was asked for, and ran after it",
                            second->first, first->first);
            }
        }
    }
}

}  // namespace heddle::sim
