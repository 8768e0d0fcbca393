#include "tests/sim/ownership_spec.hpp"

namespace heddle::sim {
namespace {

std::int64_t microseconds(base::Duration duration) {
    return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

}  // namespace

OwnershipSpec::OwnershipSpec(base::Duration lease) : lease_us_{microseconds(lease)} {}

void OwnershipSpec::advance(base::Duration duration) {
    now_us_ += microseconds(duration);
}

EngineNumber OwnershipSpec::add_engine() {
    beats_us_.emplace_back(now_us_);
    return beats_us_.size() - 1;
}

bool OwnershipSpec::is_alive(EngineNumber engine) const {
    return beats_us_[engine] && now_us_ - *beats_us_[engine] <= lease_us_;
}

OwnershipSpec::Age OwnershipSpec::age_of(EngineNumber engine) const {
    if (!beats_us_[engine]) {
        return Age::no_row;
    }
    if (!is_alive(engine)) {
        return Age::expired;
    }
    const auto age_us = now_us_ - *beats_us_[engine];
    return age_us == 0 ? Age::fresh : age_us == lease_us_ ? Age::last_moment : Age::within;
}

OwnershipSpec::Beat OwnershipSpec::beat(EngineNumber engine) {
    if (!beats_us_[engine]) {
        return Beat::unknown;
    }
    if (!is_alive(engine)) {
        return Beat::expired;
    }
    beats_us_[engine] = now_us_;
    return Beat::renewed;
}

OwnershipSpec::Claim OwnershipSpec::claim(EngineNumber engine) {
    if (owner_ && *owner_ != engine && is_alive(*owner_)) {
        return Claim::owned_elsewhere;
    }
    owner_ = engine;
    return ++epoch_ == 1 ? Claim::created : Claim::claimed;
}

bool OwnershipSpec::may_write(EngineNumber engine, const storage::ThreadWrite& write) const {
    return owner_ == engine && epoch_ == write.epoch;
}

std::string_view OwnershipSpec::accept(EngineNumber engine, const storage::ThreadWrite& write) {
    if (!may_write(engine, write)) {
        return "only the owner's write with its epoch is accepted";
    }
    for (const auto& row : write.journal) {
        const auto next = static_cast<storage::Seq>(journal_.size());
        if (row.seq != next || row.parent != next - 1) {
            return "a row follows the one before it";
        }
        journal_.push_back(row);
    }
    for (const auto& run : write.new_runs) {
        if (run_) {
            return "a run is accepted once";
        }
        run_ = storage::RunUpdate{run.id, run.status, run.attempt, run.error};
    }
    for (const auto& update : write.run_updates) {
        if (const auto wrong = take_run(update); !wrong.empty()) {
            return wrong;
        }
    }
    if (write.release) {
        owner_.reset();
    }
    return {};
}

std::string_view OwnershipSpec::take_run(const storage::RunUpdate& update) {
    if (!run_) {
        return "only an accepted run changes";
    }
    if (storage::is_final(run_->status)) {
        return "a run ends once";
    }
    run_ = update;
    return {};
}

bool OwnershipSpec::is_orphan() const {
    return run_ && !storage::is_final(run_->status) && !(owner_ && is_alive(*owner_));
}

}  // namespace heddle::sim
