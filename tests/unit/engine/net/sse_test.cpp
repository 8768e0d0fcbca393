#include "engine/net/sse.hpp"

#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace heddle::net {
namespace {

using base::Status;
using Events = std::vector<std::pair<std::string, std::string>>;
using OnEvent = base::UniqueFunction<Status(std::string_view, std::string_view)>;

Status read(const std::vector<std::string>& pieces, Events& events, std::size_t most = 1000) {
    SseDecoder decoder{most};
    OnEvent on_event = [&](std::string_view name, std::string_view data) {
        events.emplace_back(name, data);
        return base::ok();
    };
    for (const auto& piece : pieces) {
        if (auto fed = decoder.feed(piece, on_event); !fed) {
            return fed;
        }
    }
    return base::ok();
}

TEST(SseDecoder, ReadsLinesOfEveryKind) {
    Events events;
    ASSERT_TRUE(read({"\xEF\xBB\xBF"
                      "data: one\n\n: comment\nevent: e\r\ndata:two\r\ndata: more\r\n\r\n"
                      "id: 7\nretry: 1\nunknown\n\ndata\n\ndata: cut"},
                     events));
    EXPECT_EQ(events, (Events{{"", "one"}, {"e", "two\nmore"}, {"", ""}}));
}

TEST(SseDecoder, GivesTheSameEventsHoweverTheStreamIsCut) {
    const std::string text = "event: a\r\ndata: 1\r\ndata: 2\r\n\r\rdata: 3\n\ndata: \xC3\xA9\r\r";
    Events whole;
    ASSERT_TRUE(read({text}, whole));
    ASSERT_EQ(whole.size(), 3U);
    const auto seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random{seed};
    for (int round = 0; round < 500; ++round) {
        std::vector<std::string> pieces;
        for (std::size_t at = 0; at < text.size();) {
            const auto size = std::uniform_int_distribution<std::size_t>{1, 5}(random);
            pieces.push_back(text.substr(at, size));
            at += size;
        }
        Events events;
        ASSERT_TRUE(read(pieces, events));
        ASSERT_EQ(events, whole);
    }
}

TEST(SseDecoder, RefusesAnEventThatIsTooLargeInOneLineOrInMany) {
    Events events;
    std::vector<std::string> line{"data: "};
    std::vector<std::string> lines;
    for (int i = 0; i < 200; ++i) {
        line.emplace_back("xxxxxxxxxx");
        lines.emplace_back("data: xxxx\n");
    }
    EXPECT_EQ(read(line, events).error().code, base::ErrorCode::payload_too_large);
    EXPECT_EQ(read(lines, events).error().code, base::ErrorCode::payload_too_large);
    EXPECT_TRUE(events.empty());
}

}  // namespace
}  // namespace heddle::net
