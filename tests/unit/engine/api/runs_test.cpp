#include "tests/unit/engine/api/test_api.hpp"

namespace heddle::api::test {
namespace {

using base::Json;

Request run_request(const std::string& path, const std::string& body, const std::string& run_id) {
    Request request;
    request.method = "POST";
    request.path = path;
    request.body = body;
    request.run_id = run_id;
    return request;
}

TEST(Runs, WaitAnswersInOneFrame) {
    ApiOptions options;
    options.keep_alive_every = std::chrono::hours{1};
    TestApi api{options};
    const auto path = "/threads/" + api.make_thread();
    const auto reply = api.call("POST", path + "/runs/wait", run_body("echo", "hi"));
    EXPECT_EQ(reply.status, 200);
    EXPECT_TRUE(reply.one_frame);
    EXPECT_EQ(reply.json().at("messages")[1].at("content"), "echo hi");
    EXPECT_TRUE(reply.header("content-location").starts_with(path + "/runs/"));
    EXPECT_EQ(api.call("GET", path).json().at("values"), reply.json());
}

TEST(Runs, WaitSendsNewlinesWhileTheRunIsSilent) {
    ApiOptions options;
    options.keep_alive_every = std::chrono::milliseconds{1};
    TestApi api{options};
    const auto path = "/threads/" + api.make_thread();
    const auto exchange = api.begin("POST", path + "/runs/wait", run_body("gated", "hi"));
    exchange->wait_for("\n\n");
    EXPECT_EQ(exchange->so_far().header("content-type"), "application/json");
    EXPECT_TRUE(exchange->so_far().accepted);
    api.gate.open();
    const auto reply = exchange->finish();
    EXPECT_TRUE(reply.ended);
    EXPECT_FALSE(reply.one_frame);
    EXPECT_EQ(reply.json().at("messages").size(), 2U) << "newlines before JSON do no harm";
}

TEST(Runs, AFailedRunIsReportedInsideA200) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto reply = api.call("POST", path + "/runs/wait", run_body("broken", "hi"));
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(
        reply.json(),
        (Json{{"__error__",
               {{"error", "ModelError"}, {"message", "node \"answer\": the model said no"}}}}));
    const auto run = api.call("GET", path + "/runs").json()[0];
    EXPECT_EQ(run.at("status"), "error");
    EXPECT_EQ(api.call("GET", path).json().at("status"), "error");
    const auto joined = path + "/runs/" + run.at("run_id").get<std::string>() + "/join";
    EXPECT_EQ(api.call("GET", joined).json(), reply.json());
}

TEST(Runs, RunInTheBackgroundAndAreJoined) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto made =
        api.call("POST", path + "/runs", run_body("gated", "hi", {{"metadata", {{"a", 1}}}}));
    ASSERT_EQ(made.status, 200) << made.body;
    const auto run = made.json();
    const auto run_path = path + "/runs/" + run.at("run_id").get<std::string>();
    EXPECT_EQ(made.header("content-location"), run_path);
    EXPECT_EQ(run.at("metadata"), (Json{{"a", 1}}));
    EXPECT_EQ(run.at("multitask_strategy"), "enqueue");
    EXPECT_EQ(run.at("kwargs").at("input").at("messages")[0].at("content"), "hi");

    const auto join = api.begin("GET", run_path + "/join");
    const auto other = api.begin("GET", run_path + "/join");
    api.gate.open();
    EXPECT_EQ(join->finish().json().at("messages").size(), 2U);
    EXPECT_EQ(other->finish().json(), join->finish().json());
    EXPECT_EQ(api.call("GET", run_path).json().at("status"), "success");
    // Once the thread has gone on, the run is still answered with its own values.
    ASSERT_EQ(api.call("POST", path + "/runs/wait", run_body("gated", "more")).status, 200);
    EXPECT_EQ(api.call("GET", run_path + "/join").json(), join->finish().json());
}

TEST(Runs, AreListedNewestFirstWithOffsetAndStatus) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    for (int i = 0; i < 5; ++i) {
        Json extra{{"metadata", {{"n", i}}}};
        ASSERT_EQ(api.call("POST", path + "/runs/wait", run_body("echo", "x", extra)).status, 200);
    }
    const auto page = api.call("GET", path + "/runs?limit=2&offset=1").json();
    ASSERT_EQ(page.size(), 2U);
    EXPECT_EQ(page[0].at("metadata").at("n"), 3);
    EXPECT_EQ(page[1].at("metadata").at("n"), 2);
    EXPECT_EQ(api.call("GET", path + "/runs?status=error").body, "[]");
    EXPECT_EQ(api.call("GET", path + "/runs?limit=1&select=%5B%22status%22%5D").body,
              R"([{"status":"success"}])");
    EXPECT_EQ(api.call("GET", path + "/runs?status=odd").json().at("field"), "status");
    const auto missing = "/threads/" + base::make_uuid_v7().to_string();
    EXPECT_EQ(api.call("GET", missing + "/runs").status, 404);
}

TEST(Runs, OfUnknownThreadsAndRunsAre404) {
    TestApi api;
    const auto missing = "/threads/" + base::make_uuid_v7().to_string();
    const auto refused = api.call("POST", missing + "/runs/wait", run_body("echo", "x"));
    EXPECT_EQ(refused.status, 404);
    EXPECT_EQ(refused.json().at("detail"), "Thread not found");
    Json create{{"if_not_exists", "create"}};
    EXPECT_EQ(api.call("POST", missing + "/runs/wait", run_body("echo", "x", create)).status, 200);

    const auto run = missing + "/runs/" + base::make_uuid_v7().to_string();
    for (const auto* end : {"", "/join", "/stream"}) {
        EXPECT_EQ(api.call("GET", run + end).status, 404) << end;
    }
    EXPECT_EQ(api.call("POST", run + "/cancel").status, 404);
    EXPECT_EQ(api.call("DELETE", run).status, 404);
    EXPECT_EQ(api.call("GET", missing + "/runs/x").json().at("field"), "run_id");
}

TEST(Runs, RejectRefusesWhileAnotherRunsAndEnqueueWaits) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto first = api.begin("POST", path + "/runs/wait", run_body("gated", "one"));
    first->wait_accepted();
    const auto reject = api.call("POST", path + "/runs/wait",
                                 run_body("gated", "no", {{"multitask_strategy", "reject"}}));
    EXPECT_EQ(reject.status, 409);
    EXPECT_EQ(reject.json().at("code"), "thread_busy");
    const auto second = api.begin("POST", path + "/runs/wait", run_body("gated", "two"));
    second->wait_accepted();
    api.gate.open();
    EXPECT_EQ(first->finish().json().at("messages").size(), 2U);
    EXPECT_EQ(second->finish().json().at("messages").size(), 4U);
}

TEST(Runs, ThatThisEngineLosesAreAnsweredWith503OnceAccepted) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread() + "/runs/wait";
    const auto running = api.begin("POST", path, run_body("gated", "x"));
    running->wait_accepted();
    api.abandon_all();
    const auto reply = running->finish();
    EXPECT_EQ(reply.refused, "unavailable") << "the edge looks for it elsewhere, by its run id";
}

TEST(Runs, OfAThreadThatWasTakenOverAreHandedOn) {
    ApiOptions options;
    options.owner_wait_max = std::chrono::milliseconds{50};
    TestApi api{options};
    const auto thread = api.make_thread();
    const auto path = "/threads/" + thread + "/runs/wait";
    ASSERT_EQ(api.call("POST", path, run_body("echo", "x")).status, 200);
    api.rob(thread);
    const auto stale = api.call("POST", path, run_body("echo", "x"));
    EXPECT_EQ(stale.refused, "unavailable") << "nothing was written; the edge asks another engine";
    EXPECT_EQ(api.call("POST", path, run_body("echo", "x")).moved, "ipc:///elsewhere");

    auto last = run_request(path, run_body("echo", "x"), base::make_uuid_v7().to_string());
    last.hop = 9;
    const auto answered = api.begin(last)->finish();
    EXPECT_EQ(answered.status, 503) << "an edge that went round often enough gets an answer";
    EXPECT_EQ(answered.json().at("code"), "unavailable");
    EXPECT_EQ(answered.header("retry-after"), "1");
    EXPECT_EQ(api.call("GET", "/threads/" + thread + "/state").status, 200)
        << "reading needs no ownership";
}

TEST(Runs, OfAThreadThatIsOwnedElsewhereWaitForItsOwnerSideBySide) {
    TestApi api;
    const auto thread = api.make_thread();
    const auto path = "/threads/" + thread + "/runs/wait";
    ASSERT_EQ(api.call("POST", path, run_body("echo", "x")).status, 200);
    api.rob(thread);
    ASSERT_EQ(api.call("POST", path, run_body("echo", "x")).refused, "unavailable");

    constexpr int kRequests = 100;
    const auto begun = base::system_clock().now();
    std::vector<ExchangePtr> waiting;
    for (int i = 0; i < kRequests; ++i) {
        auto request = run_request(path, run_body("echo", "x"), base::make_uuid_v7().to_string());
        request.hop = 1;  // an edge that could not reach the owner
        waiting.push_back(api.begin(request));
    }
    for (const auto& each : waiting) {
        EXPECT_EQ(each->finish().moved, "ipc:///elsewhere");
    }
    EXPECT_LT(base::system_clock().now() - begun, std::chrono::seconds{10})
        << "one wait, not one after another";
}

TEST(Runs, WhoseThreadIsTakenOverWhileTheyAreStreamedEndAsUnavailable) {
    TestApi api;
    const auto thread = api.make_thread();
    const auto streamed =
        api.begin("POST", "/threads/" + thread + "/runs/stream", run_body("gated", "x"));
    streamed->wait_accepted();
    api.rob(thread);
    api.gate.open();
    EXPECT_EQ(streamed->finish().failed, "unavailable")
        << "the run goes on elsewhere; with this code the edge goes on with it";
}

TEST(Runs, PastTheEnginesBoundAreRefusedForNow) {
    ApiOptions options;
    options.runs_max = 1;
    TestApi api{options};
    const auto first =
        api.begin("POST", "/threads/" + api.make_thread() + "/runs/wait", run_body("gated", "one"));
    first->wait_accepted();
    const auto path = "/threads/" + api.make_thread() + "/runs";
    const auto refused = api.call("POST", path, run_body("echo", "two"));
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.json().at("code"), "overloaded");
    EXPECT_EQ(refused.header("retry-after"), "1");
    api.gate.open();
    (void)first->finish();
    EXPECT_EQ(api.call("POST", path, run_body("echo", "two")).status, 200);
}

TEST(Runs, CancelReturnsAtOnceAndWithWaitWhenItHasEnded) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto waiting = api.begin("POST", path + "/runs/wait", run_body("gated", "one"));
    waiting->wait_accepted();
    const auto queued = api.call("POST", path + "/runs", run_body("gated", "two")).json();
    const auto queued_path = path + "/runs/" + queued.at("run_id").get<std::string>();
    EXPECT_EQ(api.call("POST", queued_path + "/cancel?wait=1&action=interrupt").status, 204);
    EXPECT_EQ(api.call("GET", queued_path).json().at("status"), "interrupted");
    EXPECT_EQ(api.call("POST", queued_path + "/cancel").status, 202) << "had ended already";

    const auto run = api.call("GET", path + "/runs?status=running").json()[0];
    const auto run_path = path + "/runs/" + run.at("run_id").get<std::string>();
    EXPECT_EQ(api.call("POST", run_path + "/cancel?wait=0").status, 202);
    api.gate.open();
    const auto reply = waiting->finish();
    EXPECT_EQ(reply.json().at("__error__").at("error"), "UserInterrupt");
    EXPECT_EQ(api.call("POST", run_path + "/cancel?action=away").json().at("field"), "action");
    EXPECT_EQ(api.call("DELETE", run_path).status, 204);
    EXPECT_EQ(api.call("GET", run_path).status, 404);
}

// Three runs: one executes, one waits, and a third comes with `strategy`. The last is answered.
struct Newer {
    explicit Newer(const std::string& strategy) {
        first = api.begin("POST", path + "/runs/wait", run_body("gated", "one"));
        first->wait_accepted();
        second = api.begin("POST", path + "/runs/wait", run_body("gated", "two"));
        second->wait_accepted();
        const auto third =
            api.begin("POST", path + "/runs/wait",
                      run_body("gated", "three", {{"multitask_strategy", strategy}}));
        third->wait_accepted();
        api.gate.open();
        answer = third->finish().json();
    }
    std::vector<std::string> texts() const {
        std::vector<std::string> found;
        for (const auto& message : answer.at("messages")) {
            found.push_back(message.at("content").get<std::string>());
        }
        return found;
    }

    TestApi api;
    std::string path = "/threads/" + api.make_thread();
    ExchangePtr first;
    ExchangePtr second;
    Json answer;
};

TEST(Runs, InterruptEndsWhatIsThereAndKeepsItsCheckpoints) {
    Newer newer{"interrupt"};
    EXPECT_EQ(newer.texts(), (std::vector<std::string>{"one", "three", "echo three"}));
    for (const auto& older : {newer.first, newer.second}) {
        EXPECT_EQ(older->finish().json().at("__error__").at("error"), "UserInterrupt");
    }
    const auto runs = newer.api.call("GET", newer.path + "/runs").json();
    ASSERT_EQ(runs.size(), 3U);
    EXPECT_EQ(runs[0].at("status"), "success");
    EXPECT_EQ(runs[1].at("status"), "interrupted");
    EXPECT_EQ(runs[2].at("status"), "interrupted");
}

TEST(Runs, RollbackTakesBackWhatIsThere) {
    Newer newer{"rollback"};
    EXPECT_EQ(newer.texts(), (std::vector<std::string>{"three", "echo three"}));
    for (const auto& older : {newer.first, newer.second}) {
        EXPECT_TRUE(older->finish().json().contains("__error__"));
    }
    const auto runs = newer.api.call("GET", newer.path + "/runs").json();
    ASSERT_EQ(runs.size(), 1U);
    EXPECT_EQ(runs[0].at("status"), "success");
    const auto history = newer.api.call("GET", newer.path + "/history").json();
    EXPECT_EQ(history.size(), 3U) << "nothing of the older runs is left";
}

TEST(Runs, CancelWithRollbackTakesOneRunBack) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    ASSERT_EQ(api.call("POST", path + "/runs/wait", run_body("echo", "before")).status, 200);
    const auto before = api.call("GET", path + "/state").json().at("values");
    const auto running = api.begin("POST", path + "/runs/wait", run_body("gated", "one"));
    running->wait_accepted();
    const auto run = api.call("GET", path + "/runs?status=running").json()[0];
    const auto run_path = path + "/runs/" + run.at("run_id").get<std::string>();
    EXPECT_EQ(api.call("POST", run_path + "/cancel?action=rollback").status, 202);
    api.gate.open();
    EXPECT_TRUE(running->finish().json().contains("__error__"));
    EXPECT_EQ(api.call("GET", run_path).status, 404);
    EXPECT_EQ(api.call("GET", path + "/state").json().at("values"), before);
    EXPECT_EQ(api.call("GET", path).json().at("status"), "idle");
    EXPECT_EQ(api.call("POST", path + "/runs/wait", run_body("echo", "after")).status, 200);
}

TEST(Runs, OnDisconnectCancelEndsTheRun) {
    for (const auto* route : {"/runs/wait", "/runs/stream"}) {
        TestApi api;
        const auto path = "/threads/" + api.make_thread();
        const auto exchange =
            api.begin("POST", path + route, run_body("gated", "x", {{"on_disconnect", "cancel"}}));
        exchange->wait_accepted();
        const auto run = api.call("GET", path + "/runs").json()[0].at("run_id").get<std::string>();
        const auto join = api.begin("GET", path + "/runs/" + run + "/join");
        exchange->leave();
        (void)api.call("GET", path + "/state");
        api.gate.open();
        EXPECT_EQ(join->finish().json().at("__error__").at("error"), "UserInterrupt") << route;
        (void)exchange->finish();
    }
}

TEST(Runs, OnDisconnectContinueLetsItGoOn) {
    ApiOptions options;
    options.keep_alive_every = std::chrono::milliseconds{1};
    TestApi api{options};
    const auto path = "/threads/" + api.make_thread();
    const auto exchange = api.begin("POST", path + "/runs/wait", run_body("gated", "x"));
    exchange->wait_accepted();
    const auto run = api.call("GET", path + "/runs").json()[0].at("run_id").get<std::string>();
    exchange->leave();
    (void)exchange->finish();
    api.gate.open();
    EXPECT_EQ(api.call("GET", path + "/runs/" + run + "/join").json().at("messages").size(), 2U);
}

TEST(Runs, ARepeatJoinsTheRunAndAnotherBodyIsRefused) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread() + "/runs/wait";
    const auto run_id = base::make_uuid_v7().to_string();
    const auto first = api.begin(run_request(path, run_body("gated", "x"), run_id));
    first->wait_accepted();
    auto repeat = run_request(path, run_body("gated", "x"), run_id);
    repeat.hop = 1;
    const auto second = api.begin(repeat);
    second->wait_accepted();
    auto other = run_request(path, run_body("gated", "y"), run_id);
    other.hop = 1;
    const auto mismatch = api.begin(other)->finish();
    EXPECT_EQ(mismatch.status, 422);
    EXPECT_EQ(mismatch.json().at("code"), "idempotency_mismatch");
    api.gate.open();
    EXPECT_EQ(first->finish().json().at("messages").size(), 2U);
    EXPECT_EQ(second->finish().json(), first->finish().json());

    const auto late = api.begin(repeat)->finish();
    EXPECT_EQ(late.json(), first->finish().json()) << "the same answer when it is done";
}

TEST(Runs, AnIdempotencyKeyMakesOneRun) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const Headers key{{"idempotency-key", "order-7"}};
    const auto first = api.call("POST", path + "/runs/wait", run_body("echo", "x"), key);
    const auto second = api.call("POST", path + "/runs/wait", run_body("echo", "x"), key);
    EXPECT_EQ(first.json(), second.json());
    EXPECT_EQ(api.call("GET", path + "/runs").json().size(), 1U);
}

TEST(Runs, ARepeatOfAFailedOneIsAnsweredAsTheFirst) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread() + "/runs/wait";
    const Headers key{{"idempotency-key", "order-8"}};
    const auto first = api.call("POST", path, run_body("broken", "x"), key);
    EXPECT_EQ(first.json().at("__error__").at("error"), "ModelError");
    EXPECT_EQ(api.call("POST", path, run_body("broken", "x"), key).body, first.body);
}

TEST(Runs, WithoutAThreadObeyAnIdempotencyKeyToo) {
    TestApi api;
    const Headers key{{"idempotency-key", "order-7"}};
    const auto first = api.call("POST", "/runs/wait", run_body("echo", "x"), key);
    ASSERT_EQ(first.status, 200) << first.body;
    const auto second = api.call("POST", "/runs/wait", run_body("echo", "x"), key);
    EXPECT_EQ(first.body, second.body);
    EXPECT_EQ(first.header("content-location"), second.header("content-location"));
    const auto other = api.call("POST", "/runs/wait", run_body("echo", "y"), key);
    EXPECT_EQ(other.status, 422);
    EXPECT_EQ(other.json().at("code"), "idempotency_mismatch");
    EXPECT_EQ(api.call("POST", "/threads/count", "{}").body, "0");

    // A thread's keys are its own, and so are those of /chat.
    const auto path = "/threads/" + api.make_thread() + "/runs/wait";
    const auto elsewhere = api.call("POST", path, run_body("echo", "y"), key);
    EXPECT_EQ(elsewhere.status, 200) << elsewhere.body;
    const auto chat = R"({"agent":"echo","message":"z"})";
    const auto said = api.call("POST", "/chat", chat, key);
    ASSERT_EQ(said.status, 200) << said.body;
    EXPECT_EQ(api.call("POST", "/chat", chat, key).json().at("run_id"), said.json().at("run_id"));
    EXPECT_EQ(api.call("POST", "/chat", chat).json().at("run_id") == said.json().at("run_id"),
              false);
}

TEST(Runs, OfOneKeyAreJoinedWhileTheyRunTheStreamFromItsStart) {
    TestApi api;
    const Headers key{{"idempotency-key", "k"}};
    const auto body = run_body("gated", "x", {{"stream_mode", {"values", "updates"}}});
    const auto first = api.begin("POST", "/runs/stream", body, key);
    first->wait_for("event: values");
    const auto second = api.begin("POST", "/runs/stream", body, key);
    second->wait_for("event: values");
    const auto waiting = api.begin("POST", "/runs/wait", body, key);
    waiting->wait_accepted();
    api.gate.open();
    EXPECT_EQ(first->finish().body, second->finish().body);
    EXPECT_EQ(parse_sse(second->finish().body).front().event, "metadata");
    EXPECT_EQ(waiting->finish().json().at("messages").size(), 2U);
    EXPECT_EQ(api.gate.arrived(), 1U) << "one run";
}

TEST(Runs, ThatFailedOrStoppedAreRepeatedWithTheSameBytes) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread() + "/runs/wait";
    for (const std::string& target : {path, std::string{"/runs/wait"}}) {
        for (const auto& [name, body] : std::map<std::string, std::string>{
                 {"broken", run_body("broken", "x")},
                 {"limit", run_body("pair", "x", {{"config", {{"recursion_limit", 1}}}})},
                 {"held", run_body("pair", "x", {{"interrupt_before", {"again"}}})}}) {
            const Headers key{{"idempotency-key", name}};
            const auto first = api.call("POST", target, body, key);
            const auto second = api.call("POST", target, body, key);
            EXPECT_EQ(first.body, second.body) << target << ' ' << name;
        }
    }
}

TEST(Runs, RefuseAKeyOutOfBounds) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread() + "/runs";
    for (const auto& bad :
         {std::string{}, std::string(256, 'k'), std::string{"tab\t"}, std::string{"\xc3\xa9"}}) {
        for (const std::string& target : {path, std::string{"/runs"}}) {
            const auto reply =
                api.call("POST", target, run_body("echo", "x"), {{"idempotency-key", bad}});
            EXPECT_EQ(reply.status, 422) << bad;
            EXPECT_EQ(reply.json().at("field"), "Idempotency-Key");
        }
    }
    const auto twice = api.call("POST", path, run_body("echo", "x"),
                                {{"idempotency-key", "a"}, {"idempotency-key", "b"}});
    EXPECT_EQ(twice.status, 422);
    EXPECT_EQ(
        api.call("POST", path, run_body("echo", "x"), {{"idempotency-key", std::string(255, '~')}})
            .status,
        200);
    EXPECT_EQ(api.call("GET", path).json().size(), 1U);
}

TEST(Runs, OfARefusedRequestDoNotUseUpItsKey) {
    TestApi api;
    const Headers key{{"idempotency-key", "k"}};
    const auto thread = base::make_uuid_v7().to_string();
    const auto path = "/threads/" + thread + "/runs/wait";
    EXPECT_EQ(api.call("POST", path, run_body("echo", "x"), key).status, 404);
    ASSERT_EQ(api.call("POST", "/threads", Json{{"thread_id", thread}}.dump()).status, 200);
    EXPECT_EQ(api.call("POST", path, run_body("echo", "x"), key).status, 200);
}

TEST(Runs, WithoutAThreadAreAnsweredAgainAfterTheirEngineDied) {
    TestApi api;
    auto request =
        run_request("/runs/wait", run_body("echo", "x"), base::make_uuid_v7().to_string());
    const auto first = api.begin(request)->finish();
    request.hop = 1;
    request.accepted = true;
    const auto again = api.begin(request)->finish();
    EXPECT_EQ(again.status, 200) << again.body;
    EXPECT_EQ(again.body, first.body);
}

TEST(Runs, WithoutAThreadLeaveNothingBehindUnlessKept) {
    TestApi api;
    auto request =
        run_request("/runs/wait", run_body("echo", "x"), base::make_uuid_v7().to_string());
    request.thread_id = api.make_thread();
    const auto reply = api.begin(request)->finish();
    EXPECT_EQ(reply.json().at("messages").size(), 2U);
    EXPECT_EQ(reply.header("content-location"), "/runs/" + request.run_id);
    EXPECT_EQ(api.call("POST", "/threads/count", "{}").body, "1")
        << "the thread of the edge's key is none of its business";
    const auto kept =
        api.call("POST", "/runs/wait", run_body("echo", "x", {{"on_completion", "keep"}}));
    EXPECT_EQ(kept.status, 200);
    EXPECT_EQ(api.call("POST", "/threads/count", "{}").body, "2");
}

TEST(Runs, MayNameTheNewestCheckpointAndNoOther) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    ASSERT_EQ(api.call("POST", path + "/runs/wait", run_body("echo", "one")).status, 200);
    const auto history = api.call("GET", path + "/history").json();
    auto checkpoint = history[0].at("checkpoint");
    const auto next = api.call("POST", path + "/runs/wait",
                               run_body("echo", "two", {{"checkpoint", checkpoint}}));
    ASSERT_EQ(next.status, 200) << next.body;
    EXPECT_EQ(next.json().at("messages").size(), 4U);
    const auto fork = api.call("POST", path + "/runs/wait",
                               run_body("echo", "three", {{"checkpoint", checkpoint}}));
    EXPECT_EQ(fork.status, 422) << "no longer the newest";
    EXPECT_EQ(fork.json().at("code"), "unsupported");
    EXPECT_EQ(fork.json().at("field"), "checkpoint");
    const auto id = checkpoint.at("checkpoint_id");
    EXPECT_EQ(api.call("POST", "/runs/wait", run_body("echo", "x", {{"checkpoint_id", id}})).status,
              422);
}

TEST(Runs, StopAtBreakpointsAndGoOnWithoutInput) {
    TestApi api;
    const auto path = "/threads/" + api.make_thread();
    const auto held = api.call("POST", path + "/runs/wait",
                               run_body("pair", "x", {{"interrupt_before", {"again"}}}));
    EXPECT_EQ(held.json().at("messages").size(), 2U);
    EXPECT_EQ(held.json().at("__interrupt__"), Json::array());
    EXPECT_EQ(api.call("GET", path).json().at("status"), "interrupted");
    EXPECT_EQ(api.call("GET", path + "/state").json().at("next"), (Json{"again"}));
    const auto resumed =
        api.call("POST", path + "/runs/wait", R"({"assistant_id":"pair","input":null})");
    EXPECT_EQ(resumed.json().at("messages").size(), 3U);
    EXPECT_EQ(api.call("GET", path).json().at("status"), "idle");
}

}  // namespace
}  // namespace heddle::api::test
