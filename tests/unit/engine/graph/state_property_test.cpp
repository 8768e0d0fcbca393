#include <cstdlib>
#include <random>

#include <gtest/gtest.h>

#include "engine/graph/checkpoint.hpp"
#include "tests/unit/engine/graph/support.hpp"

namespace heddle::graph::test {
namespace {

std::uint64_t pick_seed() {
    const char* given = std::getenv("HEDDLE_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

/// Random writes to the usual channels.
class Writer {
public:
    explicit Writer(std::uint64_t seed) : random_{seed} {}

    std::vector<ChannelWrite> next() {
        std::vector<ChannelWrite> list;
        const int count = below(4);
        bool topic = false;
        for (int i = 0; i < count; ++i) {
            switch (below(4)) {
                case 0:
                    if (!topic) {
                        list.push_back({"topic", text()});
                    }
                    topic = true;
                    break;
                case 1:
                    list.push_back({"log", Json::array({below(9), text()})});
                    break;
                default:
                    list.push_back({"messages", messages()});
                    break;
            }
        }
        return list;
    }
    int below(int bound) { return std::uniform_int_distribution<int>{0, bound - 1}(random_); }

private:
    std::string text() {
        static const std::vector<std::string> kTexts{
            "", "a", "\"\\\n", "ñandú", "x\xff", "{}", std::string(300, 'z')};
        return kTexts[static_cast<std::size_t>(below(static_cast<int>(kTexts.size())))];
    }
    Json messages() {
        Json list = Json::array();
        for (int i = below(4); i >= 0; --i) {
            const auto id = std::to_string(below(12));
            const int kind = below(10);
            if (kind == 0) {
                list.push_back(Json{{"type", "remove"}, {"id", id}});
            } else if (kind == 1 && below(5) == 0) {
                list.push_back(Json{{"type", "remove"}, {"id", "__remove_all__"}});
            } else if (kind < 5) {
                list.push_back(Json{{"role", "user"}, {"content", text()}, {"id", id}});
            } else {
                list.push_back(Json{{"role", "ai"}, {"content", text()}});
            }
        }
        return list;
    }

    std::mt19937_64 random_;
};

/// The messages channel as LangGraph's add_messages computes it, written down naively.
bool merge_naively(Json& left, const Json& right) {
    Json merged = left;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < right.size(); ++i) {
        if (right[i]["type"] == "remove" && right[i]["id"] == "__remove_all__") {
            merged = Json::array();
            begin = i + 1;
        }
    }
    std::vector<std::string> doomed;
    for (std::size_t i = begin; i < right.size(); ++i) {
        const auto id = right[i]["id"].get<std::string>();
        const bool removal = right[i]["type"] == "remove";
        const auto found = std::find_if(merged.begin(), merged.end(),
                                        [&](const Json& message) { return message["id"] == id; });
        if (removal && found == merged.end()) {
            return false;
        }
        if (removal) {
            doomed.push_back(id);
        } else if (found != merged.end()) {
            *found = right[i];
            std::erase(doomed, id);
        } else {
            merged.push_back(right[i]);
        }
    }
    left = Json::array();
    for (const auto& message : merged) {
        if (std::find(doomed.begin(), doomed.end(), message["id"]) == doomed.end()) {
            left.push_back(message);
        }
    }
    return true;
}

TEST(StateProperty, RestoredChainsEqualTheLiveState) {
    const auto seed = pick_seed();
    std::cout << "HEDDLE_TEST_SEED=" << seed << '\n';
    SCOPED_TRACE(seed);
    for (int round = 0; round < 20; ++round) {
        Writer writer{seed + static_cast<std::uint64_t>(round)};
        Position position{usual_channels()};
        std::vector<storage::JournalRow> rows;
        std::vector<std::string> texts;
        std::vector<State> copies;
        for (int step = 0; step < 300; ++step) {
            const auto before = position.state.to_text();
            std::string delta;
            if (!position.state.apply(writer.next(), delta)) {
                ASSERT_EQ(position.state.to_text(), before);
                continue;
            }
            CheckpointInfo info{"loop", std::move(delta), {"a", "b"}};
            rows.push_back(advance(position, base::RunId{base::make_uuid_v7()}, "{}", info));
            texts.push_back(position.state.to_text());
            // Names and punctuation besides, the running count is what the text really has.
            ASSERT_NEAR(static_cast<double>(position.state.bytes()),
                        static_cast<double>(texts.back().size()), 40);
            // Some steps share their state with a copy, so that writes have to copy.
            if (writer.below(3) == 0) {
                copies.push_back(position.state);
            }
        }
        for (std::size_t at = 0; at < rows.size();
             at += 1 + static_cast<std::size_t>(writer.below(20))) {
            const std::vector<storage::JournalRow> chain(
                rows.begin() + rows[at].base, rows.begin() + static_cast<std::ptrdiff_t>(at) + 1);
            const auto restored = restore(usual_channels(), chain);
            ASSERT_TRUE(restored);
            ASSERT_EQ(restored->state.to_text(), texts[at]);
            ASSERT_EQ(restored->checkpoint_id, rows[at].checkpoint_id);
            ASSERT_EQ(restored->next, (std::vector<std::string>{"a", "b"}));
        }
        ASSERT_EQ(restore(usual_channels(), {rows.begin() + rows.back().base, rows.end()})
                      ->bytes_since_base,
                  position.bytes_since_base);
    }
}

TEST(StateProperty, MessagesMergeAsInLangGraph) {
    const auto seed = pick_seed();
    std::cout << "HEDDLE_TEST_SEED=" << seed << '\n';
    SCOPED_TRACE(seed);
    for (int round = 0; round < 50; ++round) {
        Writer writer{seed + static_cast<std::uint64_t>(round)};
        State state{usual_channels()};
        Json expected = Json::array();
        for (int step = 0; step < 60; ++step) {
            IdMint mint;
            auto prepared = prepare_writes(state.channels(), writer.next(), "", mint);
            ASSERT_TRUE(prepared);
            Json next = expected;
            bool good = true;
            for (const auto& write : *prepared) {
                Json right = Json::array();
                for (const auto& item : write.items) {
                    right.push_back(item.json());
                }
                if (write.channel == 0) {
                    good = good && merge_naively(next, right);
                }
            }
            std::string delta;
            ASSERT_EQ(state.apply(*prepared, delta, nullptr).has_value(), good);
            if (good) {
                expected = next;
            }
            ASSERT_EQ(state.to_json()["messages"], expected);
        }
    }
}

TEST(Checkpoint, SnapshotsBoundTheChainOfAStateThatIsRewritten) {
    Position position{usual_channels()};
    storage::Seq longest = 0;
    for (int i = 0; i < 1000; ++i) {
        std::string delta;
        ASSERT_TRUE(position.state.apply({{"topic", std::string(100, 'x')}}, delta));
        CheckpointInfo info{"loop", std::move(delta), {}};
        const auto row = advance(position, base::RunId{}, "{}", info);
        longest = std::max(longest, row.seq - row.base);
    }
    EXPECT_EQ(longest, 63);
}

TEST(Checkpoint, AThreadThatOnlyGrowsIsHardlyEverWrittenAgain) {
    Position position{usual_channels()};
    std::size_t snapshot_bytes = 0;
    std::size_t delta_bytes = 0;
    for (int i = 0; i < 20'000; ++i) {
        std::string delta;
        ASSERT_TRUE(position.state.apply({{"log", std::string(100, 'x')}}, delta));
        CheckpointInfo info{"loop", std::move(delta), {}};
        const auto row = advance(position, base::RunId{}, "{}", info);
        (row.base == row.seq ? snapshot_bytes : delta_bytes) += row.data.size() + row.head.size();
        // What loading reads stays a small multiple of the state, in rows too.
        if (i < 1000) {
            continue;
        }
        ASSERT_LT(position.base_bytes + position.bytes_since_base, 2 * position.state.bytes());
        ASSERT_LT(position.seq - position.base, 4200 + i / 2);
    }
    EXPECT_LT(snapshot_bytes, delta_bytes / 2);
}

TEST(Checkpoint, AForkBeginsWithASnapshotOfItsOwn) {
    Position position{usual_channels()};
    std::vector<storage::JournalRow> rows;
    for (int i = 0; i < 5; ++i) {
        std::string delta;
        ASSERT_TRUE(position.state.apply({{"log", i}}, delta));
        CheckpointInfo info{"loop", std::move(delta), {}};
        rows.push_back(advance(position, base::RunId{}, "{}", info));
    }
    auto fork = restore(usual_channels(), {rows.begin(), rows.begin() + 3});
    ASSERT_TRUE(fork);
    fork->tip = 4;
    CheckpointInfo info{"fork", R"({"d":{}})", {}};
    const auto row = advance(*fork, base::RunId{}, "{}", info);
    EXPECT_EQ(row.seq, 5);
    EXPECT_EQ(row.parent, 2);
    EXPECT_EQ(row.base, 5);
    EXPECT_EQ(restore(usual_channels(), {row})->state.to_text(),
              R"({"messages":[],"log":[0,1,2]})");
}

TEST(Checkpoint, BrokenChainsAreRefused) {
    Position position{usual_channels()};
    std::vector<storage::JournalRow> rows;
    for (int i = 0; i < 4; ++i) {
        CheckpointInfo info{"loop", R"({"d":{}})", {}};
        rows.push_back(advance(position, base::RunId{}, "{}", info));
    }
    EXPECT_FALSE(restore(usual_channels(), {rows[1], rows[2]}));
    EXPECT_FALSE(restore(usual_channels(), {rows[0], rows[2]}));
    auto broken = rows;
    broken[3].head = "{";
    EXPECT_FALSE(restore(usual_channels(), broken));
    broken[3].head = R"({"source":"loop","next":[7]})";
    EXPECT_FALSE(restore(usual_channels(), broken));
    EXPECT_EQ(restore(usual_channels(), {})->seq, storage::kNoSeq);
}

}  // namespace
}  // namespace heddle::graph::test
