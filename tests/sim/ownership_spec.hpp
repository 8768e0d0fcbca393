#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/storage/store.hpp"

/// What the store must answer and hold, written down a second time and on its own: one thread, one
/// run, engines by number (ADR 0001).
namespace heddle::sim {

using EngineNumber = std::size_t;

class OwnershipSpec {
public:
    enum class Claim : std::uint8_t { created, claimed, owned_elsewhere };
    enum class Beat : std::uint8_t { renewed, expired, unknown };

    explicit OwnershipSpec(base::Duration lease);

    void advance(base::Duration duration);
    /// @return the number of a new engine, registered now
    EngineNumber add_engine();
    void remove_engine(EngineNumber engine) { beats_us_[engine].reset(); }
    Beat beat(EngineNumber engine);
    Claim claim(EngineNumber engine);
    /// Whether `write` is to be accepted.
    [[nodiscard]] bool may_write(EngineNumber engine, const storage::ThreadWrite& write) const;
    /// Takes in a write that the store has accepted.
    /// @return what should hold and does not; empty if it is as it should be
    std::string_view accept(EngineNumber engine, const storage::ThreadWrite& write);

    [[nodiscard]] std::int64_t now_us() const noexcept { return now_us_; }
    [[nodiscard]] std::size_t engines() const noexcept { return beats_us_.size(); }
    [[nodiscard]] bool is_alive(EngineNumber engine) const;
    enum class Age : std::uint8_t { no_row, expired, fresh, within, last_moment };
    [[nodiscard]] Age age_of(EngineNumber engine) const;
    [[nodiscard]] bool is_created() const noexcept { return epoch_ != 0; }
    [[nodiscard]] storage::Epoch epoch() const noexcept { return epoch_; }
    [[nodiscard]] std::optional<EngineNumber> owner() const noexcept { return owner_; }
    [[nodiscard]] const std::vector<storage::JournalRow>& journal() const { return journal_; }
    [[nodiscard]] const std::optional<storage::RunUpdate>& run() const { return run_; }
    [[nodiscard]] bool is_orphan() const;

private:
    std::string_view take_run(const storage::RunUpdate& update);

    const std::int64_t lease_us_;
    std::int64_t now_us_ = 1'700'000'000'000'000;
    std::vector<std::optional<std::int64_t>> beats_us_;
    storage::Epoch epoch_ = 0;
    std::optional<EngineNumber> owner_;
    std::vector<storage::JournalRow> journal_;
    std::optional<storage::RunUpdate> run_;
};

}  // namespace heddle::sim
