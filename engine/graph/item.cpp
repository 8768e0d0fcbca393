#include "engine/graph/item.hpp"

#include <utility>

#include "engine/base/json_scan.hpp"
#include "engine/observe/log.hpp"

namespace heddle::graph {

Item::Item(base::Json json) {
    auto body = std::make_shared<Body>();
    body->text = base::dump_json(json);
    body->json = std::move(json);
    body_ = std::move(body);
}

Item Item::from_stored(std::string_view text) {
    auto body = std::make_shared<Body>();
    body->text = text;
    body->is_stored = true;
    const auto id = base::find_member(body->text, "id");
    const bool is_plain =
        id && id->size() >= 2 && id->front() == '"' && id->find('\\') == std::string_view::npos;
    if (is_plain) {
        body->stored_id = id->substr(1, id->size() - 2);
    }
    body->is_id_known = is_plain || !id;
    return Item{std::shared_ptr<const Body>{std::move(body)}};
}

const base::Json& Item::json() const {
    if (body_->is_stored) {
        std::call_once(body_->made, [this] {
            auto parsed = base::parse_stored_json(body_->text);
            if (parsed) {
                body_->json = std::move(*parsed);
            } else {
                observe::log(observe::LogLevel::error, "graph", "a stored value is broken: {}",
                             parsed.error().message);
            }
        });
    }
    return body_->json;
}

std::string_view Item::id() const {
    if (body_->is_id_known) {
        return body_->stored_id;
    }
    const auto at = json().find("id");
    if (at == json().end() || !at->is_string()) {
        return {};
    }
    return at->get_ref<const std::string&>();
}

}  // namespace heddle::graph
