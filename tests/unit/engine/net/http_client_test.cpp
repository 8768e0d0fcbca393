#include "engine/net/http_client.hpp"

#include <atomic>
#include <set>

#include <gtest/gtest.h>

#include "engine/base/json.hpp"
#include "tests/unit/engine/net/on_shard.hpp"
#include "tests/unit/engine/net/server_process.hpp"

namespace heddle::net {
namespace {

using base::ErrorCode;
using base::Json;
using base::Result;
using base::Task;
using namespace std::chrono_literals;

base::Instant in(base::Duration duration) {
    return base::system_clock().now() + duration;
}

class HttpClientTest : public ::testing::Test {
protected:
    HttpRequest get(const std::string& path) const {
        HttpRequest request;
        request.url = server_.url() + path;
        request.deadline = in(20s);
        return request;
    }
    Result<HttpResponse> send(HttpRequest request, OnBody on_body = {}) {
        base::CancelSource cancel;
        return test::run_on(shard_, [&]() -> Task<Result<HttpResponse>> {
            return client_.send(std::move(request), std::move(on_body), cancel);
        });
    }
    Json get_json(const std::string& path) {
        auto response = send(get(path));
        return base::parse_json(response.value().body, path).value();
    }

    test::ServerProcess server_{"tests/support/model_server.py"};
    base::Shard shard_{0, 1024};
    HttpClient client_;
};

TEST_F(HttpClientTest, SendsMethodHeadersAndBodyAsGiven) {
    auto request = get("/http/echo/a%2Fb?q=1");
    request.method = "PATCH";
    request.headers = {{"X-One", "1"}, {"X-Empty", ""}};
    request.body = "{\"k\":\"\u00e9\"}";
    const auto response = send(request);
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(response->status, 200);
    ASSERT_NE(response->find_header("content-type"), nullptr);
    const auto echo = base::parse_json(response->body, "echo").value();
    EXPECT_EQ(echo["method"], "PATCH");
    EXPECT_EQ(echo["path"], "/http/echo/a%2Fb?q=1");
    EXPECT_EQ(echo["headers"]["X-One"], "1");
    EXPECT_EQ(echo["headers"]["X-Empty"], "");
    EXPECT_EQ(echo["body"], "{\"k\":\"\u00e9\"}");
}

TEST_F(HttpClientTest, ReusesAConnection) {
    std::set<int> ports;
    for (int i = 0; i < 20; ++i) {
        ports.insert(get_json("/http/echo")["peer_port"].get<int>());
    }
    EXPECT_EQ(ports.size(), 1U);
}

TEST_F(HttpClientTest, ReportsStatusesAndDoesNotFollowRedirects) {
    EXPECT_EQ(send(get("/http/status/503"))->status, 503);
    const auto redirect = send(get("/http/redirect"));
    EXPECT_EQ(redirect->status, 302);
    EXPECT_EQ(*redirect->find_header("location"), "/http/echo");
}

TEST_F(HttpClientTest, RefusesWhatIsNotPlainHttp) {
    for (const char* url : {"file:///etc/passwd", "gopher://127.0.0.1/", "ftp://x/", "", "http"}) {
        auto request = get("");
        request.url = url;
        const auto response = send(request);
        ASSERT_FALSE(response) << url;
        EXPECT_EQ(response.error().code, ErrorCode::invalid_argument);
        EXPECT_EQ(response.error().field, "url");
    }
    auto request = get("/http/echo");
    request.headers = {{"X", "1\r\nX-Injected: 1"}};
    EXPECT_EQ(send(request).error().field, "headers");
    request.headers.clear();
    request.url += "/ \r\nX";
    EXPECT_EQ(send(request).error().field, "url");
    request = get("/http/echo");
    request.method = "get";
    EXPECT_EQ(send(request).error().field, "method");
}

TEST_F(HttpClientTest, SaysUnavailableWhenNobodyListens) {
    auto request = get("/");
    request.url = "http://127.0.0.1:1/";
    EXPECT_EQ(send(request).error().code, ErrorCode::unavailable);
    request.url = "http://no-such-host.invalid/";
    EXPECT_EQ(send(request).error().code, ErrorCode::unavailable);
}

TEST_F(HttpClientTest, BoundsTheBodyAndTheHeaders) {
    auto request = get("/http/bytes/100000");
    request.response_bytes_max = 99'999;
    EXPECT_EQ(send(request).error().code, ErrorCode::payload_too_large);
    request.response_bytes_max = 100'000;
    EXPECT_EQ(send(request)->body.size(), 100'000U);
    EXPECT_EQ(send(get("/http/headers/20000"))->status, 200);
    EXPECT_FALSE(send(get("/http/headers/80000")));
}

TEST_F(HttpClientTest, KeepsTheDeadlineAndTheIdleTimeout) {
    auto request = get("/http/silent");
    request.deadline = in(150ms);
    auto begun = base::system_clock().now();
    EXPECT_EQ(send(request).error().code, ErrorCode::timeout);
    EXPECT_LT(base::system_clock().now() - begun, 15s);
    request.deadline = in(20s);
    request.idle_timeout = 150ms;
    begun = base::system_clock().now();
    EXPECT_EQ(send(request).error().code, ErrorCode::timeout);
    EXPECT_LT(base::system_clock().now() - begun, 15s);
    request = get("/http/drip");  // never silent, so only the deadline ends it
    request.idle_timeout = 5s;
    request.deadline = in(300ms);
    EXPECT_EQ(send(request).error().code, ErrorCode::timeout);
}

TEST_F(HttpClientTest, SaysInDoubtWhenTheConnectionBreaks) {
    EXPECT_EQ(send(get("/http/cut")).error().code, ErrorCode::in_doubt);
}

TEST_F(HttpClientTest, SendsOnceWhatMustNotArriveTwice) {
    auto request = get("/http/hang-up");
    request.method = "POST";
    request.body = "{}";
    for (const bool once : {false, true}) {
        (void)get_json("/http/echo");  // leaves a connection to be used again
        const auto before = get_json("/http/hung-up")["requests"].get<int>();
        request.once = once;
        EXPECT_EQ(send(request).error().code, ErrorCode::in_doubt);
        const auto arrived = get_json("/http/hung-up")["requests"].get<int>() - before;
        EXPECT_EQ(arrived, once ? 1 : 2) << "what libcurl does with a kept connection";
    }
}

TEST_F(HttpClientTest, StreamsInOrderAndStopsWhenTheConsumerSaysSo) {
    std::size_t seen = 0;
    auto response =
        send(get("/http/bytes/3000000"), [&](std::string_view piece) -> Task<base::Status> {
            seen += piece.size();
            co_return base::ok();
        });
    ASSERT_TRUE(response);
    EXPECT_EQ(seen, 3'000'000U);
    EXPECT_TRUE(response->body.empty());
    response = send(get("/http/drip"), [&](std::string_view) -> Task<base::Status> {
        co_return base::Error{ErrorCode::model_error, "enough"};
    });
    EXPECT_EQ(response.error().message, "enough");
}

TEST_F(HttpClientTest, PausesTheServerWhileTheConsumerIsBusy) {
    constexpr std::size_t kBytes = 64U << 20U;
    std::size_t largest = 0;
    std::size_t seen = 0;
    std::int64_t sent = 0;
    bool first = true;
    auto request = get("/http/bytes/" + std::to_string(kBytes));
    request.response_bytes_max = kBytes;
    const auto response = send(request, [&](std::string_view piece) -> Task<base::Status> {
        largest = std::max(largest, piece.size());
        seen += piece.size();
        if (std::exchange(first, false)) {
            // The server's count stands still once the buffers between are full.
            base::CancelSource cancel;
            for (std::int64_t before = -1; before != sent;) {
                before = sent;
                co_await base::wait_for(300ms);
                auto asked = get("/http/progress");
                auto progress = co_await client_.send(std::move(asked), {}, cancel);
                sent = base::parse_json(progress->body, "progress")
                           .value()["sent"]
                           .get<std::int64_t>();
            }
        }
        co_return base::ok();
    });
    ASSERT_TRUE(response) << response.error().message;
    EXPECT_EQ(seen, kBytes);
    EXPECT_LT(sent,
              static_cast<std::int64_t>(kBytes / 2));  // the kernel's socket buffers hold some
    EXPECT_LE(largest, 300'000U);
}

TEST_F(HttpClientTest, CancelClosesTheConnectionAtOnce) {
    base::CancelSource cancel;
    const auto response = test::run_on(shard_, [&]() -> Task<Result<HttpResponse>> {
        std::size_t pieces = 0;
        auto on_body = [&](std::string_view) -> Task<base::Status> {
            if (++pieces == 3) {
                cancel.cancel({ErrorCode::interrupted, "stop"});
            }
            co_return base::ok();
        };
        auto request = get("/http/drip");
        co_return co_await client_.send(std::move(request), std::move(on_body), cancel);
    });
    EXPECT_EQ(response.error().code, ErrorCode::interrupted);
    const auto give_up = in(30s);
    while (get_json("/http/progress")["sent"] != -1 && base::system_clock().now() < give_up) {
    }
    EXPECT_EQ(get_json("/http/progress")["sent"], -1);  // the server saw the end
    EXPECT_EQ(client_.open_transfers(), 0U);
    EXPECT_EQ(send(get("/http/echo"))->status, 200);
}

TEST_F(HttpClientTest, RefusesMoreThanItsBound) {
    HttpClientOptions options;
    options.in_flight_max = 2;
    options.waiting_max = 1;
    HttpClient small{options};
    std::atomic<int> overloaded{0};
    const auto all = test::run_on(shard_, [&]() -> Task<int> {
        base::CancelSource cancel;
        for (int i = 0; i < 4; ++i) {
            shard_.spawn(
                [](HttpClient& client, HttpRequest request, std::atomic<int>& refused) -> Task<> {
                    base::CancelSource own;
                    const auto response = co_await client.send(std::move(request), {}, own);
                    if (response.error().code == ErrorCode::overloaded) {
                        ++refused;
                    }
                }(small, get("/http/silent"), overloaded));
        }
        for (const auto until = in(20s); overloaded == 0 && base::system_clock().now() < until;) {
            co_await base::wait_for(1ms);
        }
        co_return overloaded.load();
    });
    EXPECT_EQ(all, 1);
    EXPECT_EQ(small.open_transfers(), 3U);
}

TEST_F(HttpClientTest, AThousandAtOnceFinishTogether) {
    constexpr int kUsers = 1000;
    struct Counts {
        std::atomic<int> good{0};
        std::atomic<int> left{kUsers};
        std::promise<void> done;
    };
    const auto counts = std::make_shared<Counts>();
    const auto begun = base::system_clock().now();
    for (int i = 0; i < kUsers; ++i) {
        auto request = get("/v1/chat/completions");
        request.method = "POST";
        request.body =
            R"({"model":"slow-4000","stream":true,"messages":[{"role":"user","content":"user )" +
            std::to_string(i) + R"("}]})";
        shard_.spawn([](HttpClient& client, HttpRequest asked, int user,
                        std::shared_ptr<Counts> all) -> Task<> {
            base::CancelSource cancel;
            std::string text;
            OnBody on_body = [&](std::string_view piece) -> Task<base::Status> {
                text += piece;
                co_return base::ok();
            };
            const auto response =
                co_await client.send(std::move(asked), std::move(on_body), cancel);
            const bool own = text.find(" " + std::to_string(user) + "\\\"]") != std::string::npos;
            if (response && response->status == 200 && own) {
                ++all->good;
            }
            if (--all->left == 0) {
                all->done.set_value();
            }
        }(client_, std::move(request), i, counts));
    }
    ASSERT_EQ(counts->done.get_future().wait_for(60s), std::future_status::ready);
    const auto took = base::system_clock().now() - begun;
    EXPECT_EQ(counts->good.load(), kUsers);
    const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
    RecordProperty("milliseconds", static_cast<int>(milliseconds));
    EXPECT_GE(get_json("/stats")["max_concurrent"], kUsers * 9 / 10);
    EXPECT_LT(took, 60s);  // one after another would take 4,000 s
}

TEST_F(HttpClientTest, DestructionEndsWhatIsInFlight) {
    auto client = std::make_unique<HttpClient>();
    auto request = get("/http/silent");
    auto future = test::start_on(shard_, [&]() -> Task<ErrorCode> {
        base::CancelSource cancel;
        const auto response = co_await client->send(std::move(request), {}, cancel);
        co_return response.error().code;
    });
    while (client->open_transfers() == 0) {
    }
    client.reset();
    ASSERT_EQ(future.wait_for(30s), std::future_status::ready);
    EXPECT_EQ(future.get(), ErrorCode::cancelled);
}

// What the loop posts to a shard that is gone is seen by the sanitizers only.
TEST_F(HttpClientTest, AShardMayBeDestroyedWithWhatIsInFlight) {
    for (int trial = 0; trial < 50; ++trial) {
        std::promise<void> answering;
        base::Shard shard{7, 64};
        shard.spawn([](HttpClient& client, HttpRequest asked, auto& begun) -> Task<> {
            base::CancelSource cancel;
            OnBody on_body = [&, first = true](std::string_view) mutable -> Task<base::Status> {
                if (std::exchange(first, false)) {
                    begun.set_value();
                }
                co_return base::ok();
            };
            (void)co_await client.send(std::move(asked), std::move(on_body), cancel);
        }(client_, get("/http/drip"), answering));
        ASSERT_EQ(answering.get_future().wait_for(30s), std::future_status::ready);
    }
    while (client_.open_transfers() != 0) {
    }
    EXPECT_EQ(send(get("/http/status/503"))->status, 503);
}

TEST(PercentEncode, LeavesNothingThatCouldLeaveASegment) {
    EXPECT_EQ(percent_encode("a-b_c.d~9"), "a-b_c.d~9");
    EXPECT_EQ(percent_encode("../x?y#z"), "..%2Fx%3Fy%23z");
    EXPECT_EQ(percent_encode(".."), "%2E%2E");
    EXPECT_EQ(percent_encode("é %"), "%C3%A9%20%25");
}

}  // namespace
}  // namespace heddle::net
