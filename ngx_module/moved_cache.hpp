#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace heddle::ngx {

/// Which engine owns a thread, as `moved` answers have told. Bounded: four places a set, the least
/// recently used of a set is forgotten. Forgetting costs one more `moved`.
class MovedCache {
public:
    MovedCache() : sets_(kSets) {}

    [[nodiscard]] std::optional<std::size_t> find(std::uint64_t key_hash) noexcept {
        Set& set = sets_[key_hash % kSets];
        for (std::size_t i = 0; i < kWays; i++) {
            if (set[i].key_hash == key_hash && set[i].engine != 0) {
                move_to_front(set, i, set[i]);
                return set[0].engine - 1;
            }
        }
        return std::nullopt;
    }

    void put(std::uint64_t key_hash, std::size_t engine) noexcept {
        Set& set = sets_[key_hash % kSets];
        std::size_t at = kWays - 1;
        for (std::size_t i = 0; i < kWays; i++) {
            if (set[i].key_hash == key_hash) {
                at = i;
                break;
            }
        }
        move_to_front(set, at, {key_hash, static_cast<std::uint32_t>(engine + 1)});
    }

    void forget(std::uint64_t key_hash) noexcept {
        for (Entry& entry : sets_[key_hash % kSets]) {
            if (entry.key_hash == key_hash) {
                entry = {};
            }
        }
    }

private:
    static constexpr std::size_t kSets = 4'096;
    static constexpr std::size_t kWays = 4;

    struct Entry {
        std::uint64_t key_hash = 0;
        std::uint32_t engine = 0;  // index + 1; 0 is empty
    };
    using Set = std::array<Entry, kWays>;

    static void move_to_front(Set& set, std::size_t at, Entry entry) noexcept {
        for (; at > 0; at--) {
            set[at] = set[at - 1];
        }
        set[0] = entry;
    }

    std::vector<Set> sets_;
};

}  // namespace heddle::ngx
