#pragma once

#include <memory>
#include <string>
#include <utility>

#include "engine/base/json.hpp"

namespace heddle::graph {

/// An immutable JSON value together with its compact text, made once: the text goes into the
/// journal, into every `values` answer and into every stream, so a long thread never pays for
/// serialising its old messages again. Copying shares.
class Item {
public:
    Item() : Item{base::Json{}} {}
    explicit Item(base::Json json)
        : body_{std::make_shared<const Body>(Body{base::dump_json(json), std::move(json)})} {}

    [[nodiscard]] const base::Json& json() const noexcept { return body_->json; }
    [[nodiscard]] const std::string& text() const noexcept { return body_->text; }

private:
    struct Body {
        std::string text;
        base::Json json;
    };
    std::shared_ptr<const Body> body_;
};

}  // namespace heddle::graph
