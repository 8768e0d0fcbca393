#include "engine/api/router.hpp"

#include <algorithm>
#include <utility>

namespace heddle::api {
namespace {

constexpr std::string_view kParameter = "{}";
constexpr std::size_t kSegmentsMax = 8;

// At most kSegmentsMax + 1 pieces: no route has more, so a longer path cannot match.
std::vector<std::string_view> split(std::string_view path) {
    std::vector<std::string_view> segments;
    segments.reserve(kSegmentsMax + 1);
    if (path.size() > 1 && path.ends_with('/')) {
        path.remove_suffix(1);
    }
    if (!path.empty()) {
        path.remove_prefix(1);
    }
    while (segments.size() <= kSegmentsMax) {
        const auto slash = path.find('/');
        segments.push_back(path.substr(0, slash));
        if (slash == std::string_view::npos) {
            break;
        }
        path.remove_prefix(slash + 1);
    }
    return segments;
}

bool fits(const std::vector<std::string_view>& pattern, const std::vector<std::string_view>& path) {
    return pattern.size() == path.size() &&
           std::equal(pattern.begin(), pattern.end(), path.begin(), [](auto wanted, auto have) {
               return wanted == kParameter ? !have.empty() : wanted == have;
           });
}

// Fewer parameters first: "/assistants/search" before "/assistants/{}".
std::size_t parameters(const std::vector<std::string_view>& pattern) {
    return static_cast<std::size_t>(std::count(pattern.begin(), pattern.end(), kParameter));
}

}  // namespace

Router::Router(std::vector<Route> routes) {
    for (auto& route : routes) {
        entries_.push_back(Entry{route, split(route.pattern)});
    }
    std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
        return parameters(a.segments) < parameters(b.segments);
    });
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
    if (method == "HEAD") {
        method = "GET";
    }
    Match match;
    if (path.empty() || path.front() != '/') {
        return match;
    }
    const auto segments = split(path);
    std::size_t best_parameters = 0;
    for (const auto& entry : entries_) {
        if (!fits(entry.segments, segments)) {
            continue;
        }
        // A path that a literal pattern has is never read as a parameter of another: DELETE
        // /assistants/search is not the deletion of an assistant named "search".
        if (!match.allow.empty() && parameters(entry.segments) > best_parameters) {
            break;
        }
        best_parameters = parameters(entry.segments);
        if (entry.route.verb == method) {
            match.route = &entry.route;
            for (std::size_t i = 0; i < segments.size(); ++i) {
                if (entry.segments[i] == kParameter) {
                    match.params.emplace_back(segments[i]);
                }
            }
            return match;
        }
        match.allow += match.allow.empty() ? "" : ", ";
        match.allow += entry.route.verb;
    }
    return match;
}

}  // namespace heddle::api
