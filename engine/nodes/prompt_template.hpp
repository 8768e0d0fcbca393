#pragma once

#include <memory>
#include <string>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"

namespace heddle::nodes {

/// A Mustache template of a prompt: {{name}} without HTML escaping, sections, no partials.
/// Immutable; any OS thread.
class PromptTemplate {
public:
    /// @return graph_error with what is wrong in the template
    static base::Result<std::shared_ptr<const PromptTemplate>> parse(std::string text);
    virtual ~PromptTemplate() = default;

    /// @param values  an object; nested ones are reached by dots ({{config.user_name}})
    [[nodiscard]] virtual std::string render(const base::Json& values) const = 0;
};

}  // namespace heddle::nodes
