#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "shared/wire/messages.hpp"
#include "tests/sim/engine.hpp"

namespace heddle::sim {

/// The engines by slot, and the connections to them: frames of one connection and direction arrive
/// in order, late, or never because the connection is lost.
class Network {
public:
    Network(World& world, std::size_t slots) : world_{world}, engines(slots) {}

    World& world_;
    std::vector<std::unique_ptr<Engine>> engines;  ///< null: down
    Duration latency = std::chrono::microseconds{200};
    /// Frames between an edge and a slot wait until then.
    std::map<std::pair<std::size_t, std::size_t>, Duration> blocked_until;
};

/// One event of an event stream.
struct StreamEvent {
    std::string id;
    std::string name;
    std::string data;
};

struct HttpRequest {
    std::string method;
    std::string path;
    std::string query;
    wire::Headers headers;
    std::string body;
    std::string thread_id;
    std::string run_id;  ///< minted by the edge for what starts a run
};

/// What a client sees of one response. Called by the edge; `gone()` comes last and once.
class Listener {
public:
    virtual ~Listener() = default;
    virtual void accepted() = 0;  ///< seen by the edge only
    virtual void head(int status, const wire::Headers& headers) = 0;
    virtual void event(const StreamEvent& event) = 0;
    /// @param complete  the whole response has come
    virtual void gone(bool complete, const std::string& body) = 0;
};
using ListenerPtr = std::shared_ptr<Listener>;  // NOLINT: calls and clients hold it

/// One nginx worker: sends requests to engines and does what shared/wire/README.md demands when
/// they do not finish them. Process-free: an edge's clock is the world's.
class Edge {
public:
    Edge(World& world, Network& network, std::size_t number);
    ~Edge();
    Edge(const Edge&) = delete;
    Edge& operator=(const Edge&) = delete;

    /// @return for leave()
    std::uint64_t ask(HttpRequest request, ListenerPtr listener);
    /// The client goes. Its listener hears nothing more.
    void leave(std::uint64_t call);
    /// As a worker that ends: every response is cut, every run goes on.
    void reload();
    /// Breaks the connection to a slot: what is on its way is lost.
    void reset(std::size_t slot);
    [[nodiscard]] std::size_t calls() const noexcept { return calls_.size(); }

private:
    struct Call {
        HttpRequest request;
        ListenerPtr listener;
        std::uint32_t hop = 0;
        bool accepted = false;
        bool answering = false;  ///< this engine has sent a head
        bool head_sent = false;  ///< the client has had one
        bool is_stream = false;
        int status = 0;
        std::uint64_t epoch = 0;
        std::optional<std::size_t> slot;  ///< unset: waits for an engine
        std::uint64_t connection = 0;     ///< it was sent on
        wire::RequestId wire_id = 0;
        std::set<std::size_t> tried;
        std::string body;     ///< of what is no stream
        std::string partial;  ///< of a stream: an event that has not ended
        std::string last_event_id;
        Duration heard_at{};
        std::optional<Duration>
            refused_at;  ///< first, by an engine that may take it a moment later
    };
    struct Slot {
        std::uint64_t connection = 0;  ///< 0: none
        bool up = false;
        bool draining = false;
        std::string engine_id;
        Duration heard_at{};
        Duration last_out{};
        Duration last_in{};
    };

    void tick();
    void connect(std::size_t slot);
    void send(std::size_t slot, const wire::EdgeMessage& message);
    void receive(std::size_t slot, std::uint64_t connection, const std::string& frame);
    void take(std::size_t slot, const wire::EngineMessage& message);
    void take_id(std::size_t slot, const std::string& engine_id);
    void down(std::size_t slot);
    /// @param kept  the connection whose calls are not lost
    void lose(std::size_t slot, std::uint64_t kept = 0);
    void send_call(std::uint64_t id, std::size_t slot);
    void next(std::uint64_t id);
    /// The engine has let go of it; it goes on elsewhere if it can.
    void lost(std::uint64_t id);
    void on_head(std::uint64_t id, const wire::Head& head);
    void on_bytes(std::uint64_t id, const std::string& bytes);
    void on_end(std::uint64_t id, const std::string& error);
    void on_moved(std::uint64_t id, const wire::Moved& moved);
    void finish(std::uint64_t id, bool complete);
    void answer(std::uint64_t id, int status);
    void check_call(std::uint64_t id);
    [[nodiscard]] std::vector<std::size_t> order(const Call& call) const;

    World& world_;
    Network& network_;
    std::size_t number_;
    std::vector<Slot> slots_;
    std::map<std::uint64_t, Call> calls_;
    std::map<std::string, std::size_t> owners_;  ///< slot by thread
    std::uint64_t ids_ = 1;
    std::shared_ptr<const bool> life_ = std::make_shared<const bool>(true);
};

}  // namespace heddle::sim
