#include "tests/conformance/fixture.hpp"

/// The tool ledger: what is recorded is there for whoever owns the thread next, and goes with its
/// superstep.
namespace heddle::conformance {
namespace {

using storage::ToolCallRow;

class ToolCallTest : public StoreTest {};

base::Uuid task(std::uint8_t number) {
    base::Uuid id;
    id.bytes[0] = number;
    return id;
}

ToolCallRow make_call(storage::Seq seq, std::uint8_t of_task, std::int32_t number) {
    ToolCallRow row;
    row.seq = seq;
    row.task_id = task(of_task);
    row.number = number;
    row.run_id = new_run_id();
    return row;
}

// "1/0 answer": task, number, answer.
std::vector<std::string> shown(const std::vector<ToolCallRow>& rows) {
    std::vector<std::string> texts;
    for (const auto& row : rows) {
        texts.push_back(std::to_string(row.task_id.bytes[0]) + "/" + std::to_string(row.number) +
                        " " + row.answer);
    }
    return texts;
}
using Texts = std::vector<std::string>;

TEST_P(ToolCallTest, AreReadBackInOrderByTheirSuperstep) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    EXPECT_TRUE(engine->tool_calls(thread, 0).empty()) << "no such thread";
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    write.tool_calls = {make_call(0, 2, 0), make_call(0, 1, 10), make_call(0, 1, 9)};
    write.tool_calls[1].answer = std::string{"\0\xff '\\", 5};
    ASSERT_TRUE(engine->write(write));

    const auto rows = engine->tool_calls(thread, 0);
    EXPECT_EQ(shown(rows), (Texts{"1/9 ", "1/10 " + write.tool_calls[1].answer, "2/0 "}));
    ASSERT_EQ(rows.size(), 3U);
    EXPECT_EQ(rows[0].run_id, write.tool_calls[2].run_id);
    EXPECT_EQ(rows[0].seq, 0);
    EXPECT_TRUE(engine->tool_calls(thread, 1).empty()) << "of another superstep";
    EXPECT_TRUE(engine->tool_calls(new_thread_id(), 0).empty()) << "of another thread";
}

TEST_P(ToolCallTest, TheLastWriteOfACallCounts) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto begun = make_write(claimed);
    begun.tool_calls = {make_call(0, 1, 0), make_call(0, 1, 1)};
    ASSERT_TRUE(engine->write(begun));
    auto answered = make_write(claimed);
    answered.tool_calls = {begun.tool_calls[1]};
    answered.tool_calls[0].answer = "done";
    answered.tool_calls[0].run_id = new_run_id();
    ASSERT_TRUE(engine->write(answered));
    const auto rows = engine->tool_calls(thread, 0);
    EXPECT_EQ(shown(rows), (Texts{"1/0 ", "1/1 done"}));
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[1].run_id, answered.tool_calls[0].run_id);
}

TEST_P(ToolCallTest, GoWhenTheirSuperstepIsOver) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto other = new_thread_id();
    const auto claimed = engine->claim(thread);
    const auto beside = engine->claim(other);
    auto write = make_write(claimed);
    write.journal = {make_row(0)};
    write.tool_calls = {make_call(0, 1, 0), make_call(1, 2, 0)};
    ASSERT_TRUE(engine->write(write));
    auto others = make_write(beside);
    others.tool_calls = {make_call(0, 3, 0)};
    ASSERT_TRUE(engine->write(others));

    auto step = make_write(claimed);
    step.journal = {make_row(1)};
    step.tool_calls_done = 0;
    step.tool_calls = {make_call(1, 2, 1)};
    ASSERT_TRUE(engine->write(step));
    EXPECT_TRUE(engine->tool_calls(thread, 0).empty());
    EXPECT_EQ(shown(engine->tool_calls(thread, 1)), (Texts{"2/0 ", "2/1 "}));
    EXPECT_EQ(shown(engine->tool_calls(other, 0)), (Texts{"3/0 "}));
}

// Many writes at once: some of them go to the database as one batch.
TEST_P(ToolCallTest, KeepTheirOrderInABatch) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    constexpr storage::Seq kSteps = 40;
    std::vector<std::future<base::Status>> answers;
    const auto submit = [&](ThreadWrite write) {
        auto promise = std::make_shared<std::promise<base::Status>>();
        answers.push_back(promise->get_future());
        engine->store().write(std::move(write), [promise](base::Status status) {
            promise->set_value(std::move(status));
        });
    };
    for (storage::Seq seq = 0; seq < kSteps; ++seq) {
        auto begun = make_write(claimed);
        begun.tool_calls = {make_call(seq, 1, 0), make_call(seq, 1, 1)};
        const auto calls = begun.tool_calls;
        submit(std::move(begun));
        auto answered = make_write(claimed);
        answered.tool_calls = {calls[1]};
        answered.tool_calls[0].answer = "answer " + std::to_string(seq);
        submit(std::move(answered));
        if (seq + 1 < kSteps) {
            auto step = make_write(claimed);
            step.journal = {make_row(seq)};
            step.tool_calls_done = seq;
            submit(std::move(step));
        }
    }
    for (auto& answer : answers) {
        ASSERT_TRUE(answer.get());
    }
    for (storage::Seq seq = 0; seq + 1 < kSteps; ++seq) {
        EXPECT_TRUE(engine->tool_calls(thread, seq).empty()) << seq;
    }
    EXPECT_EQ(shown(engine->tool_calls(thread, kSteps - 1)), (Texts{"1/0 ", "1/1 answer 39"}));
}

TEST_P(ToolCallTest, ARollbackKeepsThoseOfTheCheckpointItGoesBackTo) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.journal = {make_row(0), make_row(1), make_row(2)};
    write.tool_calls = {make_call(1, 1, 0), make_call(2, 2, 0)};
    ASSERT_TRUE(engine->write(write));
    auto back = make_write(claimed);
    back.rollback_to = 1;
    ASSERT_TRUE(engine->write(back));
    EXPECT_EQ(shown(engine->tool_calls(thread, 1)), (Texts{"1/0 "}));
    EXPECT_TRUE(engine->tool_calls(thread, 2).empty());
}

TEST_P(ToolCallTest, GoWithTheirThread) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.tool_calls = {make_call(0, 1, 0)};
    ASSERT_TRUE(engine->write(write));
    auto removal = make_write(claimed);
    removal.delete_thread = true;
    ASSERT_TRUE(engine->write(removal));
    claimed = engine->claim(thread);
    EXPECT_TRUE(engine->tool_calls(thread, 0).empty());
}

TEST_P(ToolCallTest, AnEngineThatWasRobbedRecordsNothing) {
    auto stalled = open_engine();
    auto heir = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = stalled->claim(thread);
    auto write = make_write(claimed);
    write.tool_calls = {make_call(0, 1, 0)};
    ASSERT_TRUE(stalled->write(write));
    ASSERT_TRUE(stalled->unregister());
    const auto taken = heir->claim(thread);

    auto late = make_write(claimed);
    late.tool_calls = {make_call(0, 1, 0), make_call(0, 1, 1)};
    late.tool_calls[0].answer = "too late";
    EXPECT_EQ(code_of(stalled->write(late)), ErrorCode::stale_epoch);
    auto done = make_write(claimed);
    done.tool_calls_done = 0;
    EXPECT_EQ(code_of(stalled->write(done)), ErrorCode::stale_epoch);
    EXPECT_EQ(shown(heir->tool_calls(thread, 0)), (Texts{"1/0 "}));

    // Beside a good write of its heir in one batch, too.
    auto answered = make_write(taken);
    answered.tool_calls = write.tool_calls;
    answered.tool_calls[0].answer = "in time";
    ASSERT_TRUE(heir->write(answered));
    EXPECT_EQ(shown(heir->tool_calls(thread, 0)), (Texts{"1/0 in time"}));
}

TEST_P(ToolCallTest, LargeAnswersComeBackUnchanged) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto write = make_write(claimed);
    write.tool_calls = {make_call(0, 1, 0)};
    std::string& answer = write.tool_calls[0].answer;
    for (int i = 0; answer.size() < (1U << 20U); ++i) {
        answer += static_cast<char>(i * 7);
    }
    ASSERT_TRUE(engine->write(write));
    const auto rows = engine->tool_calls(thread, 0);
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].answer, answer);
}

TEST_P(ToolCallTest, WhatContradictsItselfIsRefused) {
    auto engine = open_engine();
    const auto thread = new_thread_id();
    const auto claimed = engine->claim(thread);
    auto over = make_write(claimed);
    over.tool_calls_done = 3;
    over.tool_calls = {make_call(3, 1, 0)};
    EXPECT_EQ(code_of(engine->write(over)), ErrorCode::invalid_argument);
    auto back = make_write(claimed);
    back.rollback_to = 0;
    back.tool_calls_done = 0;
    EXPECT_EQ(code_of(engine->write(back)), ErrorCode::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Drivers, ToolCallTest, testing::ValuesIn(kDrivers), [](const auto& test) {
    return std::string{test.param};
});

}  // namespace
}  // namespace heddle::conformance
