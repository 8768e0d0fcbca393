#include <random>
#include <string>

#include <gtest/gtest.h>

#include "shared/wire/messages.hpp"

namespace heddle::wire {
namespace {

template <class Message>
std::string frame_of(const Message& message) {
    if constexpr (std::is_constructible_v<EdgeMessage, Message>) {
        return encode(EdgeMessage{message});
    } else {
        return encode(EngineMessage{message});
    }
}

std::string refusal_of_edge(std::string_view frame) {
    const auto decoded = decode_edge(frame);
    const auto* error = std::get_if<DecodeError>(&decoded);
    return error == nullptr ? "" : std::string{error->reason};
}

template <class Message, class Union>
Message only(const Decoded<Union>& decoded) {
    if (const auto* error = std::get_if<DecodeError>(&decoded)) {
        ADD_FAILURE() << error->reason;
        return {};
    }
    return std::get<Message>(std::get<Union>(decoded));
}

Request full_request() {
    Request request;
    request.id = 0x1'0000'0001;
    request.method = "POST";
    request.path = "/threads/1/runs \xff";
    request.query = "a=b&c=%20";
    request.headers = {{"content-type", "application/json"}, {"x-empty", ""}};
    request.thread_id = "t-1";
    request.run_id = "r-1";
    request.deadline_ms = 60'000;
    request.credit = 256U << 10U;
    request.hop = 2;
    request.body = std::string(kChunkBytesMax, 'x');
    request.body_complete = false;
    request.accepted = true;
    return request;
}

TEST(Wire, ARequestComesBackWhole) {
    const Request sent = full_request();
    const auto got = only<Request>(decode_edge(frame_of(sent)));
    EXPECT_EQ(got.id, sent.id);
    EXPECT_EQ(got.method, sent.method);
    EXPECT_EQ(got.path, sent.path);
    EXPECT_EQ(got.query, sent.query);
    EXPECT_EQ(got.headers, sent.headers);
    EXPECT_EQ(got.thread_id, sent.thread_id);
    EXPECT_EQ(got.run_id, sent.run_id);
    EXPECT_EQ(got.deadline_ms, sent.deadline_ms);
    EXPECT_EQ(got.credit, sent.credit);
    EXPECT_EQ(got.hop, sent.hop);
    EXPECT_EQ(got.body, sent.body);
    EXPECT_EQ(got.body_complete, sent.body_complete);
    EXPECT_EQ(got.accepted, sent.accepted);
}

TEST(Wire, AHeadComesBackWhole) {
    Head sent;
    sent.id = 7;
    sent.epoch = 3;
    sent.status = 404;
    sent.headers = {{"content-type", "application/json"}};
    sent.body = std::string{"{\"a\":\0}", 7};
    sent.last = true;
    const auto got = only<Head>(decode_engine(frame_of(sent)));
    EXPECT_EQ(got.id, sent.id);
    EXPECT_EQ(got.epoch, sent.epoch);
    EXPECT_EQ(got.status, sent.status);
    EXPECT_EQ(got.headers, sent.headers);
    EXPECT_EQ(got.body, sent.body);
    EXPECT_EQ(got.last, sent.last);
}

TEST(Wire, EveryCutOfAFrameIsRefused) {
    Request request = full_request();
    request.body = "abc";
    const std::string frame = frame_of(request);
    for (std::size_t length = 0; length < frame.size(); length++) {
        EXPECT_NE(refusal_of_edge(std::string_view{frame}.substr(0, length)), "") << length;
    }
}

TEST(Wire, BoundsAreExact) {
    Request request = full_request();
    request.path = "/" + std::string(kTargetBytesMax - 1 - request.query.size(), 'p');
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "");
    request.path += 'p';
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "query: not bytes within bounds");

    request = full_request();
    request.body += 'x';
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "body: not bytes within bounds");

    request = full_request();
    request.headers.assign(kHeadersMax, {"n", "v"});
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "");
    request.headers.emplace_back("n", "v");
    EXPECT_NE(refusal_of_edge(frame_of(request)), "");

    request.headers = {{"name", std::string(kHeaderBytesMax - 4, 'v')}};
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "");
    request.headers[0].second += 'v';
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "headers: too long");

    EXPECT_EQ(refusal_of_edge(frame_of(Credit{1, kCreditMax})), "");
    EXPECT_EQ(refusal_of_edge(frame_of(Credit{1, kCreditMax + 1})), "bytes: out of bounds");

    const std::string too_long(kFrameBytesMax + 1, '\x93');
    EXPECT_EQ(refusal_of_edge(too_long), "frame: too long");
}

TEST(Wire, NoHeaderCanCarryALineBreak) {
    Request request = full_request();
    request.headers = {{"x", "a\r\nset-cookie: b"}};
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "headers: bad value");
    request.headers = {{"x:y", "a"}};
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "headers: bad name");
    request.headers = {{"X", "a"}};
    EXPECT_EQ(refusal_of_edge(frame_of(request)), "headers: bad name");
}

TEST(Wire, RandomChangesNeverDoHarm) {
    const auto seed = std::random_device{}();
    RecordProperty("seed", std::to_string(seed));
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    Request request = full_request();
    request.body = "body";
    const std::string original = frame_of(request);
    for (int round = 0; round < 20'000; round++) {
        std::string frame = original;
        for (unsigned change = 0; change <= random() % 4; change++) {
            frame[random() % frame.size()] = static_cast<char>(random());
        }
        const auto decoded = decode_edge(frame);
        if (const auto* message = std::get_if<EdgeMessage>(&decoded)) {
            EXPECT_EQ(refusal_of_edge(encode(*message)), "");
        }
        (void)decode_engine(frame);
    }
}

}  // namespace
}  // namespace heddle::wire
