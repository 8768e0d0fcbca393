#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>

#include <gtest/gtest.h>

#include "tests/sim/trial.hpp"

/// HEDDLE_SEED repeats one trial; HEDDLE_SIM_SECONDS says how long trials of new seeds are made.
namespace heddle::sim {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kSecondsUsual = 15;
#else
constexpr int kSecondsUsual = 40;
#endif
constexpr int kFaultTrialsMost = 400;

std::uint64_t number_of(const char* name, std::uint64_t otherwise) {
    const auto* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

bool is_replay() {
    return std::getenv("HEDDLE_SEED") != nullptr;
}

// The usual minute plays the same seeds each time, so that a change is judged by itself; whoever
// asks for more looks for new ones.
constexpr std::uint64_t kTrialsUsual = 1500;

bool wants_new() {
    return std::getenv("HEDDLE_SIM_SECONDS") != nullptr;
}

std::uint64_t first_seed() {
    return number_of("HEDDLE_SEED", wants_new() ? std::random_device{}() : 1);
}

std::ostream& operator<<(std::ostream& out, const Counts& counts) {
    return out << counts.runs << " runs, " << counts.streams << " streams, " << counts.waits
               << " waits, " << counts.repeats << " repeats, " << counts.resumed << " resumed, "
               << counts.losses << " losses, " << counts.rollbacks << " rollbacks; "
               << counts.crashes << " crashes, " << counts.pauses << " pauses, " << counts.drains
               << " drains, " << counts.outages << " outages, " << counts.cuts << " cuts; "
               << counts.takeovers << " takeovers, " << counts.stale_writes
               << " stale writes refused; " << counts.steps << " steps";
}

std::string report(std::uint64_t seed, const Outcome& outcome) {
    return "seed " + std::to_string(seed) + ": " + outcome.failure +
           "\nHEDDLE_SEED=" + std::to_string(seed) + " repeats it; the end of its trace:\n" +
           outcome.trace;
}

TEST(ServiceSimulation, NothingIsLostDoubledOrOutOfOrderWhateverFails) {
    using Clock = std::chrono::steady_clock;
    const auto seconds = number_of("HEDDLE_SIM_SECONDS", kSecondsUsual);
    const auto until = Clock::now() + std::chrono::seconds{seconds};
    auto seed = first_seed();
    std::cout << "first seed " << seed << std::endl;  // a crash must not swallow it
    Counts all;
    std::uint64_t trials = 0;
    do {
        const auto outcome = run_trial(seed);
        all += outcome.counts;
        ++trials;
        ASSERT_EQ(outcome.failure, "") << report(seed, outcome);
        ++seed;
    } while (Clock::now() < until && !is_replay() && (wants_new() || trials < kTrialsUsual));
    std::cout << trials << " trials: " << all << '\n';
    if (is_replay()) {
        return;
    }
    EXPECT_GT(all.runs, trials);
    for (const auto count :
         {all.streams, all.waits, all.repeats, all.resumed, all.losses, all.rollbacks, all.crashes,
          all.pauses, all.drains, all.outages, all.cuts, all.takeovers, all.stale_writes}) {
        EXPECT_GT(count, 0U);
    }
}

TEST(ServiceSimulation, OneSeedIsOneTrace) {
    const auto seed = first_seed();
    std::cout << "seed " << seed << '\n';
    const auto once = run_trial(seed);
    const auto again = run_trial(seed);
    EXPECT_EQ(once.hash, again.hash);
    EXPECT_EQ(once.trace, again.trace);
    EXPECT_NE(once.hash, run_trial(seed + 1).hash);
}

class ServiceSimulationFault : public testing::TestWithParam<Fault> {};

TEST_P(ServiceSimulationFault, IsFound) {
    auto seed = first_seed();
    Outcome outcome;
    int trials = 0;
    for (; trials < kFaultTrialsMost && outcome.failure.empty(); ++trials) {
        outcome = run_trial(seed++, GetParam());
    }
    EXPECT_NE(outcome.failure, "") << "after " << trials << " trials";
    std::cout << to_string(GetParam()) << ", trial " << trials << ", seed " << seed - 1 << ": "
              << outcome.failure << '\n';
}

INSTANTIATE_TEST_SUITE_P(Each,
                         ServiceSimulationFault,
                         testing::ValuesIn(kFaults),
                         [](const auto& fault) { return std::string{to_string(fault.param)}; });

}  // namespace
}  // namespace heddle::sim
