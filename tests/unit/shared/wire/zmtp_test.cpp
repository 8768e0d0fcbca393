#include "shared/wire/zmtp.hpp"

#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/uio.h>

#include "shared/wire/messages.hpp"

namespace heddle::wire {
namespace {

using Event = ZmtpReader::Event;

/// Gives `bytes` to the reader in pieces of at most `piece`, and what comes out to `on_event`.
template <class OnEvent>
void feed(ZmtpReader& reader, std::string_view bytes, std::size_t piece, OnEvent on_event) {
    while (!bytes.empty()) {
        const auto room = reader.room();
        ASSERT_GT(room.size(), 0U);
        const auto taken = std::min({piece, room.size(), bytes.size()});
        std::memcpy(room.data(), bytes.data(), taken);
        reader.filled(taken);
        bytes.remove_prefix(taken);
        for (auto event = reader.next(); event != Event::none; event = reader.next()) {
            on_event(event);
            if (event == Event::broken) {
                return;
            }
        }
    }
}

std::vector<Event> events_of(ZmtpReader& reader, std::string_view bytes, std::size_t piece = 64) {
    std::vector<Event> events;
    feed(reader, bytes, piece, [&](Event event) { events.push_back(event); });
    return events;
}

std::string opening(SocketKind kind) {
    return zmtp_greeting() + zmtp_ready(kind);
}

std::string drain(ZmtpSendQueue& queue, std::size_t most) {
    std::string out;
    std::array<iovec, ZmtpSendQueue::kVectorsMax> vectors{};
    while (const std::size_t count = queue.peek(vectors)) {
        std::size_t left = most;
        for (std::size_t i = 0; i < count && left > 0; ++i) {
            const auto taken = std::min(left, vectors.at(i).iov_len);
            out.append(static_cast<const char*>(vectors.at(i).iov_base), taken);
            left -= taken;
        }
        queue.written(most - left);
    }
    return out;
}

TEST(Zmtp, TwoSidesShakeHandsWhateverThePieces) {
    for (const std::size_t piece : {1U, 7U, 64U, 1'000U}) {
        ZmtpReader router{SocketKind::router};
        ZmtpReader dealer{SocketKind::dealer};
        const std::vector<Event> expected{Event::greeted, Event::ready};
        EXPECT_EQ(events_of(router, opening(SocketKind::dealer), piece), expected);
        EXPECT_EQ(events_of(dealer, opening(SocketKind::router), piece), expected);
    }
}

TEST(Zmtp, FramesOfEverySizeArriveWholeAndInOrder) {
    const auto seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    std::mt19937 random{seed};
    std::vector<std::string> sent;
    for (const std::size_t bytes :
         {std::size_t{1}, std::size_t{254}, std::size_t{255}, std::size_t{256}, std::size_t{8'191},
          std::size_t{8'192}, kChunkBytesMax, kFrameBytesMax}) {
        sent.emplace_back(bytes, static_cast<char>('a' + sent.size()));
    }
    for (int i = 0; i < 300; ++i) {
        sent.emplace_back(random() % 3'000, static_cast<char>(random()));
    }
    std::shuffle(sent.begin(), sent.end(), random);

    ZmtpSendQueue queue;
    queue.push_raw(opening(SocketKind::dealer));
    for (const auto& frame : sent) {
        if (random() % 2 == 0) {
            queue.push(std::string_view{frame});
        } else {
            queue.push(std::string{frame});
        }
    }
    EXPECT_EQ(queue.bytes(), queue.pushed_total());
    const std::string bytes = drain(queue, 1 + random() % 100'000);
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.bytes(), 0U);
    EXPECT_EQ(queue.written_total(), bytes.size());

    ZmtpReader reader{SocketKind::router};
    std::size_t frames = 0;
    feed(reader, bytes, 1 + random() % 100'000, [&](Event event) {
        if (event == Event::frame) {
            ASSERT_LT(frames, sent.size());
            EXPECT_EQ(reader.payload(), sent.at(frames++));
        }
    });
    EXPECT_EQ(frames, sent.size());
}

TEST(Zmtp, WhatWasDroppedCountsAsWritten) {
    ZmtpSendQueue queue;
    queue.push(std::string(10'000, 'x'));
    const auto pushed = queue.pushed_total();
    queue.clear();
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.written_total(), pushed);
    queue.push(std::string_view{"abc"});
    EXPECT_EQ(drain(queue, 2), std::string("\0\3abc", 5));
}

TEST(Zmtp, AMessageOfSeveralPartsIsDroppedAndTheNextArrives) {
    ZmtpReader reader{SocketKind::router};
    (void)events_of(reader, opening(SocketKind::dealer));
    const std::string bytes{"\1\1a\1\1b\0\1c\0\2ok", 13};
    std::vector<std::string> payloads;
    std::vector<Event> events;
    feed(reader, bytes, 3, [&](Event event) {
        events.push_back(event);
        payloads.emplace_back(reader.payload());
    });
    EXPECT_EQ(events, (std::vector<Event>{Event::multipart, Event::frame}));
    EXPECT_EQ(payloads.at(1), "ok");
}

TEST(Zmtp, APingIsAnsweredWithItsContext) {
    ZmtpReader reader{SocketKind::router};
    (void)events_of(reader, opening(SocketKind::dealer));
    std::string context;
    feed(reader, std::string{"\4\x9\4PING\0\1xy", 11}, 64, [&](Event event) {
        EXPECT_EQ(event, Event::ping);
        context = reader.payload();
    });
    EXPECT_EQ(context, "xy");
    EXPECT_EQ(zmtp_pong(context), std::string("\4\7\4PONGxy", 9));
}

TEST(Zmtp, WhatIsNoneOfItIsRefusedWithAReason) {
    auto old = zmtp_greeting();
    old[10] = 1;
    auto curve = zmtp_greeting();
    std::memcpy(&curve[12], "CURVE", 5);
    auto publisher = opening(SocketKind::dealer);
    publisher.replace(publisher.size() - 6, 6, "SUBSCR");
    const auto open = opening(SocketKind::dealer);
    const std::string over_limit{"\2\0\0\0\0\0\x10\0\1", 9};
    const std::string endless{"\2\xff\xff\xff\xff\xff\xff\xff\xff", 9};
    const std::vector<std::pair<std::string, std::string>> cases{
        {"GET / HTTP/1.1\r\n\r\n", "it does not speak ZMTP"},
        {std::string("\xff\0\0\0\0\0\0\0\0\0", 10), "it does not speak ZMTP"},
        {old, "it speaks an older ZMTP than 3"},
        {curve, "it wants a security mechanism other than NULL"},
        {publisher, "it is no socket that this one can talk to"},
        {zmtp_greeting() + std::string("\0\1x", 3), "it sent a message before it was ready"},
        {zmtp_greeting() + std::string("\4\7\5ERROR\0", 9), "it refused the handshake"},
        {zmtp_greeting() + std::string("\4\0", 2), "it sent a command without a name"},
        {zmtp_greeting() + std::string("\4\x7\5READY\x50", 9),
         "it is no socket that this one can talk to"},
        {open + "\x08", "it set flags that ZMTP does not have"},
        {open + std::string("\x05\1x", 3), "it set flags that ZMTP does not have"},
        {open + over_limit, "it sent a frame over the limit"},
        {open + endless, "it sent a frame over the limit"},
        {open + std::string("\6\0\0\0\0\0\0\x20\0", 9), "it sent a frame over the limit"},
    };
    for (const auto& [bytes, reason] : cases) {
        ZmtpReader reader{SocketKind::router};
        const auto events = events_of(reader, bytes + std::string(64, '\0'), 5);
        ASSERT_FALSE(events.empty()) << reason;
        EXPECT_EQ(events.back(), Event::broken) << reason;
        EXPECT_EQ(reader.reason(), reason);
        EXPECT_EQ(reader.next(), Event::broken);
    }
}

TEST(Zmtp, ADealerTalksToRoutersOnly) {
    ZmtpReader dealer{SocketKind::dealer};
    EXPECT_EQ(events_of(dealer, opening(SocketKind::dealer)).back(), Event::broken);
}

}  // namespace
}  // namespace heddle::wire
