#include "ngx_module/inflight.hpp"

namespace heddle::ngx {

wire::RequestId Inflight::add(Call& call) {
    std::uint32_t index = 0;
    if (!free_.empty()) {
        index = free_.back();
        free_.pop_back();
    } else if (slots_.size() < kCallsMax) {
        index = static_cast<std::uint32_t>(slots_.size());
        slots_.push_back({});
        free_.reserve(slots_.capacity());  // so that remove() cannot fail
    } else {
        return 0;
    }
    const wire::RequestId id = (next_serial_++ << kIndexBits) | index;
    slots_[index] = {&call, id};
    return id;
}

void Inflight::remove(wire::RequestId id) noexcept {
    if (find(id) != nullptr) {
        const auto index = static_cast<std::uint32_t>(id & (kCallsMax - 1));
        slots_[index] = {};
        free_.push_back(index);
    }
}

Call* Inflight::find(wire::RequestId id) const noexcept {
    const std::size_t index = id & (kCallsMax - 1);
    return index < slots_.size() && slots_[index].id == id && id != 0 ? slots_[index].call
                                                                      : nullptr;
}

}  // namespace heddle::ngx
