#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/scheduler/event_id.hpp"
#include "tests/sim/agent.hpp"
#include "tests/sim/edge.hpp"
#include "tests/sim/store_watch.hpp"

namespace heddle::sim {

/// What one request that starts a run was told, over all its repeats and all who joined the run.
struct Told {
    Plan plan;
    base::ThreadId thread;
    std::string strategy;
    std::string mode;    ///< the stream mode that step events are counted by, or empty
    bool exits = false;  ///< durability exit: events are shown before they are on disk
    std::optional<base::RunId> run;
    std::optional<Duration> asked_at;
    std::optional<Duration> accepted_at;  ///< a client or its edge has been told so
    bool succeeded = false;
    bool failed = false;
    std::string values;                         ///< of the first answer that had them
    std::map<std::string, std::string> events;  ///< by id, what the first reader got
};

/// One reader's way through a stream, over several responses.
struct Reading {
    std::string tag;
    scheduler::EventId from;  ///< it asked for what comes after
    scheduler::EventId last;
    std::uint32_t attempt = 1;  ///< announced by the newest metadata event
    bool begun = false;
    std::map<storage::Seq, std::size_t> steps;  ///< events of mode `Told::mode` by row
    bool has_error = false;
};

/// Compares what clients are told with what the store holds and with what was said before. Fails
/// the world.
class Ledger {
public:
    Ledger(World& world, const StoreWatch& watch) : world_{world}, watch_{watch} {}

    Told& add(Told told);
    [[nodiscard]] Told& at(const std::string& tag) { return told_.at(tag); }
    [[nodiscard]] const std::vector<std::string>& tags_of(const base::ThreadId& thread) {
        return by_thread_[thread];
    }

    /// @param by_engine  in so many words; else by an answer, which may be that it was taken back
    void accepted(const std::string& tag, bool by_engine);
    void event(Reading& reading, const StreamEvent& event);
    /// The stream has ended as it should.
    void stream_ended(const Reading& reading);
    /// The body of a wait or a join.
    void waited(const std::string& tag, const std::string& body);
    /// @param values  the state of a thread, read by a request that began at `since`
    void state(const base::ThreadId& thread, const base::Json& values, Duration since);
    /// Everything has ended, and `values` is what each thread came to.
    void check_end(const base::ThreadId& thread, const base::Json& values);

    std::size_t streams_read = 0;
    std::size_t waits_read = 0;
    std::size_t repeats = 0;
    std::size_t resumed = 0;
    std::size_t losses = 0;  ///< announced to somebody

private:
    void lost(const Reading& reading, const Told& told, const StreamEvent& event);
    void outcome(Told& told, bool success);
    void check_log(const base::ThreadId& thread,
                   const base::Json& values,
                   Duration since,
                   bool at_end);
    void check_order(const StoreWatch::Thread& thread);

    World& world_;
    const StoreWatch& watch_;
    std::map<std::string, Told> told_;
    std::map<base::ThreadId, std::vector<std::string>> by_thread_;
    std::map<std::string, Duration> succeeded_at_;
};

}  // namespace heddle::sim
