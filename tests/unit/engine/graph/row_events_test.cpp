#include "engine/graph/row_events.hpp"

#include <gtest/gtest.h>

namespace heddle::graph {
namespace {

class RowEvents : public testing::Test {
protected:
    // What a superstep that set `count` is stored as, behind it `text`.
    [[nodiscard]] storage::JournalRow row(storage::Seq seq, const std::string& text) const {
        State state{channels_};
        storage::JournalRow row;
        row.seq = seq;
        row.run_id = run_;
        row.data = state.to_snapshot() + text;
        return row;
    }
    [[nodiscard]] std::vector<RowEvent> read(const std::string& text) const {
        auto events = read_row_events(channels_, {row(3, text)}, run_);
        EXPECT_TRUE(events.has_value());
        return events ? std::move(*events) : std::vector<RowEvent>{};
    }

    const base::RunId run_{base::make_uuid_v7()};
    const std::shared_ptr<const Channels> channels_ =
        std::make_shared<const Channels>(Channels{{"count", Reducer::last_value, nullptr, {}}});
};

TEST_F(RowEvents, SayWhatWasNotKept) {
    std::string text;
    append_row_events(text,
                      {{3, 1, 1, {StreamMode::custom, "1"}},
                       {3, 1, 7, {StreamMode::messages_tuple, {}}, true},
                       {3, 1, 9, {StreamMode::custom, {}}, true}},
                      {{StreamMode::updates, "{}"}});
    EXPECT_EQ(text, "\nlx1 1 1\nom1 7 \nox1 9 \nu{}");
    const auto events = read(text);
    ASSERT_EQ(events.size(), 4U);
    EXPECT_FALSE(events[0].lost);
    EXPECT_TRUE(events[1].lost);
    EXPECT_EQ(events[1].event.mode, StreamMode::messages_tuple);
    EXPECT_EQ(events[2].number, 9U);
    EXPECT_EQ(events[2].attempt, 1U);
    EXPECT_TRUE(events[2].lost);
    EXPECT_EQ(events[3].number, 1U) << "of the row itself, the first";
}

TEST_F(RowEvents, AreReadFromRowsThatSayNothingOfIt) {
    const auto events = read("\nlx1 1 1\nu{}");
    ASSERT_EQ(events.size(), 2U);
    EXPECT_FALSE(events[0].lost || events[1].lost);
}

TEST_F(RowEvents, AreReadInPagesOfWholeRows) {
    const std::vector<storage::JournalRow> chain{row(3, "\nu1\nu2"), row(4, "\nu3"),
                                                 row(5, "\nu4")};
    const auto first = read_row_events_page(channels_, chain, run_, 0, 1);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->events.size(), 2U);
    EXPECT_EQ(first->to, 3);
    const auto rest = read_row_events_page(channels_, chain, run_, 4, SIZE_MAX);
    ASSERT_TRUE(rest);
    ASSERT_EQ(rest->events.size(), 2U);
    EXPECT_EQ(rest->events[0].event.data, "3");
    EXPECT_EQ(rest->to, 5);
}

TEST_F(RowEvents, ThatAreBrokenAreRefused) {
    for (const auto* text : {"\n?{}", "\nl", "\nlx1", "\nom1 x ", "\no"}) {
        EXPECT_FALSE(read_row_events(channels_, {row(3, text)}, run_)) << text;
    }
}

}  // namespace
}  // namespace heddle::graph
