#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "engine/base/json.hpp"

namespace heddle::graph {

/// An immutable JSON value together with its compact text, made once: the text goes into the
/// journal, into every `values` answer and into every stream, so a long thread never pays for
/// serialising its old messages again. One that was read from the store is its text until somebody
/// asks for the value: reading a long thread parses nothing. Copying shares; any OS thread may
/// read.
class Item {
public:
    Item() : Item{base::Json{}} {}
    explicit Item(base::Json json);
    /// @param text  compact JSON that we wrote ourselves; if it is broken, json() is null
    static Item from_stored(std::string_view text);

    [[nodiscard]] const base::Json& json() const;
    [[nodiscard]] const std::string& text() const noexcept { return body_->text; }
    /// The string member `id`, as messages have it; empty if there is none. Lives as long as a copy
    /// of this item.
    [[nodiscard]] std::string_view id() const;

private:
    struct Body {
        std::string text;
        std::string_view stored_id;  ///< in `text`; only if is_id_known
        bool is_stored = false;
        bool is_id_known = false;
        mutable std::once_flag made;  ///< `json` of a stored one
        mutable base::Json json;
    };
    explicit Item(std::shared_ptr<const Body> body) : body_{std::move(body)} {}

    std::shared_ptr<const Body> body_;
};

}  // namespace heddle::graph
