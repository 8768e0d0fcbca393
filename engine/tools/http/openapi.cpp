#include "engine/tools/http/openapi.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <utility>

#include <fmt/format.h>

namespace heddle::tools {
namespace {

using base::Error;
using base::ErrorCode;
using base::Json;
using base::Result;
using base::Status;

constexpr int kDepthMax = 32;
constexpr std::size_t kOperationsMax = 512;
constexpr std::size_t kResolvedValuesMax = 200'000;
constexpr std::array<std::string_view, 6> kMethods{"get", "put", "post", "delete", "patch", "head"};

std::string text_of(const Json& object, const char* key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string{};
}

bool is_tool_name(std::string_view name) {
    return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-';
    });
}

bool is_key_header(std::string_view name) {
    constexpr std::string_view kName = "idempotency-key";
    return std::equal(name.begin(), name.end(), kName.begin(), kName.end(), [](char a, char b) {
        return std::tolower(static_cast<unsigned char>(a)) == b;
    });
}

class OperationReader {
public:
    explicit OperationReader(const Json& document) : document_{document} {}

    Result<std::vector<Operation>> read() {
        const auto version = text_of(document_, "openapi");
        if (!version.starts_with("3.")) {
            return base::invalid_field("openapi", "expected version 3");
        }
        const auto paths = document_.find("paths");
        if (paths == document_.end() || !paths->is_object()) {
            return base::invalid_field("paths", "expected an object");
        }
        std::vector<Operation> out;
        std::set<std::string> names;
        for (const auto& path : paths->items()) {
            if (!path.value().is_object()) {
                continue;
            }
            for (const auto method : kMethods) {
                const auto at = path.value().find(std::string{method});
                if (at == path.value().end() || text_of(*at, "operationId").empty()) {
                    continue;
                }
                auto operation = read_operation(path.key(), path.value(), *at, method);
                if (!operation) {
                    return std::move(operation).error();
                }
                if (!names.insert(operation->spec.name).second) {
                    return base::invalid_field("paths." + path.key(),
                                               "the operationId is used twice");
                }
                out.push_back(*std::move(operation));
                if (out.size() > kOperationsMax) {
                    return base::invalid_field("paths", "too many operations");
                }
            }
        }
        return out;
    }

private:
    Result<Operation> read_operation(const std::string& path,
                                     const Json& item,
                                     const Json& json,
                                     std::string_view method) {
        const auto field = fmt::format("paths.{}.{}", path, method);
        Operation out;
        out.spec.name = text_of(json, "operationId");
        if (!is_tool_name(out.spec.name)) {
            return base::invalid_field(field + ".operationId",
                                       "expected 1 to 64 letters, digits, - and _");
        }
        out.spec.description = text_of(json, "summary");
        const auto longer = text_of(json, "description");
        if (!longer.empty() && longer != out.spec.description) {
            out.spec.description += (out.spec.description.empty() ? "" : "\n") + longer;
        }
        out.method.resize(method.size());
        std::transform(method.begin(), method.end(), out.method.begin(),
                       [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
        out.spec.recorded = !is_safe(out);
        out.path = path;
        out.spec.parameters = Json{{"type", "object"},
                                   {"properties", Json::object()},
                                   {"required", Json::array()},
                                   {"additionalProperties", false}};
        for (const Json* owner : {&json, &item}) {
            if (!owner->contains("parameters")) {
                continue;
            }
            if (auto read = read_parameters((*owner)["parameters"], field, out); !read) {
                return std::move(read).error();
            }
        }
        if (json.contains("requestBody")) {
            if (auto read = read_body(json["requestBody"], field + ".requestBody", out); !read) {
                return std::move(read).error();
            }
        }
        if (auto checked = check_path(out, field); !checked) {
            return std::move(checked).error();
        }
        return out;
    }

    // Parameters of the operation come first and hide those of the path with the same name.
    Status read_parameters(const Json& list, const std::string& field, Operation& out) {
        if (!list.is_array()) {
            return base::invalid_field(field + ".parameters", "expected a list");
        }
        for (std::size_t i = 0; i < list.size(); ++i) {
            const auto at = fmt::format("{}.parameters[{}]", field, i);
            auto parameter = resolve(list[i], at, 0);
            if (!parameter) {
                return std::move(parameter).error();
            }
            const auto name = text_of(*parameter, "name");
            const auto in = text_of(*parameter, "in");
            if (name.empty()) {
                return base::invalid_field(at + ".name", "missing");
            }
            if (in == "cookie") {
                return base::invalid_field(at + ".in", "cookies are not supported");
            }
            if (in == "header" && is_key_header(name)) {
                out.spec.on_unknown = OnUnknown::retry;
                continue;
            }
            auto& properties = out.spec.parameters["properties"];
            if (properties.contains(name)) {
                continue;
            }
            if (in == "path") {
                out.path_args.push_back(name);
            } else if (in == "query") {
                out.query_args.push_back(name);
            } else if (in == "header") {
                out.header_args.push_back(name);
            } else {
                return base::invalid_field(at + ".in", "expected path, query or header");
            }
            auto schema = parameter->value("schema", Json::object());
            if (!schema.is_object()) {
                return base::invalid_field(at + ".schema", "expected an object");
            }
            const auto description = text_of(*parameter, "description");
            if (!description.empty()) {
                schema["description"] = description;
            }
            properties[name] = std::move(schema);
            if (in == "path" || parameter->value("required", Json(false)) == true) {
                out.spec.parameters["required"].push_back(name);
            }
        }
        return base::ok();
    }

    Status read_body(const Json& json, const std::string& field, Operation& out) {
        auto body = resolve(json, field, 0);
        if (!body) {
            return std::move(body).error();
        }
        const Json::json_pointer where{"/content/application~1json/schema"};
        if (!body->is_object() || !body->contains(where)) {
            return base::invalid_field(field, "expected content application/json with a schema");
        }
        const Json& schema = body->at(where);
        if (!schema.is_object() || text_of(schema, "type") != "object") {
            return base::invalid_field(field, "expected a schema of type object");
        }
        out.has_body = true;
        auto& parameters = out.spec.parameters;
        const auto properties = schema.value("properties", Json::object());
        if (!properties.is_object()) {
            return base::invalid_field(field + ".properties", "expected an object");
        }
        for (const auto& item : properties.items()) {
            if (parameters["properties"].contains(item.key())) {
                return base::invalid_field(field,
                                           fmt::format("\"{}\" is a parameter, too", item.key()));
            }
            parameters["properties"][item.key()] = item.value();
            out.body_args.push_back(item.key());
        }
        const auto required = schema.value("required", Json::array());
        for (const auto& name : required) {
            if (name.is_string()) {
                parameters["required"].push_back(name);
            }
        }
        return base::ok();
    }

    static Status check_path(const Operation& operation, const std::string& field) {
        if (!operation.path.starts_with('/')) {
            return base::invalid_field(field, "a path begins with /");
        }
        std::set<std::string> wanted;
        std::string_view rest = operation.path;
        while (!rest.empty()) {
            const auto open = rest.find('{');
            if (open == std::string_view::npos) {
                break;
            }
            const auto close = rest.find('}', open);
            if (close == std::string_view::npos) {
                return base::invalid_field(field, "a { without }");
            }
            wanted.emplace(rest.substr(open + 1, close - open - 1));
            rest.remove_prefix(close + 1);
        }
        const std::set<std::string> given{operation.path_args.begin(), operation.path_args.end()};
        if (wanted != given) {
            return base::invalid_field(field, "the path's {names} are not its path parameters");
        }
        return base::ok();
    }

    // A copy without $ref: what is sent to the model and checked against stands for itself.
    Result<Json> resolve(const Json& json, const std::string& field, int depth) {
        if (depth > kDepthMax || ++resolved_ > kResolvedValuesMax) {
            return base::invalid_field(field, "nested too deeply, too large, or refers to itself");
        }
        if (json.is_object() && json.contains("$ref")) {
            const auto name = text_of(json, "$ref");
            if (!name.starts_with("#/")) {
                return base::invalid_field(field + ".$ref",
                                           "expected a reference within this document");
            }
            const auto* target = find(name.substr(1));
            if (target == nullptr) {
                return base::invalid_field(field + ".$ref", "leads nowhere: " + name);
            }
            return resolve(*target, field, depth + 1);
        }
        if (!json.is_structured()) {
            return json;
        }
        Json out = json.is_array() ? Json::array() : Json::object();
        for (const auto& item : json.items()) {
            auto value = resolve(item.value(), field, depth + 1);
            if (!value) {
                return value;
            }
            if (json.is_array()) {
                out.push_back(*std::move(value));
            } else {
                out[item.key()] = *std::move(value);
            }
        }
        return out;
    }

    [[nodiscard]] const Json* find(const std::string& pointer) const try {
        const Json::json_pointer where{pointer};
        return document_.contains(where) ? &document_.at(where) : nullptr;
    } catch (const Json::exception&) {
        return nullptr;
    }

    const Json& document_;  // NOLINT: lives as long as read()
    std::size_t resolved_ = 0;
};

}  // namespace

Result<std::vector<Operation>> read_operations(const Json& document) {
    if (!document.is_object()) {
        return base::invalid_field("openapi", "expected an OpenAPI document");
    }
    return OperationReader{document}.read();
}

bool is_safe(const Operation& operation) noexcept {
    return operation.method == "GET" || operation.method == "HEAD";
}

std::string first_server(const Json& document) {
    const auto servers = document.is_object() ? document.find("servers") : document.end();
    if (servers == document.end() || !servers->is_array() || servers->empty() ||
        !servers->front().is_object()) {
        return {};
    }
    return text_of(servers->front(), "url");
}

}  // namespace heddle::tools
