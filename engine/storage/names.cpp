#include <array>

#include "engine/base/assert.hpp"
#include "engine/storage/store.hpp"

namespace heddle::storage {
namespace {

// In the order of the enumerators; stored as their index, so the order never changes.
constexpr std::array<std::string_view, 4> kThreadStatusNames{"idle", "busy", "interrupted",
                                                             "error"};
constexpr std::array<std::string_view, 6> kRunStatusNames{"pending", "running", "success",
                                                          "error",   "timeout", "interrupted"};

constexpr std::array<std::string_view, 3> kTtlStrategyNames{"delete", "keep_latest", "temporary"};

template <class Enum, std::size_t N>
std::optional<Enum> find_name(const std::array<std::string_view, N>& names,
                              std::string_view text) noexcept {
    for (std::size_t i = 0; i < N; ++i) {
        if (names[i] == text) {
            return static_cast<Enum>(i);
        }
    }
    return std::nullopt;
}

}  // namespace

std::string_view to_string(ThreadStatus status) noexcept {
    return kThreadStatusNames[static_cast<std::size_t>(status)];
}

std::string_view to_string(RunStatus status) noexcept {
    return kRunStatusNames[static_cast<std::size_t>(status)];
}

std::string_view to_string(TtlStrategy strategy) noexcept {
    return kTtlStrategyNames[static_cast<std::size_t>(strategy)];
}

std::optional<ThreadStatus> parse_thread_status(std::string_view text) noexcept {
    return find_name<ThreadStatus>(kThreadStatusNames, text);
}

std::optional<RunStatus> parse_run_status(std::string_view text) noexcept {
    return find_name<RunStatus>(kRunStatusNames, text);
}

bool is_final(RunStatus status) noexcept {
    return status != RunStatus::pending && status != RunStatus::running;
}

}  // namespace heddle::storage
