// The assistants are the agents loaded at start: read only, so every route here is answered at
// once.
#include <algorithm>
#include <cctype>
#include <utility>

#include <fmt/format.h>

#include "engine/api/api.hpp"
#include "engine/api/fields.hpp"
#include "engine/api/shapes.hpp"

namespace heddle::api {
namespace {

using base::Error;
using base::ErrorCode;
using scheduler::Assistant;

const std::vector<std::string_view> kMembers{
    "assistant_id", "graph_id",   "name",       "description", "config",
    "context",      "created_at", "updated_at", "metadata",    "version"};

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

// Reads graph_id, name and metadata; what a search and a count have in common.
std::vector<const Assistant*> select_by(Fields& body, const scheduler::Catalog& catalog) {
    const auto graph_id = body.text("graph_id");
    const auto name = body.text("name");
    const auto* metadata = body.object("metadata");
    const base::Json have{{"created_by", "system"}};
    std::vector<const Assistant*> found;
    for (const auto& assistant : catalog.assistants()) {
        if (graph_id && assistant.graph->name != *graph_id) {
            continue;
        }
        if (name && lower(assistant.graph->name).find(lower(*name)) == std::string::npos) {
            continue;
        }
        if (metadata != nullptr && !base::json_contains(have, *metadata)) {
            continue;
        }
        found.push_back(&assistant);
    }
    return found;
}

void sort_by(std::vector<const Assistant*>& found, std::size_t key, bool ascending) {
    std::stable_sort(found.begin(), found.end(), [&](const auto* left, const auto* right) {
        const auto& a = ascending ? *left : *right;
        const auto& b = ascending ? *right : *left;
        if (key == 0) {
            return a.id < b.id;
        }
        if (key <= 2) {
            return a.created_at_us < b.created_at_us;
        }
        return a.graph->name < b.graph->name;
    });
}

base::Result<const Assistant*> find_assistant(const scheduler::Catalog& catalog,
                                              const std::string& id) {
    const auto* assistant = catalog.find(id);
    if (assistant == nullptr) {
        return Error{ErrorCode::not_found, "Assistant not found", "assistant_id"};
    }
    return assistant;
}

}  // namespace

Response Api::search_assistants(const Request& request) const {
    const auto json = parse_body(request.body);
    if (!json) {
        return error_response(json.error());
    }
    Fields body{*json};
    auto found = select_by(body, scheduler_.catalog());
    const auto limit = static_cast<std::size_t>(body.integer("limit", 1, 1000).value_or(10));
    const auto offset = static_cast<std::size_t>(body.integer("offset", 0, INT32_MAX).value_or(0));
    const auto key =
        body.choice("sort_by", {"assistant_id", "created_at", "updated_at", "name", "graph_id"});
    const auto order = body.choice("sort_order", {"asc", "desc"});
    const auto select = body.texts("select", kMembers.size()).value_or(Select{});
    for (const auto& name : select) {
        if (std::find(kMembers.begin(), kMembers.end(), name) == kMembers.end()) {
            body.refuse("select", fmt::format("must be some of {}", fmt::join(kMembers, ", ")));
        }
    }
    if (const auto status = body.finish(); !status) {
        return error_response(status.error());
    }
    sort_by(found, key.value_or(1), order == 0U);

    std::vector<std::string> items;
    for (std::size_t i = offset; i < found.size() && items.size() < limit; ++i) {
        items.push_back(assistant_json(*found[i], select));
    }
    auto response = json_response(200, json_list(items));
    response.headers.emplace_back("x-pagination-total", std::to_string(found.size()));
    if (offset + items.size() < found.size()) {
        response.headers.emplace_back("x-pagination-next", std::to_string(offset + items.size()));
    }
    return response;
}

Response Api::count_assistants(const Request& request) const {
    const auto json = parse_body(request.body);
    if (!json) {
        return error_response(json.error());
    }
    Fields body{*json};
    const auto found = select_by(body, scheduler_.catalog());
    if (const auto status = body.finish(); !status) {
        return error_response(status.error());
    }
    return json_response(200, std::to_string(found.size()));
}

Response Api::get_assistant(const Request& request) const {
    const auto assistant = find_assistant(scheduler_.catalog(), request.params[0]);
    if (!assistant) {
        return error_response(assistant.error());
    }
    return json_response(200, assistant_json(**assistant));
}

Response Api::get_assistant_graph(const Request& request) const {
    const auto assistant = find_assistant(scheduler_.catalog(), request.params[0]);
    if (!assistant) {
        return error_response(assistant.error());
    }
    return json_response(200, assistant_graph_json(*(*assistant)->graph));
}

Response Api::get_assistant_schemas(const Request& request) const {
    const auto assistant = find_assistant(scheduler_.catalog(), request.params[0]);
    if (!assistant) {
        return error_response(assistant.error());
    }
    return json_response(200, assistant_schemas_json(*(*assistant)->graph));
}

}  // namespace heddle::api
