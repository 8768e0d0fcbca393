#include "engine/nodes/prompt_template.hpp"

#include <utility>

#include <fmt/format.h>
#include <kainjow/mustache.hpp>

namespace heddle::nodes {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using kainjow::mustache::data;
using kainjow::mustache::mustache;

data to_data(const Json& value) {
    switch (value.type()) {
        case Json::value_t::object: {
            data object{data::type::object};
            for (const auto& [key, member] : value.items()) {
                object.set(key, to_data(member));
            }
            return object;
        }
        case Json::value_t::array: {
            data list{data::type::list};
            for (const auto& element : value) {
                list.push_back(to_data(element));
            }
            return list;
        }
        case Json::value_t::string:
            return data{value.get_ref<const std::string&>()};
        case Json::value_t::boolean:
            return data{value.get<bool>() ? data::type::bool_true : data::type::bool_false};
        case Json::value_t::null:
            return data{data::type::bool_false};
        default:
            return data{base::dump_json(value)};
    }
}

class Parsed final : public PromptTemplate {
public:
    explicit Parsed(std::string text)
        : text_{std::move(text)}, constant_{text_.find("{{") == std::string::npos} {}

    [[nodiscard]] std::string render(const Json& values) const override {
        if (constant_) {
            return text_;
        }
        // Rendering changes the template object, and shards share this one: each call has its own.
        mustache parsed{text_};
        parsed.set_custom_escape([](const std::string& text) { return text; });
        return parsed.render(to_data(values));
    }

private:
    std::string text_;
    bool constant_;
};

}  // namespace

Result<std::shared_ptr<const PromptTemplate>> PromptTemplate::parse(std::string text) {
    const mustache parsed{text};
    if (!parsed.is_valid()) {
        return Error{ErrorCode::graph_error, parsed.error_message()};
    }
    return std::shared_ptr<const PromptTemplate>{std::make_shared<Parsed>(std::move(text))};
}

}  // namespace heddle::nodes
