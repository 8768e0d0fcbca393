#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/api/http.hpp"

namespace heddle::api {

class Api;
struct Call;
struct Answer;

/// One method on one path template.
struct Route {
    using Method = base::Task<base::Result<Answer>> (Api::*)(Call&);
    using AtOnce = Response (Api::*)(const Request&) const;

    std::string_view verb;      ///< "GET"
    std::string_view pattern;   ///< "/threads/{}/state": "{}" stands for one whole segment
    Method handler = nullptr;   ///< on a shard
    AtOnce at_once = nullptr;   ///< instead: needs no thread and no store, on any OS thread
    bool starts_work = false;   ///< refused while the engine drains
    bool thread_first = false;  ///< the first parameter is the thread_id
};

/// Finds the route of a request. Immutable; any OS thread.
class Router {
public:
    /// Where both match, a literal segment goes before a parameter.
    explicit Router(std::vector<Route> routes);

    struct Match {
        const Route* route = nullptr;  ///< nullptr: none with this method
        std::vector<std::string> params;
        std::string allow;  ///< without a route: the methods that the path has; empty: no such path
    };
    /// HEAD finds GET's route. One '/' at the end of the path does not count.
    [[nodiscard]] Match find(std::string_view method, std::string_view path) const;

private:
    struct Entry {
        Route route;
        std::vector<std::string_view> segments;
    };
    std::vector<Entry> entries_;
};

}  // namespace heddle::api
