#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

namespace heddle::base {

/// Many OS threads put things in, one at a time takes all of them out. Without locks; what one
/// thread puts in stays in order. Unbounded: its users bound what they put in.
template <class T>
class Mailbox {
public:
    Mailbox() = default;
    ~Mailbox() {
        std::vector<T> rest;
        take(rest);
    }
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    void push(T value) {
        auto node = std::make_unique<Node>(Node{std::move(value), nullptr});
        node->next = newest_.load(std::memory_order_relaxed);
        auto* raw = node.release();  // owned by the list from the exchange on
        while (!newest_.compare_exchange_weak(raw->next, raw, std::memory_order_seq_cst,
                                              std::memory_order_relaxed)) {
        }
    }
    /// Appends all that is in it to `out`, oldest first.
    void take(std::vector<T>& out) {
        const auto first = out.size();
        auto* node = newest_.exchange(nullptr, std::memory_order_acquire);
        while (node != nullptr) {
            const std::unique_ptr<Node> owned{node};
            node = owned->next;
            out.push_back(std::move(owned->value));
        }
        std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
    }
    [[nodiscard]] bool empty() const noexcept {
        return newest_.load(std::memory_order_seq_cst) == nullptr;
    }

private:
    struct Node {
        T value;
        Node* next;
    };
    std::atomic<Node*> newest_{nullptr};
};

}  // namespace heddle::base
