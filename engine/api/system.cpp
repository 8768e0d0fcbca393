// GET /ok, /info, /metrics: answered on the transport's OS thread, without a thread or a store.
#include <sstream>

#include <fmt/format.h>

#include "engine/api/api.hpp"

namespace heddle::api {

Response Api::get_ok(const Request& request) const {
    (void)request;
    return json_response(200, R"({"ok":true})");
}

Response Api::get_info(const Request& request) const {
    (void)request;
    return json_response(
        200,
        base::dump_json({{"version", options_.version},
                         {"context", "heddle"},
                         {"flags",
                          {{"assistants", true},
                           {"crons", false},
                           {"langsmith", false},
                           {"langsmith_tracing_replicas", false}}},
                         {"engine", {{"name", options_.engine_name}, {"store", store().name()}}}}));
}

Response Api::get_metrics(const Request& request) const {
    auto text = scheduler_.metrics().to_prometheus();
    const Query query{request.query};
    const auto* format = query.find("format");
    if (format == nullptr || *format == "prometheus") {
        return Response{200, {{"content-type", "text/plain; version=0.0.4"}}, std::move(text)};
    }
    if (*format != "json") {
        return error_response(
            {base::ErrorCode::invalid_argument, "format must be prometheus or json", "format"});
    }
    base::Json values = base::Json::object();
    std::istringstream lines{text};
    for (std::string line; std::getline(lines, line);) {
        const auto space = line.rfind(' ');
        if (line.starts_with('#') || space == std::string::npos) {
            continue;
        }
        values[line.substr(0, space)] = base::Json::parse(line.substr(space + 1), nullptr, false);
    }
    return json_response(200, base::dump_json(values));
}

}  // namespace heddle::api
