#include "engine/storage/checks.hpp"

#include <gtest/gtest.h>

namespace heddle::storage {
namespace {

TEST(Names, EveryStatusGoesThereAndBack) {
    for (int i = 0; i < 4; ++i) {
        const auto status = static_cast<ThreadStatus>(i);
        EXPECT_EQ(parse_thread_status(to_string(status)), status);
    }
    for (int i = 0; i < 6; ++i) {
        const auto status = static_cast<RunStatus>(i);
        EXPECT_EQ(parse_run_status(to_string(status)), status);
        EXPECT_EQ(is_final(status), i >= 2);
    }
    EXPECT_FALSE(parse_thread_status("pending"));
    EXPECT_FALSE(parse_run_status(""));
}

TEST(Checks, MetadataIsAnObjectWithoutNul) {
    ThreadClaim claim;
    EXPECT_TRUE(check_claim(claim));
    claim.metadata = R"({"a":["\\u0000","é"]})";
    EXPECT_TRUE(check_claim(claim));
    for (const std::string bad : {"", "null", "[]", "{", R"({"a":"\u0000"})", R"({"a":"\\\u0000"})",
                                  "{\"a\":\"\xff\"}", R"({"a":1,"a":2})"}) {
        claim.metadata = bad;
        EXPECT_FALSE(check_claim(claim)) << bad;
    }
}

TEST(Checks, PagesHaveBounds) {
    EXPECT_TRUE(check_page(1, 0));
    EXPECT_TRUE(check_page(1000, 1'000'000));
    EXPECT_FALSE(check_page(0, 0));
    EXPECT_FALSE(check_page(1001, 0));
    EXPECT_FALSE(check_page(1, -1));
}

TEST(Checks, AToolCallBelongsToASuperstepThatIsNotOver) {
    ThreadWrite write;
    write.tool_calls.resize(1);
    write.tool_calls[0].seq = 4;
    write.tool_calls_done = 3;
    EXPECT_TRUE(check_write(write));
    write.tool_calls_done = 4;
    EXPECT_FALSE(check_write(write));
    write.tool_calls_done = kNoSeq;
    write.rollback_to = 2;
    EXPECT_FALSE(check_write(write)) << "a rollback stands alone";
}

TEST(Checks, RowsAndBytesOfAWrite) {
    ThreadWrite write;
    EXPECT_EQ(rows_of(write), 1U);
    write.journal.resize(2);
    write.new_runs.resize(1);
    write.deleted_runs.resize(1);
    write.tool_calls.resize(3);
    EXPECT_EQ(rows_of(write), 7U);
    const auto before = bytes_of(write);
    write.journal[0].data.assign(1000, 'x');
    write.new_runs[0].kwargs.assign(500, 'x');
    write.tool_calls[0].answer.assign(200, 'x');
    EXPECT_EQ(bytes_of(write), before + 1700 - 2);
}

}  // namespace
}  // namespace heddle::storage
