#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace heddle::bench {

/// Counts of latencies in log-linear buckets: 256 per power of two, so a quantile is at most 0.4 %
/// above the true one, and memory does not grow with the number of requests (about 100 KB).
/// Values are nanoseconds; what is above kNanosecondsMax is counted as kNanosecondsMax.
class Histogram {
public:
    static constexpr std::uint64_t kNanosecondsMax = (std::uint64_t{1} << 40) - 1;  // 18 minutes

    void add(std::uint64_t nanoseconds) {
        const std::uint64_t value = nanoseconds < kNanosecondsMax ? nanoseconds : kNanosecondsMax;
        ++counts_[index_of(value)];
        ++count_;
        sum_ += value;
        min_ = value < min_ ? value : min_;
        max_ = value > max_ ? value : max_;
    }

    /// The smallest bucket bound that at least `quantile` (0..1) of the values do not exceed;
    /// 0 if there are none.
    [[nodiscard]] std::uint64_t quantile(double quantile) const {
        if (count_ == 0) {
            return 0;
        }
        const double exact = quantile * static_cast<double>(count_);
        auto wanted = static_cast<std::uint64_t>(exact);
        wanted += static_cast<double>(wanted) < exact ? 1 : 0;
        std::uint64_t seen = 0;
        for (std::size_t index = 0; index < counts_.size(); ++index) {
            seen += counts_[index];
            if (seen >= wanted && seen > 0) {
                const std::uint64_t bound = upper_bound_of(index);
                return bound < max_ ? bound : max_;
            }
        }
        return max_;
    }

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] std::uint64_t min() const { return count_ == 0 ? 0 : min_; }
    [[nodiscard]] std::uint64_t max() const { return max_; }
    [[nodiscard]] double mean() const {
        return count_ == 0 ? 0.0 : static_cast<double>(sum_) / static_cast<double>(count_);
    }

private:
    static constexpr unsigned kBits = 8;
    static constexpr std::size_t kPerPower = std::size_t{1} << kBits;

    // Values below 256 have a bucket each; above, the leading bit chooses the row and the eight
    // bits after it the bucket.
    static std::size_t index_of(std::uint64_t value) {
        if (value < kPerPower) {
            return value;
        }
        const auto shift = static_cast<unsigned>(std::bit_width(value)) - 1 - kBits;
        return (shift + 1) * kPerPower + ((value >> shift) - kPerPower);
    }
    static std::uint64_t upper_bound_of(std::size_t index) {
        if (index < kPerPower) {
            return index;
        }
        const std::size_t shift = index / kPerPower - 1;
        return ((index % kPerPower + kPerPower + 1) << shift) - 1;
    }

    std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>((40 - kBits + 1) * kPerPower);
    std::uint64_t count_ = 0;
    std::uint64_t sum_ = 0;
    std::uint64_t min_ = ~std::uint64_t{0};
    std::uint64_t max_ = 0;
};

}  // namespace heddle::bench
