#include "tests/sim/client.hpp"

#include <algorithm>

// Listeners are shared by calls and by what waits for them.
// NOLINTBEGIN
namespace heddle::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kTriesMax = 4;

base::Uuid any_uuid(World& world) {
    base::Uuid uuid;
    for (auto& byte : uuid.bytes) {
        byte = static_cast<std::uint8_t>(world.random.below(256));
    }
    return uuid;
}

std::string mint(World& world) {
    auto uuid = any_uuid(world);
    uuid.bytes[6] = static_cast<std::uint8_t>((uuid.bytes[6] & 0x0FU) | 0x70U);
    uuid.bytes[8] = static_cast<std::uint8_t>((uuid.bytes[8] & 0x3FU) | 0x80U);
    return uuid.to_string();
}

template <class T>
const T& pick_one(World& world, const std::vector<T>& all) {
    return all[world.random.below(all.size())];
}

Plan any_plan(World& world, std::string tag) {
    auto& random = world.random;
    Plan plan;
    plan.tag = std::move(tag);
    plan.rounds = 1 + static_cast<int>(random.below(2));
    plan.node_ms = random.chance(0.3) ? 300 + static_cast<int>(random.below(900))
                                      : 1 + static_cast<int>(random.below(60));
    plan.tokens = static_cast<int>(random.below(5));
    plan.fails = random.chance(0.08);
    plan.flaky = random.chance(0.2);
    return plan;
}

Edge& any_edge(Service& service) {
    return *pick_one(service.world, service.edges);
}

}  // namespace

/// One request that has one JSON answer.
class Client::Once final : public Listener {
public:
    using Done = std::function<void(int status, bool complete, const std::string& body)>;
    Once(Service& service, std::string tag, Done done)
        : service_{service}, tag_{std::move(tag)}, done_{std::move(done)} {}

    void accepted() override {
        if (!tag_.empty()) {
            service_.ledger.accepted(tag_, true);
        }
    }
    void head(int status, const wire::Headers& headers) override {
        status_ = status;
        for (const auto& [name, value] : headers) {
            if (name == "content-location" && !tag_.empty()) {
                service_.ledger.at(tag_).run =
                    base::RunId::parse(value.substr(value.rfind('/') + 1));
            }
        }
    }
    void event(const StreamEvent&) override {}
    void gone(bool complete, const std::string& body) override {
        if (status_ >= 500 && status_ != 503 && status_ != 504) {
            service_.world.fail("answered with {}: {}", status_, body);
        }
        done_(status_, complete, body);
    }

private:
    Service& service_;
    std::string tag_;
    Done done_;
    int status_ = 0;
};

/// Reads a run's stream to its end, over as many responses as it takes.
class Client::Stream final : public Listener, public std::enable_shared_from_this<Stream> {
public:
    Stream(Service& service, std::string tag, std::function<void()> done)
        : service_{service}, done_{std::move(done)} {
        reading_.tag = std::move(tag);
        leaves_after_ = service.world.random.chance(0.3) ? 1 + service.world.random.below(12) : 0;
    }

    void start(HttpRequest request) {
        starting_ = request;
        ask(std::move(request));
    }
    /// @param from  an id that somebody has read, or nothing
    void join(const std::string& from) {
        if (!from.empty()) {
            reading_.from = *scheduler::EventId::parse(from);
            reading_.last = reading_.from;
            reading_.begun = true;
            reading_.attempt = scheduler::EventId::kAttemptMax;
            ++service_.ledger.resumed;
        }
        come_back();
    }

    void accepted() override { service_.ledger.accepted(reading_.tag, true); }
    void head(int status, const wire::Headers& headers) override {
        status_ = status;
        if (status != 200) {
            return;
        }
        for (const auto& [name, value] : headers) {
            if (name == "content-location") {
                service_.ledger.at(reading_.tag).run =
                    base::RunId::parse(value.substr(value.rfind('/') + 1));
            }
        }
        service_.ledger.accepted(reading_.tag, false);
    }
    void event(const StreamEvent& event) override {
        service_.ledger.event(reading_, event);
        if (leaves_after_ > 0 && --leaves_after_ == 0) {
            service_.world.note("{} leaves its stream", reading_.tag);
            edge_->leave(call_);
            ++service_.ledger.resumed;
            service_.world.after(service_.world.random.between({}, seconds{3}),
                                 [self = shared_from_this()] { self->come_back(); });
        }
    }
    void gone(bool complete, const std::string& body) override {
        auto& told = service_.ledger.at(reading_.tag);
        service_.world.note("{} stream answered {}{}", reading_.tag, status_,
                            complete ? "" : ", cut");
        if (status_ == 200 && complete) {
            service_.ledger.stream_ended(reading_);
            done_();
            return;
        }
        const bool is_busy = status_ == 0 || status_ == 503 || status_ == 504 || status_ == 200;
        if (!is_busy) {
            const bool is_refused = status_ == 409 && told.strategy == "reject";
            if (!is_refused && (status_ != 404 || !told.accepted_at)) {
                service_.world.fail("{}: answered with {}: {}", reading_.tag, status_, body);
            }
            done_();
            return;
        }
        if (++tries_ > kTriesMax) {
            done_();
            return;
        }
        service_.world.after(service_.world.random.between({}, seconds{1}),
                             [self = shared_from_this()] { self->come_back(); });
    }

private:
    void ask(HttpRequest request) {
        status_ = 0;
        edge_ = &any_edge(service_);
        call_ = edge_->ask(std::move(request), shared_from_this());
    }
    void come_back() {
        const auto& told = service_.ledger.at(reading_.tag);
        if (!told.run || !told.accepted_at) {
            // Without a key a client cannot send it again: it would be another run.
            const auto& headers = starting_.headers;
            const bool keyed = std::any_of(headers.begin(), headers.end(), [](const auto& each) {
                return each.first == "idempotency-key";
            });
            if (!keyed) {
                done_();
                return;
            }
            ++service_.ledger.repeats;
            ask(starting_);
            return;
        }
        HttpRequest request;
        request.method = "GET";
        request.thread_id = told.thread.to_string();
        request.path =
            fmt::format("/threads/{}/runs/{}/stream", request.thread_id, told.run->to_string());
        if (reading_.begun) {
            request.headers.emplace_back("last-event-id", reading_.last.to_string());
        }
        ask(std::move(request));
    }

    Service& service_;
    std::function<void()> done_;
    Reading reading_;
    HttpRequest starting_;
    Edge* edge_ = nullptr;  ///< that call_ goes through
    std::uint64_t call_ = 0;
    std::uint64_t leaves_after_ = 0;
    int status_ = 0;
    int tries_ = 0;
};

void Client::act_later() {
    auto& world = service_.world;
    world.after(world.random.between(milliseconds{1}, milliseconds{400}), [this] {
        if (service_.world.now() < service_.busy_until) {
            act();
        }
    });
}

void Client::act() {
    ++service_.busy;
    const auto what = service_.world.random.below(100);
    if (what < 60) {
        start_run();
    } else if (what < 72) {
        read_state();
    } else if (what < 90) {
        join();
    } else {
        cancel();
    }
}

std::string Client::pick(const base::ThreadId& thread) {
    const auto& tags = service_.ledger.tags_of(thread);
    if (tags.empty()) {
        return {};
    }
    // Of the newest ones: they are in the middle of something.
    const auto back = std::min<std::size_t>(tags.size(), 6);
    const auto& tag = tags[tags.size() - 1 - service_.world.random.below(back)];
    const auto& told = service_.ledger.at(tag);
    return told.run && told.accepted_at ? tag : std::string{};
}

/// Starts a run, and repeats the request until somebody answers.
class Client::Start : public std::enable_shared_from_this<Start> {
public:
    Start(Service& service,
          std::string tag,
          HttpRequest request,
          bool keyed,
          bool is_lonely,
          std::function<void()> done)
        : service_{service},
          tag_{std::move(tag)},
          request_{std::move(request)},
          keyed_{keyed},
          is_lonely_{is_lonely},
          done_{std::move(done)} {}

    void ask() {
        const auto listener = std::make_shared<Once>(
            service_, tag_,
            [self = shared_from_this()](int status, bool complete, const std::string& body) {
                self->answered(status, complete, body);
            });
        (void)any_edge(service_).ask(request_, listener);
    }

private:
    void answered(int status, bool complete, const std::string& body) {
        auto& world = service_.world;
        const auto& told = service_.ledger.at(tag_);
        world.note("{} answered {}{}", tag_, status, complete ? "" : ", cut");
        if (status == 200 && complete) {
            service_.ledger.accepted(tag_, false);
            if (request_.path.ends_with("/wait") || request_.path.ends_with("/join")) {
                service_.ledger.waited(tag_, body);
                done_();
                return;
            }
            follow();
            return;
        }
        if (status == 409 && told.strategy == "reject") {
            done_();
            return;
        }
        if (status != 0 && status != 200 && status != 503 && status != 504) {
            if (status != 404 || !told.accepted_at) {
                world.fail("{}: answered with {}: {}", tag_, status, body);
            }
            done_();
            return;
        }
        if (++tries_ > kTriesMax) {
            done_();
            return;
        }
        world.after(world.random.between({}, seconds{1}), [self = shared_from_this()] {
            if (self->keyed_ || !self->service_.ledger.at(self->tag_).run) {
                ++self->service_.ledger.repeats;
                self->ask();
            } else {
                self->done_();
            }
        });
    }
    // A run that was started and left: somebody asks how it went.
    void follow() {
        const auto& told = service_.ledger.at(tag_);
        const auto what = service_.world.random.below(3);
        if (what == 0 || is_lonely_ || !told.run) {
            done_();
        } else if (what == 1) {
            std::make_shared<Stream>(service_, tag_, done_)->join({});
        } else {
            request_ = {};
            request_.method = "GET";
            request_.thread_id = told.thread.to_string();
            request_.path =
                fmt::format("/threads/{}/runs/{}/join", request_.thread_id, told.run->to_string());
            keyed_ = true;
            ask();
        }
    }

    Service& service_;
    std::string tag_;
    HttpRequest request_;
    bool keyed_;
    bool is_lonely_;
    std::function<void()> done_;
    int tries_ = 0;
};

void Client::start_run() {
    auto& world = service_.world;
    auto& random = world.random;
    Told told;
    told.plan = any_plan(world, fmt::format("r{}", service_.tags++));
    const bool is_lonely = random.chance(0.1);
    if (is_lonely) {
        told.thread.uuid = any_uuid(world);
        service_.lonely.push_back(told.thread);
    } else {
        told.thread = pick_one(world, service_.threads);
    }
    told.strategy = pick_one<std::string>(
        world, {"enqueue", "enqueue", "enqueue", "enqueue", "reject", "interrupt", "rollback"});
    const auto durability = pick_one<std::string>(world, {"async", "async", "sync", "exit"});
    told.exits = durability == "exit";
    const auto way =
        is_lonely ? std::string{}
                  : pick_one<std::string>(world, {"/wait", "/wait", "/stream", "/stream", ""});
    told.mode = way == "/wait" && random.chance(0.5)
                    ? ""
                    : pick_one<std::string>(world, {"values", "updates"});
    base::Json body{{"assistant_id", "work"},
                    {"input", input_of(told.plan)},
                    {"multitask_strategy", told.strategy},
                    {"durability", durability},
                    {"if_not_exists", "create"},
                    {"stream_resumable", random.chance(0.3)},
                    {"on_disconnect", random.chance(0.2) ? "cancel" : "continue"}};
    if (!told.mode.empty()) {
        body["stream_mode"] = {told.mode, "custom"};
    }
    HttpRequest request;
    request.method = "POST";
    request.thread_id = told.thread.to_string();
    request.path = fmt::format("/threads/{}/runs{}", request.thread_id, way);
    request.body = base::dump_json(body);
    const bool keyed = random.chance(0.5);
    request.run_id = mint(world);
    if (keyed) {
        request.headers.emplace_back("idempotency-key", told.plan.tag);
    } else {
        told.run = base::RunId::parse(request.run_id);
    }
    const auto tag = told.plan.tag;
    world.note("{} {}{} {} {} {} in {}", tag, "runs", way, told.strategy, durability,
               keyed ? "keyed" : "minted", request.thread_id);
    service_.ledger.add(std::move(told));
    // An edge sends what it has minted an id for; a client sends again what has a key.
    const auto copies = keyed && random.chance(0.3) ? 2 : 1;
    const auto left = std::make_shared<int>(copies);
    const auto done = [this, left] {
        if (--*left == 0) {
            --service_.busy;
            act_later();
        }
    };
    for (int i = 0; i < copies; ++i) {
        service_.ledger.repeats += i > 0 ? 1 : 0;
        world.after(
            i == 0 ? Duration{} : random.between({}, milliseconds{300}),
            [this, tag, request, keyed, is_lonely, way, done] {
                if (way == "/stream") {
                    std::make_shared<Stream>(service_, tag, done)->start(request);
                } else {
                    std::make_shared<Start>(service_, tag, request, keyed, is_lonely, done)->ask();
                }
            });
    }
}

void Client::read_state() {
    const auto thread = pick_one(service_.world, service_.threads);
    HttpRequest request;
    request.method = "GET";
    request.thread_id = thread.to_string();
    request.path = fmt::format("/threads/{}/state", request.thread_id);
    const auto since = service_.world.now();
    const auto listener = std::make_shared<Once>(
        service_, std::string{},
        [this, thread, since](int status, bool complete, const std::string& body) {
            if (status == 200 && complete) {
                const auto json = base::parse_stored_json(body);
                service_.ledger.state(thread, json->value("values", base::Json::object()), since);
            }
            --service_.busy;
            act_later();
        });
    (void)any_edge(service_).ask(std::move(request), listener);
}

void Client::join() {
    const auto tag = pick(pick_one(service_.world, service_.threads));
    const auto done = [this] {
        --service_.busy;
        act_later();
    };
    if (tag.empty()) {
        done();
        return;
    }
    const auto& events = service_.ledger.at(tag).events;
    std::string from;
    if (!events.empty() && service_.world.random.chance(0.7)) {
        from =
            std::next(events.begin(), static_cast<long>(service_.world.random.below(events.size())))
                ->first;
    }
    service_.world.note("{} is joined from {}", tag, from.empty() ? "the beginning" : from);
    std::make_shared<Stream>(service_, tag, done)->join(from);
}

void Client::cancel() {
    auto& world = service_.world;
    const auto tag = pick(pick_one(world, service_.threads));
    if (tag.empty()) {
        --service_.busy;
        act_later();
        return;
    }
    const auto& told = service_.ledger.at(tag);
    HttpRequest request;
    request.method = "POST";
    request.thread_id = told.thread.to_string();
    request.path =
        fmt::format("/threads/{}/runs/{}/cancel", request.thread_id, told.run->to_string());
    request.query = fmt::format("wait={}&action={}", world.random.below(2),
                                world.random.chance(0.3) ? "rollback" : "interrupt");
    world.note("{} is cancelled: {}", tag, request.query);
    const auto listener =
        std::make_shared<Once>(service_, std::string{}, [this](int, bool, const std::string&) {
            --service_.busy;
            act_later();
        });
    (void)any_edge(service_).ask(std::move(request), listener);
}

namespace {

class Reader final : public Listener, public std::enable_shared_from_this<Reader> {
public:
    Reader(Service& service, HttpRequest request, std::function<void(int, const std::string&)> then)
        : service_{service}, request_{std::move(request)}, then_{std::move(then)} {}

    void ask() { (void)any_edge(service_).ask(request_, shared_from_this()); }
    void accepted() override {}
    void head(int status, const wire::Headers&) override { status_ = status; }
    void event(const StreamEvent&) override {}
    void gone(bool complete, const std::string& body) override {
        if (complete && (status_ == 200 || status_ == 404)) {
            then_(status_, body);
            return;
        }
        service_.world.after(milliseconds{200}, [self = shared_from_this()] { self->ask(); });
    }

private:
    Service& service_;
    HttpRequest request_;
    std::function<void(int, const std::string&)> then_;
    int status_ = 0;
};

}  // namespace

void read_until_answered(Service& service,
                         HttpRequest request,
                         std::function<void(int, const std::string&)> then) {
    std::make_shared<Reader>(service, std::move(request), std::move(then))->ask();
}

}  // namespace heddle::sim
// NOLINTEND
