#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace heddle::base {

/// 128 bits in network order (RFC 9562). A value; nil by default.
struct Uuid {
    std::array<std::uint8_t, 16> bytes{};

    /// Accepts exactly the 36-character form with hyphens, either case.
    static std::optional<Uuid> parse(std::string_view text) noexcept;
    /// @return 36 lower-case characters
    [[nodiscard]] std::string to_string() const;
    [[nodiscard]] bool is_nil() const noexcept;

    friend auto operator<=>(const Uuid&, const Uuid&) = default;
};

/// Version 7, for thread, run and engine ids: time-ordered to the millisecond, 74 random bits.
/// Any thread; never repeats within a process.
Uuid make_uuid_v7();
/// Version 6, for checkpoint ids as LangGraph makes them: strictly increasing within a process, so
/// that ids of one thread sort in the order in which they were made. Any thread.
Uuid make_uuid_v6();
/// Version 5 (SHA-1) of `name` in `space`; LangGraph maps a graph name to its assistant id this
/// way.
Uuid make_uuid_v5(const Uuid& space, std::string_view name);
/// The namespace LangGraph uses for assistant ids: 6ba7b821-9dad-11d1-80b4-00c04fd430c8.
Uuid assistant_namespace() noexcept;

/// An id that is a UUID and cannot be mixed up with another kind: Id<struct RunTag>.
template <class Tag>
struct Id {
    Uuid uuid{};

    static std::optional<Id> parse(std::string_view text) noexcept {
        const auto parsed = Uuid::parse(text);
        if (!parsed) {
            return std::nullopt;
        }
        return Id{*parsed};
    }
    [[nodiscard]] std::string to_string() const { return uuid.to_string(); }
    [[nodiscard]] bool is_nil() const noexcept { return uuid.is_nil(); }

    friend auto operator<=>(const Id&, const Id&) = default;
};

using ThreadId = Id<struct ThreadTag>;          ///< the API's thread_id
using RunId = Id<struct RunTag>;                ///< the API's run_id
using CheckpointId = Id<struct CheckpointTag>;  ///< time-ordered, version 6
using AssistantId = Id<struct AssistantTag>;
using EngineId = Id<struct EngineTag>;  ///< new at each start of an engine process

/// Stable across processes and builds (it decides shards and, at the edge, engines).
std::uint64_t stable_hash(const Uuid& uuid) noexcept;

}  // namespace heddle::base

template <>
struct std::hash<heddle::base::Uuid> {
    std::size_t operator()(const heddle::base::Uuid& uuid) const noexcept {
        return heddle::base::stable_hash(uuid);
    }
};
template <class Tag>
struct std::hash<heddle::base::Id<Tag>> {
    std::size_t operator()(const heddle::base::Id<Tag>& id) const noexcept {
        return heddle::base::stable_hash(id.uuid);
    }
};
