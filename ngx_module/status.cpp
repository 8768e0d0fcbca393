#include "ngx_module/status.hpp"

#include <string>
#include <vector>

#include "ngx_module/answer.hpp"
#include "ngx_module/barrier.hpp"
#include "ngx_module/conf.hpp"
#include "ngx_module/shared_state.hpp"

namespace heddle::ngx {

namespace {

/// One engine, copied out of the zone while its mutex is held.
struct Row {
    ngx_pid_t pid = 0;
    EngineState state = EngineState::connecting;
    std::string engine_id;
    std::uint64_t in_flight = 0, requests = 0, failures = 0, moved = 0, refused = 0, dropped = 0;
    std::uint64_t pong_at = 0, threads_owned = 0, runs_running = 0, runs_waiting = 0;

    void add(const Row& other) {
        in_flight += other.in_flight;
        requests += other.requests;
        failures += other.failures;
        moved += other.moved;
        refused += other.refused;
        dropped += other.dropped;
        const auto rank = [](EngineState s) {
            switch (s) {
                case EngineState::up:
                    return 3;
                case EngineState::draining:
                    return 2;
                case EngineState::connecting:
                    return 1;
                case EngineState::down:
                    break;
            }
            return 0;
        };
        // The best that any worker sees: one worker that has just begun says nothing of the engine.
        if (pid == 0 || rank(other.state) > rank(state)) {
            state = other.state;
        }
        if (other.pong_at >= pong_at && !other.engine_id.empty()) {
            engine_id = other.engine_id;
            pong_at = other.pong_at;
            threads_owned = other.threads_owned;
            runs_running = other.runs_running;
            runs_waiting = other.runs_waiting;
        }
        pid = other.pid;
    }
};

Row row_of(const EngineFigures& from, ngx_pid_t pid) {
    constexpr auto kRelaxed = std::memory_order_relaxed;
    Row row;
    row.pid = pid;
    row.state = static_cast<EngineState>(from.state.load(kRelaxed));
    row.engine_id = from.engine_id;
    row.in_flight = from.in_flight.load(kRelaxed);
    row.requests = from.requests.load(kRelaxed);
    row.failures = from.failures.load(kRelaxed);
    row.moved = from.moved.load(kRelaxed);
    row.refused = from.refused.load(kRelaxed);
    row.dropped = from.frames_dropped.load(kRelaxed);
    row.pong_at = from.pong_at.load(kRelaxed);
    row.threads_owned = from.threads_owned.load(kRelaxed);
    row.runs_running = from.runs_running.load(kRelaxed);
    row.runs_waiting = from.runs_waiting.load(kRelaxed);
    return row;
}

class Json {
public:
    void text(std::string_view name, std::string_view value) {
        key(name);
        // Names on the wire are visible ASCII, those of a configuration may hold anything.
        out += '"';
        for (const char c : value) {
            if (c == '"' || c == '\\') {
                out += '\\';
            }
            out += c >= 0x20 && c < 0x7f ? c : '?';
        }
        out += '"';
    }
    void number(std::string_view name, std::uint64_t value) {
        key(name);
        out += std::to_string(value);
    }
    void open(std::string_view name, char bracket) {
        key(name);
        out += bracket;
    }
    void open(char bracket) {
        comma();
        out += bracket;
    }
    void close(char bracket) { out += bracket; }

    std::string out;

private:
    void comma() {
        if (!out.empty() && out.back() != '{' && out.back() != '[') {
            out += ',';
        }
    }
    void key(std::string_view name) {
        comma();
        out += '"';
        out += name;
        out += "\":";
    }
};

void write_counts(Json& json, const Row& row) {
    json.text("state", name_of(row.state));
    json.number("in_flight", row.in_flight);
    json.number("requests", row.requests);
    json.number("failures", row.failures);
    json.number("moved", row.moved);
    json.number("refused", row.refused);
    json.number("frames_dropped", row.dropped);
}

void write_engine(Json& json,
                  const EngineConf& conf,
                  const std::vector<Row>& rows,
                  const Row& gone) {
    Row sum;
    for (const Row& row : rows) {
        sum.add(row);
    }
    sum.requests += gone.requests;
    sum.failures += gone.failures;
    sum.moved += gone.moved;
    sum.refused += gone.refused;
    sum.dropped += gone.dropped;

    json.open('{');
    json.text("endpoint", view(conf.endpoint));
    json.number("weight", conf.weight);
    json.text("engine_id", sum.engine_id);
    write_counts(json, sum);
    json.number("threads_owned", sum.threads_owned);
    json.number("runs_running", sum.runs_running);
    json.number("runs_waiting", sum.runs_waiting);
    if (sum.pong_at > 0) {
        json.number("pong_ms_ago", ngx_current_msec - sum.pong_at);
    }
    json.open("workers", '[');
    for (const Row& row : rows) {
        json.open('{');
        json.number("pid", static_cast<std::uint64_t>(row.pid));
        write_counts(json, row);
        json.close('}');
    }
    json.close(']');
    json.close('}');
}

void write_pool(Json& json, const PoolConf& pool) {
    const auto& zone = *static_cast<const PoolZone*>(pool.zone->data);
    const ArrayView<EngineConf> engines{&pool.engines};
    std::vector<std::vector<Row>> rows(engines.size());
    std::vector<Row> gone;
    {
        const ZoneLock lock{zone.slab};
        for (std::size_t i = 0; i < engines.size(); i++) {
            gone.push_back(row_of(zone.shared->gone[i], 0));
            for (const WorkerSlot* slot = zone.shared->workers; slot != nullptr;
                 slot = slot->next) {
                rows[i].push_back(row_of(slot->engines[i], slot->pid));
            }
        }
    }
    json.open('{');
    json.text("name", view(pool.name));
    json.open("engines", '[');
    Row total;
    for (std::size_t i = 0; i < engines.size(); i++) {
        write_engine(json, engines[i], rows[i], gone[i]);
        total.add(gone[i]);
        for (const Row& row : rows[i]) {
            total.add(row);
        }
    }
    json.close(']');
    json.number("in_flight", total.in_flight);
    json.number("requests", total.requests);
    json.number("failures", total.failures);
    json.close('}');
}

}  // namespace

ngx_int_t handle_status(ngx_http_request_t* r) noexcept {
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return NGX_HTTP_NOT_ALLOWED;
    }
    return guarded(r->connection->log, "status", ngx_int_t{NGX_HTTP_INTERNAL_SERVER_ERROR}, [r] {
        Json json;
        json.open('{');
        json.number("pid", static_cast<std::uint64_t>(ngx_pid));
        json.open("pools", '[');
        for (const PoolConf* pool : ArrayView<PoolConf*>{&main_conf(r)->pools}) {
            write_pool(json, *pool);
        }
        json.close(']');
        json.close('}');
        json.out += '\n';
        return answer_json(r, NGX_HTTP_OK, json.out);
    });
}

}  // namespace heddle::ngx
