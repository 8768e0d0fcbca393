#pragma once

#include <cstdint>
#include <vector>

#include "shared/wire/messages.hpp"

namespace heddle::ngx {

struct Call;

/// The only way from a wire request id to an nginx request. An id is never used twice, so a frame
/// that comes after its request has gone finds nothing. One a worker.
class Inflight {
public:
    static constexpr std::size_t kCallsMax = 1U << 16U;

    Inflight() { slots_.reserve(256); }

    /// @return 0 if there are kCallsMax already
    wire::RequestId add(Call& call);
    void remove(wire::RequestId id) noexcept;
    [[nodiscard]] Call* find(wire::RequestId id) const noexcept;
    /// The ids for which `wanted(call)` holds, in no order. Cost: all slots ever used at once.
    template <class Wanted>
    [[nodiscard]] std::vector<wire::RequestId> ids_where(Wanted wanted) const {
        std::vector<wire::RequestId> ids;
        for (const Slot& slot : slots_) {
            if (slot.call != nullptr && wanted(*slot.call)) {
                ids.push_back(slot.id);
            }
        }
        return ids;
    }

private:
    struct Slot {
        Call* call;
        wire::RequestId id;
    };
    static constexpr unsigned kIndexBits = 16;

    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
    std::uint64_t next_serial_ = 1;
};

}  // namespace heddle::ngx
