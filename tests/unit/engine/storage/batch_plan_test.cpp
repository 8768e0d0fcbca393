#include "engine/storage/batch_plan.hpp"

#include <gtest/gtest.h>

namespace heddle::storage {
namespace {

ThreadWrite make_write(ThreadKey key, Epoch epoch = 1) {
    ThreadWrite write;
    write.key = key;
    write.thread_id.uuid.bytes[15] = static_cast<std::uint8_t>(key);
    write.epoch = epoch;
    return write;
}
ThreadClaim make_claim(ThreadKey key) {
    ThreadClaim claim;
    claim.thread_id = make_write(key).thread_id;
    return claim;
}
RunId make_run_id(std::uint8_t number) {
    RunId id;
    id.uuid.bytes[0] = number;
    return id;
}
JournalRow make_row(Seq seq) {
    JournalRow row;
    row.seq = seq;
    return row;
}
RunRow make_run(std::uint8_t number) {
    RunRow run;
    run.id = make_run_id(number);
    return run;
}
BatchPlan plan(const std::vector<ThreadWrite>& writes) {
    std::vector<const ThreadWrite*> pointers;
    for (const auto& write : writes) {
        pointers.push_back(&write);
    }
    return plan_batch(pointers);
}

TEST(BatchPlan, MergesTheWritesOfAThreadAndTheLastOneWins) {
    std::vector<ThreadWrite> writes{make_write(7), make_write(3), make_write(7)};
    writes[0].status = ThreadStatus::busy;
    writes[0].metadata = "{}";
    writes[0].journal = {make_row(0), make_row(1)};
    writes[2].status = ThreadStatus::idle;
    writes[2].journal = {make_row(2)};
    const auto merged = plan(writes);
    ASSERT_EQ(merged.threads.size(), 2U);
    EXPECT_EQ(merged.threads[0].key, 3) << "keys ascend";
    EXPECT_EQ(merged.threads[0].head, kNoSeq);
    EXPECT_FALSE(merged.threads[0].status.has_value());
    EXPECT_EQ(merged.threads[1].key, 7);
    EXPECT_EQ(merged.threads[1].head, 2);
    EXPECT_EQ(merged.threads[1].status, ThreadStatus::idle);
    EXPECT_EQ(merged.threads[1].metadata, &*writes[0].metadata);
    EXPECT_EQ(merged.threads[1].interrupts, nullptr);
    EXPECT_EQ(merged.journal.size(), 3U);
}

TEST(BatchPlan, FoldsAnUpdateIntoARunOfTheSameBatch) {
    std::vector<ThreadWrite> writes{make_write(1), make_write(1), make_write(1)};
    writes[0].new_runs = {make_run(1)};
    writes[1].run_updates = {{make_run_id(1), RunStatus::running, 1, ""},
                             {make_run_id(2), RunStatus::running, 1, ""}};
    writes[2].run_updates = {{make_run_id(1), RunStatus::error, 2, "e"},
                             {make_run_id(2), RunStatus::success, 3, ""}};
    const auto merged = plan(writes);
    ASSERT_EQ(merged.new_runs.size(), 1U);
    EXPECT_EQ(merged.new_runs[0].status, RunStatus::error);
    EXPECT_EQ(merged.new_runs[0].attempt, 2);
    EXPECT_EQ(*merged.new_runs[0].error, "e");
    ASSERT_EQ(merged.run_updates.size(), 1U);
    EXPECT_EQ(merged.run_updates[0].update->id, make_run_id(2));
    EXPECT_EQ(merged.run_updates[0].update->status, RunStatus::success);
}

ToolCallRow make_call(Seq seq, std::int32_t number, std::string answer = {}) {
    ToolCallRow call;
    call.seq = seq;
    call.number = number;
    call.answer = std::move(answer);
    return call;
}

TEST(BatchPlan, OfAToolCallTheLastWriteCounts) {
    std::vector<ThreadWrite> writes{make_write(1), make_write(2), make_write(1)};
    writes[0].tool_calls = {make_call(0, 0), make_call(0, 1)};
    writes[1].tool_calls = {make_call(0, 0)};
    writes[2].tool_calls = {make_call(0, 1, "answer")};
    const auto merged = plan(writes);
    ASSERT_EQ(merged.tool_calls.size(), 3U);
    EXPECT_EQ(merged.tool_calls[0].row, &writes[0].tool_calls[0]);
    EXPECT_EQ(merged.tool_calls[1].row, &writes[2].tool_calls[0]);
    EXPECT_EQ(merged.tool_calls[2].key, 2);
    EXPECT_TRUE(merged.tool_calls_done.empty());
}

TEST(BatchPlan, AToolCallThatIsOverInItsBatchIsNotWritten) {
    std::vector<ThreadWrite> writes{make_write(1), make_write(2), make_write(1), make_write(1)};
    writes[0].tool_calls = {make_call(4, 0)};
    writes[1].tool_calls = {make_call(4, 0)};
    writes[2].tool_calls_done = 4;
    writes[2].tool_calls = {make_call(5, 0)};
    writes[3].tool_calls = {make_call(5, 1)};
    const auto merged = plan(writes);
    ASSERT_EQ(merged.tool_calls.size(), 3U);
    EXPECT_EQ(merged.tool_calls[0].key, 2) << "another thread's stays";
    EXPECT_EQ(merged.tool_calls[1].row, &writes[2].tool_calls[0]);
    EXPECT_EQ(merged.tool_calls[2].row, &writes[3].tool_calls[0]);
    ASSERT_EQ(merged.tool_calls_done.size(), 1U);
    EXPECT_EQ(merged.tool_calls_done[0].key, 1);
    EXPECT_EQ(merged.tool_calls_done[0].seq, 4);
}

TEST(BatchPlan, ADeletedRunIsNeitherInsertedNorUpdated) {
    std::vector<ThreadWrite> writes{make_write(1)};
    writes[0].new_runs = {make_run(1), make_run(2)};
    writes[0].run_updates = {{make_run_id(3), RunStatus::running, 1, ""}};
    writes[0].deleted_runs = {make_run_id(1), make_run_id(3)};
    const auto merged = plan(writes);
    ASSERT_EQ(merged.new_runs.size(), 1U);
    EXPECT_EQ(merged.new_runs[0].row->id, make_run_id(2));
    EXPECT_TRUE(merged.run_updates.empty());
    EXPECT_EQ(merged.deleted_runs.size(), 2U);
}

TEST(BatchCut, WritesOfOneEpochGoTogether) {
    BatchCut cut;
    EXPECT_TRUE(cut.admit(make_write(1)));
    EXPECT_TRUE(cut.admit(make_write(2)));
    EXPECT_TRUE(cut.admit(make_write(1)));
    EXPECT_FALSE(cut.admit(make_write(1, 2)));
}

TEST(BatchCut, NothingOfAThreadFollowsItsReleaseOrDeletion) {
    for (const bool is_release : {true, false}) {
        BatchCut cut;
        auto last = make_write(1);
        last.release = is_release;
        last.delete_thread = !is_release;
        EXPECT_TRUE(cut.admit(last));
        EXPECT_FALSE(cut.admit(make_write(1)));
        EXPECT_FALSE(cut.admit(make_claim(1)));
        EXPECT_TRUE(cut.admit(make_write(2)));
    }
}

TEST(BatchCut, ADeletionDoesNotFollowWhatItWouldOvertake) {
    BatchCut cut;
    EXPECT_TRUE(cut.admit(make_write(1)));
    auto deletion = make_write(1);
    deletion.delete_thread = true;
    EXPECT_FALSE(cut.admit(deletion));
    auto removal = make_write(1);
    removal.deleted_runs = {make_run_id(1)};
    EXPECT_FALSE(cut.admit(removal));
}

TEST(BatchCut, AClaimDoesNotOvertakeAWrite) {
    BatchCut cut;
    EXPECT_TRUE(cut.admit(make_claim(1)));
    EXPECT_FALSE(cut.admit(make_claim(1)));
    EXPECT_TRUE(cut.admit(make_write(2)));
    EXPECT_FALSE(cut.admit(make_claim(2)));
    EXPECT_TRUE(cut.admit(make_claim(3)));
}

}  // namespace
}  // namespace heddle::storage
